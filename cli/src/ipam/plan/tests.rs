use std::collections::BTreeMap;

use super::*;

fn needs(entries: &[(&str, Family, u64)]) -> Needs {
    entries.iter().map(|(pool, family, count)| (((*pool).to_owned(), *family), *count)).collect()
}

fn after(settings: &[(&str, &str)]) -> After {
    let data = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    After::of(&change::load(&data).expect("accepted")).expect("usable")
}

#[test]
fn a_node_that_lacks_room_is_told_how_much_and_what_to_change() {
    let all = needs(&[("", Family::V4, 9), ("", Family::V6, 9)]);
    let room = needs(&[("", Family::V4, 6), ("", Family::V6, 14)]);
    let told = shortage(Mode::ClusterPool, &all, &room, "w1").expect("too little");
    assert!(told.contains("6 of 9 IPv4 addresses") && !told.contains("IPv6 addresses"), "{told}");
    assert!(told.contains("cluster-pool-ipv4-cidr"), "{told}");
    assert_eq!(shortage(Mode::ClusterPool, &room, &room, "w1"), None);
    let told = shortage(Mode::MultiPool, &needs(&[("vac", Family::V4, 1)]), &Needs::new(), "w1").expect("no pool");
    assert!(told.contains("0 of 1 IPv4 addresses of pool \"vac\""), "{told}");
}

#[test]
fn needs_of_pods_go_to_the_pools_that_they_name() {
    let after = after(&[("enable-ipv6", "true"), ("ipam-default-ip-pool", "base")]);
    let ips = |texts: [&str; 2]| texts.iter().filter_map(|ip| ip.parse().ok()).collect::<Vec<IpAddr>>();
    let plain = PodFacts { ips: ips(["10.0.0.1", "fd00::1"]), ..PodFacts::default() };
    let pools = BTreeMap::from([(Family::V6, "six".to_owned())]);
    let named = PodFacts { ips: ips(["10.0.0.2", "fd00::2"]), pools };
    let own = ips(["10.0.0.3", "fd00::3"]);
    let found = after.whole_needs(Mode::MultiPool, &[plain.clone(), named.clone()], &own);
    assert_eq!(found, needs(&[("base", Family::V4, 3), ("base", Family::V6, 2), ("six", Family::V6, 1)]));
    let found = after.whole_needs(Mode::ClusterPool, &[plain, named], &own);
    assert_eq!(found, needs(&[("", Family::V4, 3), ("", Family::V6, 3)]));
}

#[test]
fn a_node_in_multi_pool_asks_for_what_it_keeps_ready() {
    let found = after(&[("ipam-multi-pool-pre-allocation", "default=8,vac=16")]).first_needs(Mode::MultiPool);
    assert_eq!(found, needs(&[("default", Family::V4, 8), ("vac", Family::V4, 16)]));
    assert!(after(&[]).first_needs(Mode::ClusterPool).is_empty());
}

#[test]
fn a_node_without_a_pod_cidr_is_told_who_gives_it() {
    let after = after(&[("enable-ipv6", "true")]);
    let block = |cidr: &str| Given { pool: String::new(), cidr: cidr.parse().expect("a CIDR") };
    let none = Needs::new();
    let told = missing_families(Mode::Kubernetes, &after, "w1", &[block("10.0.0.0/24")], &none).expect("no IPv6");
    assert!(told.contains("Node w1 has no IPv6 range") && told.contains("--cluster-cidr"), "{told}");
    let both = [block("10.0.0.0/24"), block("fd00::/120")];
    assert_eq!(missing_families(Mode::Kubernetes, &after, "w1", &both, &none), None);
    assert_eq!(missing_families(Mode::MultiPool, &after, "w1", &[], &none), None, "it keeps nothing ready");
}
