//! Gives each node its pod CIDRs, one of each range, never the same to two.
//!
//! What is taken is read from the nodes themselves at each pass, so a restart forgets nothing, and
//! a deleted node's part becomes free with it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use super::Controller;
use crate::error::StartError;
use crate::object;
use crate::ops::{Api, Write};
use crate::server::PodCidrRange;

/// The ranges to cut from, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct NodeCidrs {
    ranges: Vec<PodCidrRange>,
}

impl NodeCidrs {
    pub(crate) fn new(ranges: &[PodCidrRange]) -> Result<Self, StartError> {
        for range in ranges {
            if range.node_prefix < range.cidr.prefix_len() || range.node_prefix > range.cidr.max_prefix_len() {
                return Err(StartError::PodCidr { cidr: range.cidr.to_string(), node_prefix: range.node_prefix });
            }
        }
        Ok(Self { ranges: ranges.to_vec() })
    }

    /// The next free part of each range; `None` when one range is full.
    fn next(&self, taken: &BTreeSet<IpNet>) -> Option<Vec<IpNet>> {
        self.ranges.iter().map(|range| parts(range).find(|part| taken.iter().all(|t| !overlap(t, part)))).collect()
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The parts of a range in order. Counted by hand, because `IpNet::subnets` would start a walk
/// over 2^16 parts anew with a value that is large for IPv6.
fn parts(range: &PodCidrRange) -> impl Iterator<Item = IpNet> + use<> {
    let (prefix, max) = (range.node_prefix, range.cidr.max_prefix_len());
    let bits = u32::from(prefix - range.cidr.prefix_len()).min(24);
    let network = range.cidr.network();
    (0..1_u128 << bits).filter_map(move |index| {
        let offset = index.checked_shl(u32::from(max - prefix)).unwrap_or_default();
        let address = match network {
            IpAddr::V4(base) => IpAddr::from((u32::from(base) | u32::try_from(offset).ok()?).to_be_bytes()),
            IpAddr::V6(base) => IpAddr::from((u128::from(base) | offset).to_be_bytes()),
        };
        IpNet::new(address, prefix).ok()
    })
}

impl Controller for NodeCidrs {
    const WATCHES: &'static [&'static str] = &["nodes"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        if self.ranges.is_empty() {
            return None;
        }
        let kind = api.builtin("", "nodes");
        let nodes = api.all("nodes");
        let mut taken: BTreeSet<IpNet> = nodes
            .iter()
            .flat_map(|n| object::list(n, &["spec", "podCIDRs"]))
            .filter_map(|c| c.as_str()?.parse().ok())
            .collect();
        let mut is_full = false;
        for node in
            nodes.iter().filter(|n| object::list(n, &["spec", "podCIDRs"]).is_empty() && !object::is_deleting(n))
        {
            let Some(given) = self.next(&taken) else {
                tracing::warn!(
                    node = object::name(node),
                    "no pod CIDR is free for the node; give a larger range or delete nodes"
                );
                is_full = true;
                continue;
            };
            let texts: Vec<Value> = given.iter().map(|c| c.to_string().into()).collect();
            let outcome =
                api.change(&kind, "", object::name(node), &mut Write::by("kube-controller-manager"), |next| {
                    if object::list(next, &["spec", "podCIDRs"]).is_empty() {
                        object::set(next, &["spec", "podCIDR"], texts[0].clone());
                        object::set(next, &["spec", "podCIDRs"], texts.clone());
                    }
                });
            if outcome.is_ok() {
                taken.extend(given);
            }
        }
        is_full.then_some(Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cidr: &str, node_prefix: u8) -> PodCidrRange {
        PodCidrRange { cidr: cidr.parse().unwrap(), node_prefix }
    }

    #[test]
    fn parts_of_both_families_come_in_order() {
        let cidrs = NodeCidrs::new(&[range("10.244.0.0/16", 24), range("fd00:10:244::/48", 64)]).unwrap();
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        for _ in 0..3 {
            let next = cidrs.next(&taken).unwrap();
            taken.extend(next.clone());
            given.push(next.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
        assert_eq!(
            given,
            ["10.244.0.0/24 fd00:10:244::/64", "10.244.1.0/24 fd00:10:244:1::/64", "10.244.2.0/24 fd00:10:244:2::/64"]
        );
    }

    #[test]
    fn a_full_range_gives_nothing_and_an_impossible_one_is_refused() {
        let cidrs = NodeCidrs::new(&[range("10.0.0.0/30", 31)]).unwrap();
        let taken: BTreeSet<IpNet> = ["10.0.0.0/31", "10.0.0.2/32"].iter().map(|c| c.parse().unwrap()).collect();
        assert!(cidrs.next(&taken).is_none());
        for bad in [range("10.0.0.0/24", 23), range("10.0.0.0/24", 33)] {
            assert!(matches!(NodeCidrs::new(&[bad]), Err(StartError::PodCidr { .. })));
        }
    }
}
