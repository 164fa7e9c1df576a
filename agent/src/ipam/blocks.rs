//! Which blocks the preferred mode may lease from: what the API objects of the node say.

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
            Some(listed.filter(|(_, cidr)| usable(cidr)).map(|(pool, cidr)| block(pool, *cidr)).collect())
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
        let said = Said { node_cidrs: Some(vec![net("10.244.0.0/24")]), own: Some(own) };
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
    fn not_known_is_told_apart_from_none() {
        let unknown = Said::default();
        let empty = Said { node_cidrs: Some(Vec::new()), own: Some(OwnCiliumNode::default()) };
        let no_node = Said { node_cidrs: None, ..empty.clone() };
        assert_eq!(cidrs(BlockSource::GivenPodCidrs, &no_node, &[]), None);
        assert_eq!(cidrs(BlockSource::NodePodCidrs, &empty, &[]), None);
        for source in [BlockSource::GivenPodCidrs, BlockSource::GivenPools] {
            assert_eq!(cidrs(source, &unknown, &[]), None);
            assert_eq!(cidrs(source, &empty, &[]), Some(vec![]));
        }
    }
}
