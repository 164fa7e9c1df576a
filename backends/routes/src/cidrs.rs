//! Which pod CIDRs of other nodes may be routed at all.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    routing::{LocalNode, Peer, RoutingDesired, seniority},
    values::Family,
};

use crate::claims::{self, goes_before};

/// What each peer's pod CIDRs came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked<'a> {
    /// Pod CIDRs that may be routed, and their peer.
    pub(crate) good: BTreeMap<IpNet, &'a str>,
    /// Reasons against others, by peer.
    pub(crate) bad: BTreeMap<&'a str, Vec<String>>,
}

/// Checks every pod CIDR; `own` are further addresses of this node, as the kernel has them.
///
/// Whose pod CIDR it is, where several nodes claim one, is the same on every node ([`claims`]). Beside that, a node's own
/// pods and addresses are left alone whoever claims them: what is in their way is not routed here.
pub(crate) fn check<'a>(desired: &'a RoutingDesired, own: impl Iterator<Item = IpAddr>) -> Checked<'a> {
    let mut own: Vec<IpAddr> = desired.local.addresses.iter().copied().chain(own).collect();
    own.sort_unstable();
    let claimed = addresses(desired);
    let refused = claims::judge(desired);
    let mut checked = Checked::default();
    for (name, peer) in &desired.peers {
        let mut reasons: Vec<String> = refused.nodes.get(name.as_str()).cloned().into_iter().collect();
        let is_refused = !reasons.is_empty();
        for cidr in wanted_cidrs(desired, peer, &mut reasons) {
            let here = || in_the_way_here(cidr, (name, peer), &desired.local, &own);
            let everywhere = || refused.cidrs.get(&(name.as_str(), cidr)).cloned();
            match claims::defect(cidr).or_else(here).or_else(everywhere) {
                Some(reason) => reasons.push(format!("pod CIDR {cidr} {reason}")),
                None if is_refused => {}
                None => drop(checked.good.insert(cidr, name)),
            }
        }
        reasons.extend(shared_addresses(name, peer, &claimed, &desired.local.name));
        if !reasons.is_empty() {
            checked.bad.insert(name, reasons);
        }
    }
    checked
}

/// The addresses of all peers, in order.
fn addresses(desired: &RoutingDesired) -> Vec<(IpAddr, &str)> {
    let mut all = Vec::new();
    for (name, peer) in &desired.peers {
        all.extend(peer.addresses.iter().map(|ip| (*ip, name.as_str())));
    }
    all.sort_unstable();
    all
}

/// The pod CIDRs of families that are on here, or the reason why there are none.
fn wanted_cidrs(desired: &RoutingDesired, peer: &Peer, reasons: &mut Vec<String>) -> Vec<IpNet> {
    let wanted: Vec<IpNet> = peer
        .pod_cidrs
        .iter()
        .filter(|cidr| desired.local.families.contains(Family::of_net(cidr)))
        .map(IpNet::trunc)
        .collect();
    if peer.pod_cidrs.is_empty() {
        reasons.push("it has no pod CIDR yet".to_owned());
    } else if wanted.is_empty() {
        reasons.push("its pod CIDRs are of a family that is switched off on this node".to_owned());
    }
    wanted
}

/// Addresses that other peers claim as well. Both are routed there, and both told: age does not tell whose an address is,
/// since a machine that is gone may have left its object, and the next one got its address. Whichever node has it gets the
/// packets of its pods; the other one is reached by nobody anyway, and what comes for its pods is dropped where it arrives.
/// What is this node's own is refused where the way is found.
fn shared_addresses(name: &str, peer: &Peer, claimed: &[(IpAddr, &str)], local: &str) -> Vec<String> {
    let claimed_by = |ip: &IpAddr| {
        let first = claimed.partition_point(|(other, _)| other < ip);
        let same = claimed[first..].iter().take_while(move |(other, _)| other == ip);
        same.map(|(_, other)| *other).find(|other| *other != name && *other != local)
    };
    let told = |ip: &IpAddr| {
        let other = claimed_by(ip)?;
        Some(format!("its address {ip} is that of node {other} as well; correct the InternalIP of one of the two"))
    };
    peer.addresses.iter().filter_map(told).collect()
}

/// Why a pod CIDR cannot be routed by this node, whatever the others do; `own` are this node's addresses, in order.
fn in_the_way_here(cidr: IpNet, (name, peer): (&str, &Peer), local: &LocalNode, own: &[IpAddr]) -> Option<String> {
    if let Some(ours) = local.pod_cidrs.iter().find(|ours| ours.contains(&cidr) || cidr.contains(*ours)) {
        let (its_age, our_age) = (peer.created_unix_seconds, local.created_unix_seconds);
        let is_elder = seniority(name, its_age) < seniority(&local.name, our_age);
        let (elder, younger) = if is_elder { (name, "this node") } else { ("this node", name) };
        let before = if is_elder { goes_before(its_age, our_age) } else { goes_before(our_age, its_age) };
        let elder_is = before.strip_prefix("which ").unwrap_or(before);
        return Some(format!(
            "overlaps this node's pod CIDR {ours}; {elder} {elder_is}, so the others lead these addresses there: give \
             {younger} another pod CIDR"
        ));
    }
    let next = own.partition_point(|ip| *ip < cidr.network());
    let covered = own.get(next).filter(|ip| **ip <= cidr.broadcast());
    covered.map(|ip| claims::covers(*ip, &local.name))
}

#[cfg(test)]
mod tests {
    use kinesin_core::values::Families;

    use super::*;

    fn desired(families: Families, peers: &[(&str, &str, &[&str])]) -> RoutingDesired {
        let peers = peers.iter().map(|(name, address, cidrs)| {
            let peer = Peer {
                addresses: vec![address.parse().expect("an address")],
                pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect(),
                ..Peer::default()
            };
            ((*name).to_owned(), peer)
        });
        RoutingDesired {
            local: LocalNode {
                name: "local".to_owned(),
                created_unix_seconds: None,
                families,
                addresses: vec!["192.168.10.100".parse().expect("an address")],
                pod_cidrs: vec!["10.244.0.0/24".parse().expect("a network")],
                uplinks: vec!["eth0".to_owned()],
                host_device: "cilium_host".to_owned(),
                router: Vec::new(),
                mtu_bytes: 1500,
            },
            peers: peers.collect(),
        }
    }

    fn outcome(peers: &[(&str, &str, &[&str])]) -> (Vec<String>, Vec<String>) {
        outcome_of(peers, &[])
    }

    fn outcome_of(peers: &[(&str, &str, &[&str])], ages: &[(&str, i64)]) -> (Vec<String>, Vec<String>) {
        let own = ["172.17.0.1".parse().expect("an address")];
        let mut desired = desired(Families::DUAL, peers);
        for (name, created) in ages {
            match desired.peers.get_mut(*name) {
                Some(peer) => peer.created_unix_seconds = Some(*created),
                None => desired.local.created_unix_seconds = Some(*created),
            }
        }
        let checked = check(&desired, own.into_iter());
        let good = checked.good.iter().map(|(cidr, name)| format!("{name} {cidr}")).collect();
        let bad = checked.bad.iter().map(|(name, reasons)| format!("{name}: {}", reasons.join("; "))).collect();
        (good, bad)
    }

    #[test]
    fn wrong_pod_cidrs_are_refused_one_by_one() {
        for (cidr, reason) in [
            ("0.0.0.0/0", "is the default route"),
            ("::/0", "is the default route"),
            ("224.0.0.0/8", "has no addresses that pods can have"),
            ("127.0.0.0/8", "has no addresses that pods can have"),
            ("fe80::/64", "has no addresses that pods can have"),
            ("10.244.0.0/24", "overlaps this node's pod CIDR 10.244.0.0/24"),
            ("10.244.0.0/16", "overlaps this node's pod CIDR 10.244.0.0/24"),
            ("10.244.0.128/25", "overlaps this node's pod CIDR 10.244.0.0/24"),
            ("192.168.0.0/16", "covers 192.168.10.100, an address of node local"),
            ("192.168.10.101/32", "covers 192.168.10.101, an address of node a"),
            ("172.16.0.0/12", "covers 172.17.0.1, an address of node local"),
        ] {
            let (good, bad) = outcome(&[("a", "192.168.10.101", &[cidr, "10.244.7.0/24"])]);
            assert_eq!(good, ["a 10.244.7.0/24"], "{cidr}: the other one is routed");
            assert!(bad[0].starts_with(&format!("a: pod CIDR {cidr} {reason}")), "{bad:?}");
            assert!(bad[0].contains("give "), "names a way out: {bad:?}");
        }
    }

    #[test]
    fn of_pod_cidrs_that_overlap_the_elders_is_routed() {
        let peers: [(&str, &str, &[&str]); 4] = [
            ("a", "192.168.10.101", &["10.244.1.0/24", "10.247.0.0/24"]),
            ("b", "192.168.10.102", &["10.244.1.0/24"]),
            ("c", "192.168.10.103", &["10.246.0.0/16", "10.246.5.0/24"]),
            ("d", "192.168.10.104", &["10.246.9.0/24", "10.244.2.5/24"]),
        ];
        // Of one age: by name.
        let (good, bad) = outcome(&peers);
        assert_eq!(
            good,
            ["a 10.244.1.0/24", "d 10.244.2.0/24", "c 10.246.0.0/16", "c 10.246.5.0/24", "a 10.247.0.0/24"],
            "host bits are ignored"
        );
        assert_eq!(
            bad,
            [
                "b: pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node a, which goes before it by name, as they are of \
                 one age; give node b another pod CIDR",
                "d: pod CIDR 10.246.9.0/24 overlaps 10.246.0.0/16 of node c, which goes before it by name, as they are of \
                 one age; give node d another pod CIDR",
            ]
        );
        let (good, bad) = outcome_of(&peers, &[("b", 10), ("d", 20), ("a", 30)]);
        assert_eq!(
            good,
            ["b 10.244.1.0/24", "d 10.244.2.0/24", "c 10.246.5.0/24", "d 10.246.9.0/24", "a 10.247.0.0/24"]
        );
        assert_eq!(bad.len(), 2, "{bad:?}");
        let of_a =
            "a: pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node b, which is the elder node; give node a another";
        assert!(bad[0].starts_with(of_a), "{bad:?}");
        assert!(bad[1].starts_with("c: pod CIDR 10.246.0.0/16 overlaps 10.246.9.0/24 of node d"), "{bad:?}");
    }

    #[test]
    fn this_node_keeps_its_own_and_says_whom_the_others_follow() {
        let peers: [(&str, &str, &[&str]); 1] = [("w", "192.168.10.101", &["10.244.0.0/20"])];
        for (ages, told) in [
            (
                &[("local", 10), ("w", 20)][..],
                "this node is the elder node, so the others lead these addresses there: give w",
            ),
            (
                &[("local", 20), ("w", 10)],
                "w is the elder node, so the others lead these addresses there: give this node",
            ),
            (&[], "this node goes before it by name, as they are of one age, so the others lead these addresses there"),
        ] {
            let (good, bad) = outcome_of(&peers, ages);
            assert!(good.is_empty(), "{good:?}");
            let reason = format!("w: pod CIDR 10.244.0.0/20 overlaps this node's pod CIDR 10.244.0.0/24; {told}");
            assert!(bad[0].starts_with(&reason), "{bad:?}");
        }
    }

    #[test]
    fn what_overlaps_another_nodes_is_refused_here_as_everywhere_though_that_one_is_not_routed_here() {
        let peers: [(&str, &str, &[&str]); 2] =
            [("a", "192.168.10.101", &["10.244.1.0/24"]), ("w", "192.168.10.102", &["10.244.0.0/16"])];
        let (good, bad) = outcome_of(&peers, &[("w", 10), ("local", 20), ("a", 30)]);
        assert!(good.is_empty(), "{good:?}");
        assert!(bad[0].contains("overlaps 10.244.0.0/16 of node w, which is the elder node"), "{bad:?}");
        assert!(bad[1].contains("overlaps this node's pod CIDR"), "{bad:?}");
        // A younger one's claim is in nobody's way.
        assert_eq!(outcome_of(&peers, &[("local", 20), ("a", 30), ("w", 40)]).0, ["a 10.244.1.0/24"]);
    }

    #[test]
    fn an_address_in_an_elders_pod_cidr_costs_only_the_younger_node() {
        let peers: [(&str, &str, &[&str]); 3] = [
            ("a", "10.244.2.9", &["10.244.1.0/24"]),
            ("b", "192.168.10.102", &["10.244.2.0/24"]),
            ("c", "192.168.10.103", &["10.244.1.0/25"]),
        ];
        let (good, bad) = outcome_of(&peers, &[("b", 10), ("a", 20), ("c", 30)]);
        assert_eq!(good, ["c 10.244.1.0/25", "b 10.244.2.0/24"], "what a claims is in nobody's way");
        assert_eq!(
            bad,
            [
                "a: its address 10.244.2.9 lies in pod CIDR 10.244.2.0/24 of node b, which is the elder node; correct the \
              InternalIP of node a"
            ]
        );
        let (good, bad) = outcome_of(&peers, &[("a", 10), ("b", 20), ("c", 30)]);
        assert_eq!(good, ["a 10.244.1.0/24"]);
        assert!(bad[0].starts_with("b: pod CIDR 10.244.2.0/24 covers 10.244.2.9, an address of node a"), "{bad:?}");
    }

    #[test]
    fn nodes_of_one_address_are_named_and_others_are_not() {
        let (good, bad) = outcome(&[
            ("a", "192.168.10.101", &["10.244.1.0/24"]),
            ("b", "192.168.10.101", &["10.244.2.0/24"]),
            ("c", "192.168.10.103", &["10.244.3.0/24"]),
        ]);
        assert_eq!(good.len(), 3, "pods of whoever has the address are reached: {good:?}");
        assert_eq!(bad.len(), 2, "{bad:?}");
        assert!(bad[0].starts_with("a: its address 192.168.10.101 is that of node b as well; correct"), "{bad:?}");
        assert!(bad[1].contains("192.168.10.101 is that of node a"), "{bad:?}");
    }

    #[test]
    fn a_node_that_claims_the_world_does_not_cut_off_the_others() {
        let peers: [(&str, &str, &[&str]); 2] =
            [("a", "192.168.10.101", &["10.244.1.0/24"]), ("z", "192.168.10.102", &["10.0.0.0/8"])];
        assert_eq!(outcome(&peers).0, ["a 10.244.1.0/24"]);
    }

    #[test]
    fn a_node_without_usable_pod_cidr_is_reported() {
        let v4 = Families { v4: true, v6: false };
        let peers: [(&str, &str, &[&str]); 2] = [("a", "192.168.10.101", &[]), ("b", "192.168.10.102", &["fd00::/64"])];
        let desired = desired(v4, &peers);
        let checked = check(&desired, std::iter::empty());
        assert_eq!(checked.bad["a"], ["it has no pod CIDR yet"]);
        assert_eq!(checked.bad["b"], ["its pod CIDRs are of a family that is switched off on this node"]);
        assert!(checked.good.is_empty());
    }
}
