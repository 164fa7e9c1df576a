//! One pass' part of IPAM: blocks to the modes, and the node's own leases.

use kinesin_core::{
    ipam::{BlockSource, IpamDesired, IpamError},
    values::Family,
};

use super::own::OwnLeases;
use crate::{
    engine::{Engine, EngineError, State},
    node::NodeLinks,
};

impl Engine {
    /// Brings the modes to the blocks that the node has, and finds the node's own leases; beside them, what was wrong with
    /// a block. Blocks that are refused leave IPAM as it was; a node that has some goes on with those, and says so.
    pub(crate) async fn settle_ipam(
        &self,
        state: &mut State,
        links: &NodeLinks,
    ) -> Result<(OwnLeases, Option<IpamError>), EngineError> {
        let refused = self.apply_blocks(state, links).await.err();
        let last = state.datapath.as_ref().map(|last| last.router.clone()).unwrap_or_default();
        let own = match (self.own_leases(&last).await, refused) {
            (Err(error), refused) => return Err(refused.unwrap_or(error).into()),
            (Ok(_), Some(error)) if state.datapath.is_none() && !state.resumed => return Err(error.into()),
            (Ok(own), refused) => (own, refused),
        };
        state.node.leases.clone_from(&own.0.leases);
        Ok(own)
    }

    /// Releases the node's own leases that were replaced, once nothing uses them, and saves the node.
    pub(crate) async fn finish_ipam(
        &self,
        state: &mut State,
        mut own: OwnLeases,
        is_unused: bool,
    ) -> Result<(), EngineError> {
        if is_unused {
            for lease in std::mem::take(&mut own.left) {
                self.release(&lease).await?;
            }
        } else {
            // They must outlive a crash while the health endpoint may still have them.
            state.node.leases.extend(own.left.iter().cloned());
        }
        self.save_node(state)
    }

    /// Gives the preferred mode its blocks and lets the others drain. A block that is refused costs only itself.
    async fn apply_blocks(&self, state: &mut State, links: &NodeLinks) -> Result<(), IpamError> {
        self.backends.ipam.drain().await?;
        let preferred = self.backends.ipam.preferred();
        // Before the node's objects were seen, an earlier run's blocks are what there is.
        let given = state.given_blocks.clone().unwrap_or_else(|| state.node.blocks.clone());
        if given.is_empty() && preferred.source == BlockSource::NodePodCidrs {
            // Told apart from an empty list that was given: nothing has been given yet.
            return Err(self.nothing_given(preferred.source));
        }
        let mut reserved = links.addresses.clone();
        reserved.extend(self.backends.ipam.leased_while_draining());
        let mut desired = IpamDesired { blocks: given, reserved, node_networks: links.networks.clone() };
        let mut refused = None;
        loop {
            match preferred.ipam.apply(&desired).await {
                Ok(()) => break,
                Err(IpamError::InvalidBlock { cidr, reason }) => {
                    let before = desired.blocks.len();
                    desired.blocks.retain(|block| block.cidr.trunc() != cidr.trunc());
                    let hopeless = desired.blocks.len() == before || preferred.source == BlockSource::NodePodCidrs;
                    let error = IpamError::InvalidBlock { cidr, reason };
                    if hopeless {
                        return Err(refused.unwrap_or(error));
                    }
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(refused.unwrap_or(error)),
            }
        }
        // Only what was accepted is saved: the next start takes it over before it can look at the node's networks.
        state.node.blocks.clone_from(&desired.blocks);
        match refused {
            Some(error) => Err(error),
            None if desired.blocks.is_empty() => Err(self.nothing_given(preferred.source)),
            None => Ok(()),
        }
    }

    /// What is waited for while there is no block.
    fn nothing_given(&self, source: BlockSource) -> IpamError {
        let node = &self.node_name;
        let expected_from = match source {
            BlockSource::NodePodCidrs => format!("spec.podCIDRs of the Node object {node:?}"),
            BlockSource::GivenPodCidrs => {
                format!("the operator, in spec.ipam.podCIDRs of the CiliumNode {node:?}; is cilium-operator running?")
            }
            BlockSource::GivenPools => format!(
                "the operator, in spec.ipam.pools.allocated of the CiliumNode {node:?}; is cilium-operator running, and \
                 is there a CiliumPodIPPool of the default pool's name?"
            ),
        };
        let family = self.config.families.iter().next().unwrap_or(Family::V4);
        IpamError::NotReady { family, expected_from }
    }
}
