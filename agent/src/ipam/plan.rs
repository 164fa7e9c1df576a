//! What has to be different in the node's CiliumNode: needs, blocks to give back, and blocks that must stay.
//!
//! Pure: from what the CiliumNode says and what the modes hold to a change. Every entry belongs to somebody: those copied
//! from the Node to this agent, the other podCIDRs to the operator, who alone adds them and takes them away; of the pools'
//! blocks the operator adds and the agent takes away. A block that holds a lease stays listed whatever mode is preferred,
//! because peers route what is listed.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kinesin_cluster::{NodeIpamChange, OwnCiliumNode, PoolNeed};
use kinesin_core::{
    ipam::{Block, BlockSource, Demand, IpamSnapshot, PoolDemand},
    values::Family,
};

use super::blocks::{RELEASED, is_released};

/// What the node's modes hold and want.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Source of the preferred mode; absent in tests of nothing else.
    pub(crate) preferred: Option<BlockSource>,
    /// Blocks and leases per source, the preferred mode's first.
    pub(crate) held: Vec<(BlockSource, IpamSnapshot)>,
    /// Blocks of the preferred mode that are given up.
    pub(crate) given_back: BTreeSet<Block>,
    /// Ranges of the Node, now and when they were copied: the entries of podCIDRs that are the agent's own.
    pub(crate) node_cidrs: BTreeSet<IpNet>,
    /// What the preferred mode needs.
    pub(crate) demand: Demand,
    /// Whether the modes have the blocks that they shall have: not before the first reconciliation.
    pub(crate) complete: bool,
}

impl Facts {
    /// Blocks of a source that must stay listed.
    fn kept(&self, source: BlockSource) -> BTreeSet<Block> {
        let of_source = self.held.iter().filter(|(of, _)| *of == source);
        let blocks = of_source.flat_map(|(of, snapshot)| {
            // What the Node gave is listed while it is in use; the rest is listed by the operator.
            let copied = Some(*of) == self.preferred && *of == BlockSource::NodePodCidrs;
            snapshot.blocks.iter().filter(move |used| copied || used.leased > 0).map(|used| used.block.clone())
        });
        blocks.collect()
    }

    fn is_preferred(&self, source: BlockSource) -> bool {
        self.preferred == Some(source)
    }

    fn preferred_snapshot(&self) -> Option<&IpamSnapshot> {
        self.held.iter().find(|(source, _)| self.is_preferred(*source)).map(|(_, snapshot)| snapshot)
    }

    /// Whether the node's blocks cover everything that it wants.
    pub(crate) fn covered(&self) -> bool {
        let Some(snapshot) = self.preferred_snapshot() else { return true };
        // What is in use is there, be it of blocks that drain.
        let covered = |found: &PoolDemand| snapshot.totals(&found.pool, found.family).1.max(found.in_use);
        self.demand.pools.iter().all(|found| found.wanted <= covered(found))
    }
}

/// The change that brings `view` to what `facts` ask for; empty when there is nothing to do.
pub(crate) fn plan(view: &OwnCiliumNode, facts: &Facts) -> NodeIpamChange {
    let mut change = NodeIpamChange::default();
    pod_cidrs(view, facts, &mut change);
    let states = cidr_states(view, facts, &change);
    if states != view.cidr_status {
        change.cidr_status = Some(states);
    }
    pools(view, facts, &mut change);
    change
}

fn pod_cidrs(view: &OwnCiliumNode, facts: &Facts, change: &mut NodeIpamChange) {
    let of_node: BTreeSet<IpNet> = facts.kept(BlockSource::NodePodCidrs).iter().map(|block| block.cidr).collect();
    let of_operator: BTreeSet<IpNet> = facts.kept(BlockSource::GivenPodCidrs).iter().map(|block| block.cidr).collect();
    let wanted = of_node.iter().chain(&of_operator);
    change.add_pod_cidrs = wanted.filter(|cidr| !view.pod_cidrs.contains(cidr)).copied().collect();
    let ours = view.pod_cidrs.iter().filter(|cidr| facts.node_cidrs.contains(cidr));
    change.remove_pod_cidrs =
        ours.filter(|cidr| !of_node.contains(cidr) && !of_operator.contains(cidr)).copied().collect();
}

/// The state of every listed range that is the operator's.
fn cidr_states(view: &OwnCiliumNode, facts: &Facts, change: &NodeIpamChange) -> BTreeMap<String, String> {
    let kept: BTreeSet<IpNet> = facts.kept(BlockSource::GivenPodCidrs).iter().map(|block| block.cidr).collect();
    let preferred = facts.is_preferred(BlockSource::GivenPodCidrs);
    let given_up: BTreeSet<IpNet> = facts.given_back.iter().map(|block| block.cidr).collect();
    let known = facts.preferred_snapshot().filter(|_| preferred);
    let listed = view.pod_cidrs.iter().chain(&change.add_pod_cidrs).filter(|cidr| !facts.node_cidrs.contains(cidr));
    listed
        .filter_map(|cidr| {
            let in_use = known.is_some_and(|snapshot| snapshot.blocks.iter().any(|used| used.block.cidr == *cidr));
            let word = if kept.contains(cidr) && !preferred {
                "in-use"
            } else if !preferred || given_up.contains(cidr) || (is_released(view, cidr) && !in_use) {
                RELEASED
            } else if !in_use {
                // It has just come and is not counted yet; saying "depleted" now would ask for one too many.
                return None;
            } else if is_low(facts, Family::of_net(cidr)) {
                "depleted"
            } else {
                "in-use"
            };
            Some((cidr.to_string(), word.to_owned()))
        })
        .collect()
}

fn is_low(facts: &Facts, family: Family) -> bool {
    let Some(snapshot) = facts.preferred_snapshot().filter(|_| facts.demand.bounded.is_none()) else { return false };
    let of_family = facts.demand.pools.iter().filter(|found| found.family == family);
    of_family.into_iter().any(|found| found.wanted > snapshot.totals(&found.pool, family).1)
}

fn pools(view: &OwnCiliumNode, facts: &Facts, change: &mut NodeIpamChange) {
    let kept = facts.kept(BlockSource::GivenPools);
    let preferred = facts.is_preferred(BlockSource::GivenPools);
    let listed = |block: &Block| view.allocated.iter().any(|(pool, cidr)| *pool == block.pool && *cidr == block.cidr);
    change.add_allocated =
        kept.iter().filter(|block| !listed(block)).map(|block| (block.pool.clone(), block.cidr)).collect();
    let gone = view.allocated.iter().filter(|(pool, cidr)| {
        let block = Block { pool: pool.clone(), cidr: *cidr };
        !kept.contains(&block) && (!preferred || facts.given_back.contains(&block))
    });
    change.remove_allocated = gone.cloned().collect();

    let mut needs: BTreeMap<&str, PoolNeed> = BTreeMap::new();
    for found in facts.demand.pools.iter().filter(|_| preferred) {
        let need =
            needs.entry(&found.pool).or_insert_with(|| PoolNeed { pool: found.pool.clone(), ..PoolNeed::default() });
        match found.family {
            Family::V4 => need.ipv4 = found.wanted,
            Family::V6 => need.ipv6 = found.wanted,
        }
    }
    let needs: Vec<PoolNeed> = needs.into_values().collect();
    if needs != view.requested {
        change.requested = Some(needs);
    }
}

#[cfg(test)]
mod tests;
