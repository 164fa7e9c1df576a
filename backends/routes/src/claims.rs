//! Whose it is when nodes claim the same addresses: the elder's. Pure, and the same on every node.
//!
//! A node that joins with another one's pod CIDR, or with an address in it, must not cut off the one that works. So nodes
//! are heard from the eldest to the youngest ([`seniority`]), and what one claims stands unless an elder's claim that
//! stands is in its way. Nothing but the claims of all nodes decides, this node's among them: every node comes to the same
//! answer, in whatever order it heard of the others.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::routing::{RoutingDesired, seniority};

/// A node and what it says is its own.
#[derive(Debug, Clone, Copy)]
struct Claimant<'a> {
    name: &'a str,
    created: Option<i64>,
    addresses: &'a [IpAddr],
    pod_cidrs: &'a [IpNet],
}

/// What does not stand, with the reasons.
#[derive(Debug, Default)]
pub(crate) struct Refused<'a> {
    /// Nodes that are to be reached by no address and of which no pod CIDR stands.
    pub(crate) nodes: BTreeMap<&'a str, String>,
    /// Pod CIDRs by their node, without host bits.
    pub(crate) cidrs: BTreeMap<(&'a str, IpNet), String>,
}

/// What stands so far.
#[derive(Debug, Default)]
struct Standing<'a> {
    /// Addresses of nodes.
    addresses: BTreeMap<IpAddr, Claimant<'a>>,
    /// Pod CIDRs by their first address; none contains another.
    cidrs: BTreeMap<IpAddr, (IpNet, Claimant<'a>)>,
}

/// Hears all nodes.
pub(crate) fn judge(desired: &RoutingDesired) -> Refused<'_> {
    let local = &desired.local;
    let own = Claimant {
        name: &local.name,
        created: local.created_unix_seconds,
        addresses: &local.addresses,
        pod_cidrs: &local.pod_cidrs,
    };
    let of_peers = desired.peers.iter().map(|(name, peer)| Claimant {
        name,
        created: peer.created_unix_seconds,
        addresses: &peer.addresses,
        pod_cidrs: &peer.pod_cidrs,
    });
    let mut claimants: Vec<Claimant<'_>> = std::iter::once(own).chain(of_peers).collect();
    claimants.sort_by_key(|claimant| seniority(claimant.name, claimant.created));

    let (mut standing, mut refused) = (Standing::default(), Refused::default());
    for claimant in claimants {
        standing.hear(claimant, &mut refused);
    }
    refused
}

impl<'a> Standing<'a> {
    fn hear(&mut self, claimant: Claimant<'a>, refused: &mut Refused<'a>) {
        let inside = claimant.addresses.iter().find_map(|ip| Some((ip, self.overlapping(IpNet::from(*ip))?)));
        if let Some((ip, (cidr, elder))) = inside {
            let reason = format!(
                "its address {ip} lies in pod CIDR {cidr} of node {}, {}; correct the InternalIP of node {}",
                elder.name,
                elder.goes_before(claimant),
                claimant.name
            );
            refused.nodes.insert(claimant.name, reason);
            return;
        }
        for ip in claimant.addresses {
            self.addresses.entry(*ip).or_insert(claimant);
        }
        let mut accepted = Vec::new();
        for cidr in claimant.pod_cidrs.iter().map(IpNet::trunc) {
            match self.against(cidr, claimant) {
                Some(reason) => drop(refused.cidrs.insert((claimant.name, cidr), reason)),
                None => accepted.push(cidr),
            }
        }
        // A network comes right before what lies inside it, which needs no entry of its own.
        accepted.sort_by_key(|cidr| (cidr.network(), cidr.prefix_len()));
        accepted.dedup_by(|next, kept| kept.contains(&*next));
        self.cidrs.extend(accepted.into_iter().map(|cidr| (cidr.network(), (cidr, claimant))));
    }

    fn against(&self, cidr: IpNet, claimant: Claimant<'a>) -> Option<String> {
        if let Some(defect) = defect(cidr) {
            return Some(defect);
        }
        if let Some((ip, other)) = self.addresses.range(cidr.network()..=cidr.broadcast()).next() {
            return Some(covers(*ip, other.name));
        }
        let (other, elder) = self.overlapping(cidr)?;
        let before = elder.goes_before(claimant);
        Some(format!("overlaps {other} of node {}, {before}; give node {} another pod CIDR", elder.name, claimant.name))
    }

    /// A pod CIDR that has addresses in common with `cidr`: one that begins in it, or the last one that begins before it.
    fn overlapping(&self, cidr: IpNet) -> Option<(IpNet, Claimant<'a>)> {
        let (_, last) = self.cidrs.range(..=cidr.broadcast()).next_back()?;
        (cidr.contains(&last.0) || last.0.contains(&cidr)).then_some(*last)
    }
}

impl Claimant<'_> {
    /// Why it goes before a younger one.
    fn goes_before(self, younger: Self) -> &'static str {
        goes_before(self.created, younger.created)
    }
}

/// Why a node goes before another one.
pub(crate) fn goes_before(elder: Option<i64>, younger: Option<i64>) -> &'static str {
    if elder == younger { "which goes before it by name, as they are of one age" } else { "which is the elder node" }
}

/// What is wrong with a pod CIDR whoever claims it.
pub(crate) fn defect(cidr: IpNet) -> Option<String> {
    if cidr.prefix_len() == 0 {
        return Some("is the default route; give the node a pod CIDR".to_owned());
    }
    (!is_unicast(cidr.addr())).then(|| "has no addresses that pods can have; give the node another pod CIDR".to_owned())
}

/// The reason against a pod CIDR with a node's address in it.
pub(crate) fn covers(ip: IpAddr, name: &str) -> String {
    format!("covers {ip}, an address of node {name}; give the node another pod CIDR")
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kinesin_core::{
        routing::{LocalNode, Peer},
        values::Families,
    };
    use proptest::prelude::*;

    use super::*;

    /// The cluster of these nodes as one of them sees it; the sight of nobody in particular if there is no such node.
    fn seen_by(viewer: usize, nodes: &[Peer]) -> RoutingDesired {
        let name = |number: usize| format!("w{number}");
        let mut peers: BTreeMap<String, Peer> =
            nodes.iter().enumerate().map(|(number, node)| (name(number), node.clone())).collect();
        let own = peers.remove(&name(viewer)).unwrap_or_default();
        let local = LocalNode {
            name: name(viewer),
            created_unix_seconds: own.created_unix_seconds,
            families: Families::DUAL,
            addresses: own.addresses,
            pod_cidrs: own.pod_cidrs,
            uplinks: Vec::new(),
            host_device: String::new(),
            router: Vec::new(),
            mtu_bytes: 1500,
        };
        RoutingDesired { local, peers }
    }

    type Told = (BTreeSet<String>, BTreeSet<(String, IpNet)>);

    fn told(desired: &RoutingDesired) -> Told {
        let refused = judge(desired);
        let nodes = refused.nodes.keys().map(|name| (*name).to_owned()).collect();
        (nodes, refused.cidrs.keys().map(|(name, cidr)| ((*name).to_owned(), *cidr)).collect())
    }

    /// The same by comparing everything with everything.
    fn by_hand(nodes: &[Peer]) -> Told {
        let mut order: Vec<(String, &Peer)> =
            nodes.iter().enumerate().map(|(number, node)| (format!("w{number}"), node)).collect();
        order.sort_by(|one, other| {
            seniority(&one.0, one.1.created_unix_seconds).cmp(&seniority(&other.0, other.1.created_unix_seconds))
        });
        let (mut refused, mut addresses, mut standing) = (Told::default(), Vec::new(), Vec::<(usize, IpNet)>::new());
        for (number, (name, node)) in order.into_iter().enumerate() {
            if node.addresses.iter().any(|ip| standing.iter().any(|(_, cidr)| cidr.contains(ip))) {
                refused.0.insert(name);
                continue;
            }
            addresses.extend(node.addresses.iter().copied());
            for cidr in node.pod_cidrs.iter().map(IpNet::trunc) {
                let overlaps =
                    |(of, other): &(usize, IpNet)| *of != number && (other.contains(&cidr) || cidr.contains(other));
                if defect(cidr).is_some()
                    || addresses.iter().any(|ip| cidr.contains(ip))
                    || standing.iter().any(overlaps)
                {
                    refused.1.insert((name.clone(), cidr));
                } else {
                    standing.push((number, cidr));
                }
            }
        }
        refused
    }

    /// Nodes in a space so small that they are in each other's way.
    fn nodes() -> impl Strategy<Value = Vec<Peer>> {
        let ip = (any::<bool>(), 0_u8..32).prop_map(|(is_v4, number)| -> IpAddr {
            if is_v4 { [10, 0, 0, number * 8].into() } else { [0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number) * 8].into() }
        });
        let cidr = (ip.clone(), 0_u8..8).prop_map(|(ip, short)| {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            IpNet::new(ip, if short == 7 { 0 } else { length - short }).expect("short enough")
        });
        let (ips, cidrs) = (prop::collection::vec(ip, 0..2), prop::collection::vec(cidr, 0..4));
        let node = (ips, cidrs, prop::option::of(0_i64..4));
        let node = node.prop_map(|(addresses, pod_cidrs, created_unix_seconds)| Peer {
            addresses,
            pod_cidrs,
            created_unix_seconds,
            ..Peer::default()
        });
        prop::collection::vec(node, 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_node_decides_alike_and_as_if_everything_was_compared(nodes in nodes()) {
            let expected = by_hand(&nodes);
            for viewer in 0..nodes.len() {
                prop_assert_eq!(&told(&seen_by(viewer, &nodes)), &expected, "as w{} sees it", viewer);
            }
        }
    }
}
