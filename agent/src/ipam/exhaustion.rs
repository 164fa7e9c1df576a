//! Pools of which this node has no address left: what the Pod's event says, the condition on the CiliumNode, the counters.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use kinesin_cluster::crd::StatusCondition;
use kinesin_core::{
    ipam::{BlockSource, Demand, IpamError, IpamSnapshot},
    values::Family,
};

use super::{blocks::Said, waiters::Waiters};

/// Type of the agent's condition on its CiliumNode. The operator has one of its own, `PodAddresses`, so that neither
/// overwrites what the other says.
pub(crate) const CONDITION: &str = "AddressesAvailable";

/// A pool that could not give an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lack {
    reason: &'static str,
    message: String,
}

/// What lacks, and how often something did.
#[derive(Debug, Default)]
pub(crate) struct Exhaustion {
    inner: Mutex<Inner>,
    /// Who found no address.
    pub(crate) waiters: Waiters,
}

#[derive(Debug, Default)]
struct Inner {
    lacks: BTreeMap<(String, Family), Lack>,
    failures: BTreeMap<(String, Family), u64>,
    /// Whether the condition was ever anything but good: a node that never lacked anything gets none.
    lacked: bool,
}

/// What a message is made of beside the error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) node: &'a str,
    pub(crate) source: BlockSource,
    pub(crate) demand: &'a Demand,
    /// What the node's objects say: whether the pool was deleted, and what the operator refuses.
    pub(crate) said: &'a Said,
}

impl<'a> Circumstances<'a> {
    /// `status.ipam.operator-status.error` of the CiliumNode.
    fn operator_error(&self) -> &'a str {
        self.said.own.as_ref().map_or("", |own| &own.operator_error)
    }

    /// What of it is about one pool: with several that lack something, each of their pods is told of its own.
    fn operator_says_of(&self, pool: &str) -> String {
        let (all, about) = (self.operator_error(), format!("pool {pool:?}"));
        let parts: Vec<&str> = all.split("; ").filter(|part| part.contains(&about)).collect();
        if parts.is_empty() { all.to_owned() } else { parts.join("; ") }
    }

    /// A block of this pool that the node has on its CiliumNode.
    fn listed(&self, pool: &str, family: Family) -> Option<IpNet> {
        let own = self.said.own.as_ref()?;
        let of_pool = |(name, cidr): &&(String, IpNet)| name == pool && Family::of_net(cidr) == family;
        own.allocated.iter().find(of_pool).map(|(_, cidr)| *cidr)
    }

    /// Whether the node has blocks of this pool, which was deleted.
    fn is_deleted(&self, pool: &str) -> bool {
        self.source == BlockSource::GivenPools && self.said.is_deleted(pool)
    }
}

/// The pool and family that an error is about, if it is about a lack of addresses.
pub(crate) fn subject(error: &IpamError) -> Option<(&str, Family)> {
    match error {
        IpamError::Exhausted { pool, family, .. } | IpamError::PoolNotReady { pool, family } => Some((pool, *family)),
        IpamError::NotReady { family, .. } => Some(("default", *family)),
        _ => None,
    }
}

/// Whether a block that ends the lack is on its way: the mode asks for one, the pool was not deleted, and the operator has
/// not refused.
pub(crate) fn is_on_its_way(error: &IpamError, around: Circumstances<'_>) -> bool {
    let refused = match around.source {
        BlockSource::NodePodCidrs => return false,
        BlockSource::GivenPodCidrs => !around.operator_error().is_empty(),
        BlockSource::GivenPools => subject(error)
            .is_some_and(|(pool, _)| around.is_deleted(pool) || around.operator_error().contains(&format!("{pool:?}"))),
    };
    subject(error).is_some() && around.demand.bounded.is_none() && !refused
}

/// The whole story in one line: what Cilium says first, then pool, node, counts, and what to do.
pub(crate) fn explain(error: &IpamError, around: Circumstances<'_>) -> String {
    let node = around.node;
    let remedy = remedy(error, around);
    match error {
        IpamError::Exhausted { pool, family, leased, capacity } => format!(
            "range is full: pool {pool:?} of node {node:?} has no free {family} address ({leased} of {capacity} leased); \
             {remedy}"
        ),
        other if subject(other).is_some_and(|(pool, _)| around.is_deleted(pool)) => format!(
            "{other}: it was deleted, and node {node:?} keeps its blocks only for the pods that have addresses of them; \
             {remedy}"
        ),
        other => format!("{other}: node {node:?} has no block of it; {remedy}"),
    }
}

fn remedy(error: &IpamError, around: Circumstances<'_>) -> String {
    let Some((pool, family)) = subject(error) else { return String::new() };
    if let Some(bounded) = &around.demand.bounded {
        return bounded.clone();
    }
    let operator = around.operator_error();
    match around.source {
        _ if around.is_deleted(pool) => format!(
            "create the CiliumPodIPPool {pool:?} again, or name another in the annotation ipam.cilium.io/ip-pool of the \
             pod or of its namespace"
        ),
        BlockSource::NodePodCidrs => {
            "in this mode a node has one pod CIDR: delete pods on it, or change the cluster to \
                                      the mode cluster-pool or multi-pool (`kinesin ipam plan`)"
                .to_owned()
        }
        // The operator has done its part: the agent refuses the block, because of the node's own network for instance.
        BlockSource::GivenPools
            if !matches!(error, IpamError::Exhausted { .. }) && around.listed(pool, family).is_some() =>
        {
            let block = around.listed(pool, family).map_or_else(String::new, |cidr| cidr.to_string());
            format!(
                "{block} was given to it and is not in use; if that stays so, `cilium-dbg status` on the node says why"
            )
        }
        _ if operator.is_empty() => "a further block is asked for, and the pod starts when the operator gives one; if \
                                     that does not happen, look whether cilium-operator runs"
            .to_owned(),
        BlockSource::GivenPodCidrs => {
            let key = if family == Family::V4 { "cluster-pool-ipv4-cidr" } else { "cluster-pool-ipv6-cidr" };
            format!("the operator says: {operator}; add a CIDR to {key}, or delete pods on this node")
        }
        BlockSource::GivenPools if around.operator_says_of(pool).contains("non-existing") => format!(
            "the operator says: {}; create the CiliumPodIPPool {pool:?}, or name another in the annotation \
             ipam.cilium.io/ip-pool",
            around.operator_says_of(pool)
        ),
        BlockSource::GivenPools => format!(
            "the operator says: {}; add a CIDR to the CiliumPodIPPool {pool:?}, or delete pods that use it",
            around.operator_says_of(pool)
        ),
    }
}

impl Exhaustion {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a Pod got no address.
    pub(crate) fn note(&self, error: &IpamError, message: &str) {
        let Some((pool, family)) = subject(error) else { return };
        let reason = if matches!(error, IpamError::Exhausted { .. }) { "RangeFull" } else { "NoBlock" };
        let mut inner = self.inner();
        let key = (pool.to_owned(), family);
        *inner.failures.entry(key.clone()).or_default() += 1;
        inner.lacks.insert(key, Lack { reason, message: message.to_owned() });
        inner.lacked = true;
    }

    /// Forgets what does not lack any more.
    pub(crate) fn refresh(&self, preferred: &IpamSnapshot, demand: &Demand) {
        self.inner().lacks.retain(|(pool, family), _| {
            let (leased, capacity) = preferred.totals(pool, *family);
            let waiting = demand.of(pool, *family).map_or(0, |found| found.waiting);
            // A pool of which nobody wants anything any more lacks nothing either.
            capacity <= leased && (waiting > 0 || capacity > 0)
        });
    }

    /// What lacks now, one message each.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.inner().lacks.values().map(|lack| lack.message.clone()).collect()
    }

    /// How often a Pod got no address, by pool and family.
    pub(crate) fn failures(&self) -> BTreeMap<(String, Family), u64> {
        self.inner().failures.clone()
    }

    /// The condition of the node; absent while it never lacked anything, unless an earlier run said that it does.
    pub(crate) fn condition(&self, said_before: bool) -> Option<StatusCondition> {
        let inner = self.inner();
        let (status, reason, message) = match inner.lacks.values().next() {
            Some(first) => {
                let messages: Vec<_> = inner.lacks.values().map(|lack| lack.message.as_str()).collect();
                ("False", first.reason, messages.join("; "))
            }
            None if inner.lacked || said_before => ("True", "Available", "pods that start get an address".to_owned()),
            None => return None,
        };
        let (r#type, status, reason) = (CONDITION.to_owned(), status.to_owned(), reason.to_owned());
        Some(StatusCondition { r#type, status, reason, message, last_transition_time: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kinesin_cluster::OwnCiliumNode;
    use kinesin_core::ipam::{Block, BlockUse, PoolDemand};

    use super::*;

    fn full() -> IpamError {
        IpamError::Exhausted { pool: "vac".to_owned(), family: Family::V4, leased: 6, capacity: 6 }
    }

    fn said(operator_error: &str) -> Said {
        let own = OwnCiliumNode { operator_error: operator_error.to_owned(), ..OwnCiliumNode::default() };
        Said { own: Some(own), ..Said::default() }
    }

    fn around<'a>(source: BlockSource, demand: &'a Demand, said: &'a Said) -> Circumstances<'a> {
        Circumstances { node: "w1", source, demand, said }
    }

    #[test]
    fn the_message_starts_as_operators_know_it_and_tells_the_way_out() {
        let (free, bounded) =
            (Demand::default(), Demand { bounded: Some("set grow to true".to_owned()), ..Demand::default() });
        let missing = IpamError::PoolNotReady { pool: "vac".to_owned(), family: Family::V4 };
        let non_existing = "cannot allocate from non-existing pool: \"vac\"";
        let cases = [
            (full(), BlockSource::NodePodCidrs, &free, "", "one pod CIDR: delete pods on it"),
            (full(), BlockSource::GivenPodCidrs, &bounded, "", "; set grow to true"),
            (full(), BlockSource::GivenPodCidrs, &free, "", "whether cilium-operator runs"),
            (
                full(),
                BlockSource::GivenPodCidrs,
                &free,
                "allocator full",
                "allocator full; add a CIDR to cluster-pool-ipv4-cidr",
            ),
            (full(), BlockSource::GivenPools, &free, "full", "add a CIDR to the CiliumPodIPPool \"vac\""),
            (
                missing,
                BlockSource::GivenPools,
                &free,
                non_existing,
                "create the CiliumPodIPPool \"vac\", or name another",
            ),
        ];
        for (error, source, demand, operator, expected) in cases {
            let text = explain(&error, around(source, demand, &said(operator)));
            let start = if matches!(error, IpamError::Exhausted { .. }) {
                "range is full: pool \"vac\" of node \"w1\" has no free IPv4 address (6 of 6 leased); "
            } else {
                "unable to allocate from pool \"vac\" (family ipv4): pool not (yet) available: node \"w1\" has no block"
            };
            assert!(text.starts_with(start) && text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_block_is_on_its_way_only_when_it_was_asked_for_and_not_refused() {
        let (free, bounded) = (Demand::default(), Demand { bounded: Some(String::new()), ..Demand::default() });
        let coming = |source, demand, operator| is_on_its_way(&full(), around(source, demand, &said(operator)));
        assert!(!coming(BlockSource::NodePodCidrs, &free, ""));
        assert!(coming(BlockSource::GivenPodCidrs, &free, ""));
        assert!(!coming(BlockSource::GivenPodCidrs, &bounded, ""));
        assert!(!coming(BlockSource::GivenPodCidrs, &free, "allocator full"));
        assert!(coming(BlockSource::GivenPools, &free, "pool \"other\" is full"));
        assert!(!coming(BlockSource::GivenPools, &free, "pool \"vac\" is full"));
    }

    #[test]
    fn each_pool_is_told_what_is_about_it() {
        let free = Demand::default();
        let missing = || IpamError::PoolNotReady { pool: "vac".to_owned(), family: Family::V4 };
        let two = "from pool \"other\": cannot allocate from non-existing pool: other; from pool \"vac\": full";
        let text = explain(&missing(), around(BlockSource::GivenPools, &free, &said(two)));
        assert!(text.contains("says: from pool \"vac\": full; add a CIDR") && !text.contains("other"), "{text}");
        let mut refused = said("");
        let cidr = "192.168.10.0/28".parse().expect("a network");
        refused.own.as_mut().expect("an object").allocated = vec![("vac".to_owned(), cidr)];
        let text = explain(&missing(), around(BlockSource::GivenPools, &free, &refused));
        assert!(text.contains("192.168.10.0/28 was given to it and is not in use"), "{text}");
    }

    #[test]
    fn a_deleted_pool_is_named_with_the_way_out_and_not_waited_for() {
        let error = IpamError::PoolNotReady { pool: "vac".to_owned(), family: Family::V4 };
        let mut said = said("");
        let pools = said.own.as_mut().map(|own| &mut own.allocated).expect("a CiliumNode");
        pools.push(("vac".to_owned(), "10.0.0.0/29".parse().expect("a network")));
        said.pools = Some(BTreeSet::from(["default".to_owned()]));
        let demand = Demand::default();
        let around = around(BlockSource::GivenPools, &demand, &said);
        assert!(!is_on_its_way(&error, around));
        let text = explain(&error, around);
        for part in [
            "unable to allocate from pool \"vac\" (family ipv4): pool not (yet) available: it was deleted",
            "node \"w1\" keeps its blocks only for the pods that have addresses of them",
            "create the CiliumPodIPPool \"vac\" again, or name another in the annotation ipam.cilium.io/ip-pool",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_condition_comes_with_a_lack_and_turns_good_with_space() {
        let exhaustion = Exhaustion::default();
        let block = Block { pool: "vac".to_owned(), cidr: "10.0.0.0/29".parse().expect("a network") };
        let snapshot = |leased| IpamSnapshot {
            blocks: vec![BlockUse { block: block.clone(), leased, capacity: 6, draining: false }],
            ..IpamSnapshot::default()
        };
        assert_eq!(exhaustion.condition(false), None);
        assert_eq!(exhaustion.condition(true).map(|found| found.status), Some("True".to_owned()));
        exhaustion.note(&full(), "range is full: ...");
        exhaustion.refresh(&snapshot(6), &Demand::default());
        let condition = exhaustion.condition(false).expect("a lack");
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "RangeFull"));
        assert_eq!(exhaustion.messages().len(), 1);
        exhaustion.refresh(&snapshot(5), &Demand::default());
        assert_eq!(exhaustion.condition(false).map(|found| found.status), Some("True".to_owned()));
        assert_eq!(exhaustion.failures()[&("vac".to_owned(), Family::V4)], 1);
        // A pool that does not exist lacks for as long as somebody waits for it.
        exhaustion.note(&IpamError::PoolNotReady { pool: "no".to_owned(), family: Family::V4 }, "no such pool");
        let pools = vec![PoolDemand { pool: "no".to_owned(), family: Family::V4, in_use: 0, waiting: 1, wanted: 1 }];
        exhaustion.refresh(&snapshot(5), &Demand { pools, bounded: None });
        assert_eq!(exhaustion.condition(false).map(|found| found.reason), Some("NoBlock".to_owned()));
        exhaustion.refresh(&snapshot(5), &Demand::default());
        assert_eq!(exhaustion.condition(false).map(|found| found.status), Some("True".to_owned()));
    }
}
