//! Values files and the ConfigMaps they become.

use proptest::prelude::*;

use super::*;
use crate::config::{Config, Sources};

fn map(values: &str) -> BTreeMap<String, String> {
    to_config_map(values).unwrap_or_else(|error| panic!("{values}: {error}"))
}

#[test]
fn cluster_pool_values_become_the_joined_list() {
    let values = "
ipam:
  mode: cluster-pool
  operator:
    clusterPoolIPv4MaskSize: 29
    clusterPoolIPv4PodCIDRList:
      - \"172.20.42.0/28\"
      - \"172.20.84.0/28\"
      - \"10.0.0.0/28\"
";
    let map = map(values);
    assert_eq!(map["ipam"], "cluster-pool");
    assert_eq!(map["cluster-pool-ipv4-cidr"], "172.20.42.0/28 172.20.84.0/28 10.0.0.0/28");
    assert_eq!(map["cluster-pool-ipv4-mask-size"], "29");
    assert!(!map.contains_key("cluster-pool-ipv6-cidr"), "IPv6 is off");
    assert!(!map.contains_key("auto-create-cilium-pod-ip-pools"), "the mode is not multi-pool");
}

#[test]
fn multi_pool_values_become_the_pool_text() {
    // The chart's join takes a single text for a list.
    for cidrs in ["172.20.0.0/16", "[172.20.0.0/16]"] {
        let values = format!(
            "ipam: {{mode: multi-pool, operator: {{autoCreateCiliumPodIPPools: \
             {{default: {{ipv4: {{cidrs: {cidrs}, maskSize: 28}}}}}}}}}}"
        );
        let map = map(&values);
        assert_eq!(map["ipam"], "multi-pool");
        assert_eq!(map["auto-create-cilium-pod-ip-pools"], "default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:28");
        assert!(!map.keys().any(|key| key.contains("multi-pool")), "as the chart has it");
    }
    let two = "ipam: {mode: multi-pool, operator: {autoCreateCiliumPodIPPools: {\
               b: {ipv6: {cidrs: ['fd00::/64'], maskSize: 96}}, a: {ipv4: {cidrs: [10.0.0.0/8, 11.0.0.0/8]}}}}}";
    let expected = "a=ipv4-cidrs:10.0.0.0/8,11.0.0.0/8,b=ipv6-cidrs:fd00::/64;ipv6-mask-size:96";
    assert_eq!(map(two)["auto-create-cilium-pod-ip-pools"], expected);
}

#[test]
fn mode_brings_its_defaults() {
    let map = map("ipam: {mode: cluster-pool}\nipv6: {enabled: true}");
    assert_eq!(map["cluster-pool-ipv4-cidr"], "10.0.0.0/8");
    assert_eq!(map["cluster-pool-ipv4-mask-size"], "24");
    assert_eq!(map["cluster-pool-ipv6-cidr"], "fd00::/104");
    assert_eq!(map["cluster-pool-ipv6-mask-size"], "120");
}

#[test]
fn native_routing_values_keep_their_names() {
    let values = "
routingMode: native
autoDirectNodeRoutes: true
ipv4NativeRoutingCIDR: 10.0.0.0/16
kubeProxyReplacement: true
bpf: {masquerade: true}
devices: [enp0s3, enp0s8]
cni: {hostConfDirMountPath: /host/etc/cni/net.d}
endpointRoutes: {enabled: true}
hubble: {enabled: true, relay: {enabled: false}}
operator: {replicas: 1}
extraConfig: {ipam-default-ip-pool: vac}
";
    let map = map(values);
    for (key, value) in [
        ("routing-mode", "native"),
        ("auto-direct-node-routes", "true"),
        ("ipv4-native-routing-cidr", "10.0.0.0/16"),
        ("kube-proxy-replacement", "true"),
        ("enable-bpf-masquerade", "true"),
        ("devices", "enp0s3 enp0s8"),
        ("write-cni-conf-when-ready", "/host/etc/cni/net.d/05-cilium.conflist"),
        ("enable-endpoint-routes", "true"),
        ("enable-hubble", "true"),
        ("ipam-default-ip-pool", "vac"),
    ] {
        assert_eq!(map.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(!map.keys().any(|key| key.contains("relay") || key.contains("replicas")));
}

#[test]
fn what_no_config_map_carries_is_refused_with_the_file() {
    let error = to_config_map("hubble: {relay: {enabled: true}}").expect_err("Hubble Relay").to_string();
    let expected = "hubble.relay.enabled=\"true\": Hubble Relay is not built into this version; \
                    set hubble.relay.enabled to false";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn empty_values_give_a_map_that_loads_as_the_defaults() {
    let defaults = Config::load(&Sources::default()).expect("defaults");
    let flags = map("").into_iter().collect();
    let loaded = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
    assert!(loaded.changed(&defaults).is_empty(), "{:?}", loaded.changed(&defaults));
}

#[test]
fn a_removed_word_may_be_the_name_of_what_holds_keys() {
    assert_eq!(map("tunnel: {path: device}")["tunnel-path"], "device");
    assert_eq!(map("tunnel: null")["tunnel-path"], "auto");
    let refused = |values: &str| to_config_map(values).expect_err(values).to_string();
    assert!(refused("tunnel: vxlan").contains("tunnelProtocol"));
    assert!(refused("tunnel: {paths: device}").contains("tunnel.path"));
}

#[test]
fn tunnel_and_registry_names_bring_no_contradiction_of_their_own() {
    for values in [
        "tunnelProtocol: geneve",
        "routingMode: native\ntunnelProtocol: geneve",
        "routingMode: tunnel",
        "routingMode: tunnel\ntunnelProtocol: geneve",
        "backends: {routing: vxlan}",
        "backends: {routing: geneve}",
        "backends: {ipam: third, routing: own}",
    ] {
        let flags = map(values).into_iter().collect();
        let loaded = Config::load(&Sources { flags, ..Sources::default() });
        assert!(loaded.is_ok(), "{values}: {loaded:?}");
    }
}

/// Any YAML that a person could type, near to the real thing.
fn values() -> impl Strategy<Value = String> {
    let paths: Vec<&str> = keys::all().map(|key| key.helm).filter(|path| !path.is_empty()).collect();
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("-1".to_owned()),
        Just("[a, 1]".to_owned()),
        Just("{a: b}".to_owned()),
        Just("~".to_owned()),
        "[ -~]{0,12}".prop_map(|text| format!("{text:?}")),
    ];
    let line = (proptest::sample::select(paths), leaf).prop_map(|(path, leaf)| {
        let parts: Vec<_> = path.split('.').collect();
        let open: String = parts.iter().map(|part| format!("{{{part}: ")).collect();
        format!("{open}{leaf}{}", "}".repeat(parts.len()))
    });
    prop_oneof![line, "[ -~\n\t]{0,64}", any::<String>()]
}

proptest! {
    #[test]
    fn no_text_brings_it_down(values in values()) {
        // A map that could be made is never refused for a key that does not exist.
        if let Ok(map) = to_config_map(&values) {
            let flags = map.into_iter().collect();
            if let Err(error) = Config::load(&Sources { flags, ..Sources::default() }) {
                let unknown = error.problems.iter().any(|problem| matches!(problem, Problem::Unknown { .. }));
                prop_assert!(!unknown, "{error}");
            }
        }
    }

    #[test]
    fn no_key_or_value_brings_it_down(key in any::<String>(), value in any::<String>()) {
        let flags = vec![(key.clone(), value.clone()), ("debug".to_owned(), value.clone())];
        let env = vec![(format!("KINESIN__{key}"), value)];
        let _ = Config::load(&Sources { flags, env, ..Sources::default() }).map_err(|error| error.to_string());
    }

    #[test]
    fn accepted_values_are_printed_as_they_run(mtu in 1330_u16.., v6: bool, tcx: bool, port in 1_u16..) {
        let values = format!("MTU: {mtu}\nipv6: {{enabled: {v6}}}\nbpf: {{enableTCX: {tcx}}}\ntunnelPort: {port}");
        let flags = map(&values).into_iter().collect();
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
        prop_assert_eq!(config.mtu_bytes, Some(mtu));
        prop_assert_eq!(config.families.v6, v6);
        prop_assert_eq!(config.enable_tcx, tcx);
        prop_assert_eq!(config.tunnel_port, Some(port));
        // What is printed, given back as flags, is the same configuration.
        let printed = config.entries().iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        let again = Config::load(&Sources { flags: printed, ..Sources::default() }).expect("valid");
        prop_assert!(again.changed(&config).is_empty());
    }
}
