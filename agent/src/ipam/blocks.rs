//! Which blocks the preferred mode may lease from: what the API objects of the node say.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kinesin_cluster::OwnCiliumNode;
use kinesin_core::{
    ipam::{Block, BlockSource},
    values::{Families, Family},
};

/// What the agent says of a block that it gives out nothing of any more.
pub(crate) const RELEASED: &str = "released";
/// Pool of modes that have none.
const DEFAULT: &str = "default";

/// What the node's objects say, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The Node's `spec.podCIDRs`; absent until the Node was seen.
    pub(crate) node_cidrs: Option<Vec<IpNet>>,
    /// The CiliumNode; absent until the API server has told whether there is one.
    pub(crate) own: Option<OwnCiliumNode>,
    /// The CiliumPodIPPools that there are; absent while they are not known, and in modes without pools.
    pub(crate) pools: Option<BTreeSet<String>>,
}

impl Said {
    /// Whether a pool does not exist; one that is not known to does, as far as its blocks are concerned.
    pub(crate) fn is_missing(&self, pool: &str) -> bool {
        self.pools.as_ref().is_some_and(|pools| !pools.contains(pool))
    }

    /// Whether the node's objects said other blocks `before`. The rest of what they say is for whoever asks for blocks: most
    /// of it this agent wrote itself.
    pub(crate) fn has_other_blocks(&self, before: &Self) -> bool {
        let of_own = |said: &Self| {
            said.own.as_ref().map(|own| {
                let listed = own.pod_cidrs.iter().copied();
                let released: Vec<IpNet> = listed.filter(|cidr| is_released(own, cidr)).collect();
                (own.pod_cidrs.clone(), own.allocated.clone(), released)
            })
        };
        (&self.node_cidrs, &self.pools) != (&before.node_cidrs, &before.pools) || of_own(self) != of_own(before)
    }

    /// Blocks that the node has of pools that were deleted.
    pub(crate) fn of_deleted_pools(&self) -> impl Iterator<Item = Block> {
        let listed = self.own.iter().flat_map(|own| &own.allocated);
        listed.filter(|(pool, _)| self.is_missing(pool)).map(|(pool, cidr)| Block { pool: pool.clone(), cidr: *cidr })
    }

    /// Whether the node has blocks of this pool, which was deleted.
    pub(crate) fn is_deleted(&self, pool: &str) -> bool {
        self.of_deleted_pools().any(|block| block.pool == pool)
    }
}

/// The blocks of a mode with this source; absent while it is not known what they are.
///
/// `put` are entries of the CiliumNode's podCIDRs that this agent copied from the Node: they are not the operator's.
pub(crate) fn given(source: BlockSource, said: &Said, put: &[IpNet], families: Families) -> Option<Vec<Block>> {
    let usable = |cidr: &IpNet| families.contains(Family::of_net(cidr));
    let block = |pool: &str, cidr: IpNet| Block { pool: pool.to_owned(), cidr };
    match source {
        BlockSource::NodePodCidrs => {
            let blocks: Vec<_> = said
                .node_cidrs
                .iter()
                .flatten()
                .filter(|cidr| usable(cidr))
                .map(|cidr| block(DEFAULT, *cidr))
                .collect();
            // Kubernetes never takes a range from a Node: an empty list is one that is not filled in yet.
            (!blocks.is_empty()).then_some(blocks)
        }
        BlockSource::GivenPodCidrs => {
            // Without the Node its ranges cannot be told from the operator's.
            let (own, of_node) = (said.own.as_ref()?, said.node_cidrs.as_ref()?);
            let given = own.pod_cidrs.iter().filter(|cidr| {
                usable(cidr) && !of_node.contains(cidr) && !put.contains(cidr) && !is_released(own, cidr)
            });
            Some(given.map(|cidr| block(DEFAULT, *cidr)).collect())
        }
        BlockSource::GivenPools => {
            let listed = said.own.as_ref()?.allocated.iter();
            // Of a pool that was deleted, leases live on and nothing new is given.
            let listed = listed.filter(|(pool, cidr)| usable(cidr) && !said.is_missing(pool));
            Some(listed.map(|(pool, cidr)| block(pool, *cidr)).collect())
        }
    }
}

/// Whether a range was reported as released, perhaps by an earlier run: the operator may be about to take it, so there is no
/// way back but to get it anew.
pub(crate) fn is_released(own: &OwnCiliumNode, cidr: &IpNet) -> bool {
    own.cidr_status.get(&cidr.to_string()).is_some_and(|state| state == RELEASED)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kinesin_cluster::{PoolNeed, crd::StatusCondition};

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn cidrs(source: BlockSource, said: &Said, put: &[IpNet]) -> Option<Vec<String>> {
        let families = Families { v4: true, v6: false };
        given(source, said, put, families)
            .map(|blocks| blocks.iter().map(|block| format!("{} {}", block.pool, block.cidr)).collect())
    }

    #[test]
    fn each_source_takes_its_own_and_the_nodes_families_only() {
        let own = OwnCiliumNode {
            pod_cidrs: vec![net("10.244.0.0/24"), net("10.0.0.0/29"), net("10.9.0.0/24"), net("fd00::/120")],
            allocated: vec![("vac".to_owned(), net("10.100.0.0/29")), ("vac".to_owned(), net("fd01::/120"))],
            ..OwnCiliumNode::default()
        };
        let said = Said { node_cidrs: Some(vec![net("10.244.0.0/24")]), own: Some(own), pools: None };
        let put = [net("10.9.0.0/24")];
        let of = |source| cidrs(source, &said, &put).expect("known");
        assert_eq!(of(BlockSource::NodePodCidrs), ["default 10.244.0.0/24"]);
        assert_eq!(of(BlockSource::GivenPodCidrs), ["default 10.0.0.0/29"]);
        assert_eq!(of(BlockSource::GivenPools), ["vac 10.100.0.0/29"]);

        let mut told = said.clone();
        if let Some(own) = &mut told.own {
            own.cidr_status.insert("10.0.0.0/29".to_owned(), RELEASED.to_owned());
        }
        let left = cidrs(BlockSource::GivenPodCidrs, &told, &put).expect("known");
        assert!(left.is_empty(), "the operator may be taking it already: {left:?}");
    }

    #[test]
    fn what_the_node_asks_for_and_is_told_is_no_change_of_its_blocks() {
        let own = OwnCiliumNode {
            pod_cidrs: vec![net("10.0.0.0/29")],
            cidr_status: BTreeMap::from([("10.0.0.0/29".to_owned(), "in-use".to_owned())]),
            ..OwnCiliumNode::default()
        };
        let before = Said { own: Some(own), ..Said::default() };
        let changed = |change: &dyn Fn(&mut OwnCiliumNode)| {
            let mut now = before.clone();
            now.own.iter_mut().for_each(change);
            now.has_other_blocks(&before)
        };
        assert!(!changed(&|own| own.requested = vec![PoolNeed::default()]));
        assert!(!changed(&|own| own.operator_error = "full".to_owned()));
        assert!(!changed(&|own| own.conditions = vec![StatusCondition::default()]));
        let word = |word: &str| {
            let word = word.to_owned();
            move |own: &mut OwnCiliumNode| drop(own.cidr_status.insert("10.0.0.0/29".to_owned(), word.clone()))
        };
        assert!(!changed(&word("depleted")));
        assert!(changed(&word(RELEASED)));
        assert!(changed(&|own| own.pod_cidrs.clear()));
        assert!(changed(&|own| own.allocated.push(("vac".to_owned(), net("10.1.0.0/29")))));
        assert!(before.has_other_blocks(&Said::default()), "it was not known");
        assert!(Said { node_cidrs: Some(Vec::new()), ..before.clone() }.has_other_blocks(&before));
        assert!(Said { pools: Some(BTreeSet::new()), ..before.clone() }.has_other_blocks(&before));
    }

    #[test]
    fn blocks_of_a_deleted_pool_are_not_given_any_more() {
        let pair = |pool: &str, cidr: &str| (pool.to_owned(), net(cidr));
        let allocated = vec![pair("vac", "10.100.0.0/29"), pair("default", "10.0.0.0/29")];
        let own = OwnCiliumNode { allocated, ..OwnCiliumNode::default() };
        let mut said = Said { own: Some(own), ..Said::default() };
        let given = |said: &Said| cidrs(BlockSource::GivenPools, said, &[]).expect("known");
        assert_eq!(given(&said), ["vac 10.100.0.0/29", "default 10.0.0.0/29"], "the pools are not known yet");
        assert!(!said.is_deleted("vac"));
        said.pools = Some(BTreeSet::from(["default".to_owned()]));
        assert_eq!(given(&said), ["default 10.0.0.0/29"]);
        assert!(said.is_deleted("vac") && !said.is_deleted("default") && !said.is_deleted("never-there"));
        said.pools = Some(BTreeSet::from(["default".to_owned(), "vac".to_owned()]));
        assert_eq!(given(&said).len(), 2, "it was made again");
    }

    #[test]
    fn not_known_is_told_apart_from_none() {
        let unknown = Said::default();
        let empty =
            Said { node_cidrs: Some(Vec::new()), own: Some(OwnCiliumNode::default()), pools: Some(BTreeSet::new()) };
        let no_node = Said { node_cidrs: None, ..empty.clone() };
        assert_eq!(cidrs(BlockSource::GivenPodCidrs, &no_node, &[]), None);
        assert_eq!(cidrs(BlockSource::NodePodCidrs, &empty, &[]), None);
        for source in [BlockSource::GivenPodCidrs, BlockSource::GivenPools] {
            assert_eq!(cidrs(source, &unknown, &[]), None);
            assert_eq!(cidrs(source, &empty, &[]), Some(vec![]));
        }
    }
}
