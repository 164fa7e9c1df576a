//! What a CiliumNode says about its node's addresses.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kinesin_core::values::Family;

use crate::{
    pools::Source,
    problem::Report,
    types::{Mode, Name, Version},
};

/// What the agent says of one entry of `spec.ipam.podCIDRs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockUse {
    /// It gives out addresses of it.
    InUse,
    /// Few or none of its addresses are free.
    Depleted,
    /// It gives out none of it any more.
    Released,
}

/// How many addresses of a pool a node needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// Addresses of IPv4.
    pub ipv4: u64,
    /// Addresses of IPv6.
    pub ipv6: u64,
}

impl Request {
    pub(crate) fn of(self, family: Family) -> u64 {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

/// One entry of `spec.ipam.pools.allocated`, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Name of the pool.
    pub pool: String,
    /// Its CIDRs.
    pub cidrs: Vec<String>,
}

/// A CiliumNode at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its version, which guards every write.
    pub version: Version,
    /// Mode that its agent prefers; nothing if it says none that is known.
    pub mode: Option<Mode>,
    /// `spec.ipam.podCIDRs` as it is written.
    pub pod_cidrs: Vec<String>,
    /// `spec.ipam.pools.allocated` as it is written.
    pub allocated: Vec<Pool>,
    /// `spec.ipam.pools.requested`.
    pub requested: BTreeMap<Name, Request>,
    /// `status.ipam.pod-cidrs`.
    pub uses: BTreeMap<IpNet, BlockUse>,
    /// What the operator wrote into its status last.
    pub report: Report,
}

impl NodeView {
    /// Every block that it lists, each once, with the mode and pool under which it does.
    pub(crate) fn blocks(&self) -> BTreeMap<IpNet, Source> {
        let mut blocks = BTreeMap::new();
        for pool in &self.allocated {
            for cidr in pool.cidrs.iter().filter_map(|text| parse(text)) {
                blocks.insert(cidr, Source::pool(&pool.pool));
            }
        }
        for cidr in self.pod_cidrs.iter().filter_map(|text| parse(text)) {
            blocks.entry(cidr).or_insert_with(Source::cluster_pool);
        }
        blocks
    }

    /// Entries of its lists that are no CIDR.
    pub(crate) fn nonsense(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let direct = self.pod_cidrs.iter().map(|text| ("spec.ipam.podCIDRs", text));
        let pools = self.allocated.iter().flat_map(|pool| &pool.cidrs).map(|text| ("spec.ipam.pools.allocated", text));
        direct.chain(pools).filter(|(_, text)| parse(text).is_none()).map(|(field, text)| (field, text.as_str()))
    }

    /// `podCIDRs` without `remove` and with `add` at its end; what nobody understands stays.
    pub(crate) fn next_pod_cidrs(&self, add: &[IpNet], remove: &[IpNet]) -> Vec<String> {
        let kept = self.pod_cidrs.iter().filter(|text| parse(text).is_none_or(|cidr| !remove.contains(&cidr)));
        kept.cloned().chain(add.iter().map(ToString::to_string)).collect()
    }

    /// `allocated` with `add`, in Cilium's order: pools by name, IPv4 first, CIDRs by their text.
    pub(crate) fn next_allocated(&self, add: &[(Name, IpNet)]) -> Vec<Pool> {
        let mut pools: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pool in &self.allocated {
            pools.entry(pool.pool.clone()).or_default().extend(pool.cidrs.iter().cloned());
        }
        for (pool, cidr) in add {
            pools.entry(pool.to_string()).or_default().push(cidr.to_string());
        }
        let sorted = pools.into_iter().map(|(pool, mut cidrs)| {
            cidrs.sort_by_key(|text| (text.contains(':'), text.clone()));
            cidrs.dedup();
            Pool { pool, cidrs }
        });
        sorted.filter(|pool| !pool.cidrs.is_empty()).collect()
    }
}

fn parse(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_written_in_the_order_of_cilium() {
        let view = NodeView {
            version: Version("1".to_owned()),
            mode: None,
            pod_cidrs: vec!["10.0.0.0/24".to_owned(), "nonsense".to_owned()],
            allocated: vec![Pool { pool: "vac".to_owned(), cidrs: vec!["10.100.0.8/29".to_owned()] }],
            requested: BTreeMap::new(),
            uses: BTreeMap::new(),
            report: Report::default(),
        };
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let add = [
            (Name::from("vac"), net("fd00::/120")),
            (Name::from("vac"), net("10.100.0.24/29")),
            (Name::from("default"), net("172.20.0.0/28")),
        ];
        let pool = |pool: &str, cidrs: &[&str]| Pool {
            pool: pool.to_owned(),
            cidrs: cidrs.iter().map(|text| (*text).to_owned()).collect(),
        };
        let expected =
            [pool("default", &["172.20.0.0/28"]), pool("vac", &["10.100.0.24/29", "10.100.0.8/29", "fd00::/120"])];
        assert_eq!(view.next_allocated(&add), expected);
        assert_eq!(view.nonsense().collect::<Vec<_>>(), [("spec.ipam.podCIDRs", "nonsense")]);
        let next = view.next_pod_cidrs(&[net("10.0.1.0/24")], &[net("10.0.0.0/24")]);
        assert_eq!(next, ["nonsense", "10.0.1.0/24"], "what nobody understands stays");
    }
}
