//! Which pod CIDRs of other nodes may be routed at all.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    routing::{Peer, RoutingDesired},
    values::Family,
};

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
/// A CIDR that is wrong by itself is left out before CIDRs are compared with each other, so that one node that claims
/// half the world does not cut off the others.
pub(crate) fn check<'a>(desired: &'a RoutingDesired, own: impl Iterator<Item = IpAddr>) -> Checked<'a> {
    let local = desired.local.addresses.iter().copied().chain(own).map(|ip| (ip, desired.local.name.as_str()));
    let of_peers = |(name, peer): (&'a String, &'a Peer)| peer.addresses.iter().map(move |ip| (*ip, name.as_str()));
    let mut nodes: Vec<(IpAddr, &str)> = local.chain(desired.peers.iter().flat_map(of_peers)).collect();
    // Stable: of those who claim one address, this node is the one to name.
    nodes.sort_by_key(|(ip, _)| *ip);

    let mut checked = Checked::default();
    let mut candidates: Vec<(IpNet, &str)> = Vec::new();
    for (name, peer) in &desired.peers {
        let mut reasons = Vec::new();
        for cidr in wanted_cidrs(desired, peer, &mut reasons) {
            match refuse(cidr, desired, &nodes) {
                Some(reason) => reasons.push(format!("pod CIDR {cidr} {reason}")),
                None => candidates.push((cidr, name.as_str())),
            }
        }
        reasons.extend(shared_addresses(name, peer, &nodes, &desired.local.name));
        if !reasons.is_empty() {
            checked.bad.insert(name, reasons);
        }
    }

    // A network comes right before what lies inside it.
    candidates.sort_by_key(|(cidr, name)| (cidr.network(), cidr.prefix_len(), *name));
    candidates.dedup();
    let clashes = clashes(&candidates);
    let clash = |(cidr, name): &(IpNet, &'a str), (other, owner): &(IpNet, &str)| {
        let reason = format!("pod CIDR {cidr} overlaps {other} of node {owner}; give one of the two another pod CIDR");
        (*name, reason)
    };
    for (name, reason) in clashes.iter().map(|(entry, other)| clash(entry, other)) {
        checked.bad.entry(name).or_default().push(reason);
    }
    checked.good = candidates.into_iter().filter(|entry| !clashes.contains_key(entry)).collect();
    checked
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

/// Addresses that other peers claim as well. Nobody here can tell whose they are, so both are routed there, and both told.
/// What is this node's own is refused where the way is found.
fn shared_addresses(name: &str, peer: &Peer, nodes: &[(IpAddr, &str)], local: &str) -> Vec<String> {
    let claimed_by = |ip: &IpAddr| {
        let first = nodes.partition_point(|(other, _)| other < ip);
        let same = nodes[first..].iter().take_while(move |(other, _)| other == ip);
        same.map(|(_, other)| *other).find(|other| *other != name && *other != local)
    };
    let told = |ip: &IpAddr| {
        let other = claimed_by(ip)?;
        Some(format!("its address {ip} is that of node {other} as well; correct the InternalIP of one of the two"))
    };
    peer.addresses.iter().filter_map(told).collect()
}

/// Why a pod CIDR cannot be routed, whatever the other peers have.
fn refuse(cidr: IpNet, desired: &RoutingDesired, nodes: &[(IpAddr, &str)]) -> Option<String> {
    if cidr.prefix_len() == 0 {
        return Some("is the default route; give the node a pod CIDR".to_owned());
    }
    if !is_unicast(cidr.addr()) {
        return Some("has no addresses that pods can have; give the node another pod CIDR".to_owned());
    }
    if let Some(local) = desired.local.pod_cidrs.iter().find(|local| local.contains(&cidr) || cidr.contains(*local)) {
        return Some(format!("overlaps this node's pod CIDR {local}; give one of the two nodes another one"));
    }
    let next = nodes.partition_point(|(ip, _)| *ip < cidr.network());
    let covered = nodes.get(next).filter(|(ip, _)| *ip <= cidr.broadcast());
    covered.map(|(ip, name)| format!("covers {ip}, an address of node {name}; give the node another pod CIDR"))
}

fn is_unicast(ip: IpAddr) -> bool {
    let special = ip.is_multicast() || ip.is_loopback() || ip.is_unspecified();
    let link_local = match ip {
        // 240.0.0.0/4 is reserved (RFC 1112 section 4), 0.0.0.0/8 is "this network" (RFC 1122 section 3.2.1.3).
        IpAddr::V4(ip) => ip.is_link_local() || ip.octets()[0] >= 240 || ip.octets()[0] == 0,
        // fe80::/10 (RFC 4291 section 2.5.6).
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    !special && !link_local
}

/// Each CIDR that overlaps one of another peer, with one that it overlaps. They are in order of their networks, wider ones
/// first, so that one pass with the open networks on a stack is enough.
fn clashes<'a>(sorted: &[(IpNet, &'a str)]) -> BTreeMap<(IpNet, &'a str), (IpNet, &'a str)> {
    let mut found = BTreeMap::new();
    let mut open: Vec<(IpNet, &str)> = Vec::new();
    for entry in sorted.iter().copied() {
        while open.last().is_some_and(|(outer, _)| !outer.contains(&entry.0)) {
            open.pop();
        }
        for outer in open.iter().filter(|outer| outer.1 != entry.1) {
            found.entry(entry).or_insert(*outer);
            found.entry(*outer).or_insert(entry);
        }
        open.push(entry);
    }
    found
}

#[cfg(test)]
mod tests {
    use kinesin_core::{routing::LocalNode, values::Families};

    use super::*;

    fn desired(families: Families, peers: &[(&str, &str, &[&str])]) -> RoutingDesired {
        let peers = peers.iter().map(|(name, address, cidrs)| {
            let peer = Peer {
                addresses: vec![address.parse().expect("an address")],
                pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().expect("a network")).collect(),
                carrier: None,
            };
            ((*name).to_owned(), peer)
        });
        RoutingDesired {
            local: LocalNode {
                name: "local".to_owned(),
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
        let own = ["172.17.0.1".parse().expect("an address")];
        let desired = desired(Families::DUAL, peers);
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
    fn pod_cidrs_that_overlap_are_refused_for_both() {
        let (good, bad) = outcome(&[
            ("a", "192.168.10.101", &["10.244.1.0/24"]),
            ("b", "192.168.10.102", &["10.244.1.0/24"]),
            ("c", "192.168.10.103", &["10.246.0.0/16", "10.246.5.0/24"]),
            ("d", "192.168.10.104", &["10.246.9.0/24", "10.244.2.5/24"]),
        ]);
        assert_eq!(good, ["d 10.244.2.0/24", "c 10.246.5.0/24"], "host bits are ignored");
        assert_eq!(bad.len(), 4);
        assert!(bad[0].contains("overlaps 10.244.1.0/24 of node b"), "{bad:?}");
        assert!(bad[3].contains("overlaps 10.246.0.0/16 of node c"), "{bad:?}");
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
