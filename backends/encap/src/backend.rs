//! The trait implementation, for a format that is told by its header.

use std::sync::Arc;

use async_trait::async_trait;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{Path, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_routes::{Keeper, Outcome, Turn};

use crate::{
    config::{Config, Settings},
    way::Ways,
};

/// Outer IP headers without options (RFC 791 section 3.1, RFC 8200 section 3).
const IPV4_BYTES: u16 = 20;
/// See [`IPV4_BYTES`].
const IPV6_BYTES: u16 = 40;
/// RFC 768.
const UDP_BYTES: u16 = 8;
/// The inner frame's header; the outer frame's is no part of an MTU.
const ETHERNET_BYTES: u16 = 14;

/// One format of encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    /// Registry name of its backend.
    pub name: &'static str,
    /// The format.
    pub carrier: Carrier,
    /// Bytes of its own header, between UDP and the inner frame.
    pub header_bytes: u16,
}

impl Format {
    /// Bytes that the tunnel adds to a packet on an underlay of `family`.
    #[must_use]
    pub const fn overhead_bytes(&self, underlay: Family) -> u16 {
        let ip = match underlay {
            Family::V4 => IPV4_BYTES,
            Family::V6 => IPV6_BYTES,
        };
        ip + UDP_BYTES + self.header_bytes + ETHERNET_BYTES
    }
}

/// Routing by one format of encapsulation.
#[derive(Debug)]
pub struct Encap {
    format: Format,
    settings: Settings,
    keeper: Keeper,
}

impl Encap {
    /// Builds the backend of a format from its section.
    ///
    /// # Errors
    /// [`BuildError::Config`] for an option that is wrong.
    pub fn build(context: &BuildContext, format: Format) -> Result<Arc<dyn Routing>, BuildError> {
        let settings = context.section.parse::<Config>()?.validate(context);
        Ok(Arc::new(Self { format, settings, keeper: Keeper::new(&context.state_dir, format.name) }))
    }
}

#[async_trait]
impl Routing for Encap {
    fn carrier(&self) -> Carrier {
        self.format.carrier
    }

    fn overhead_bytes(&self, underlay: Family) -> u16 {
        self.format.overhead_bytes(underlay)
    }

    async fn plan(&self, desired: &RoutingDesired) -> Result<Option<Vec<Path>>, RoutingError> {
        let turn = self.keeper.turn().await?;
        let outcome = self.wanted(&turn, desired)?;
        Ok(Some(turn.plan(outcome)))
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        let turn = self.keeper.turn().await?;
        let outcome = self.wanted(&turn, desired)?;
        turn.finish(outcome).await
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        self.keeper.retire().await
    }
}

impl Encap {
    /// What should be, as far as the cluster and the node's own devices decide it.
    fn wanted(&self, turn: &Turn<'_>, desired: &RoutingDesired) -> Result<Outcome, RoutingError> {
        let (good, mut outcome) = turn.routable(desired, self.format.carrier);
        if !good.is_empty() {
            // Tunnels leave by them; a node that has none up is cut off, which is one reason and not one for each peer.
            turn.kernel().uplinks(&desired.local.uplinks)?;
        }
        let ways = Ways::new(turn.kernel(), &desired.local, self.format.carrier, self.settings.underlay);
        for (cidr, name) in good {
            let Some(peer) = desired.peers.get(&name) else { continue };
            outcome.take(&name, cidr, ways.to(peer, cidr, |family| self.format.overhead_bytes(family)));
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_the_sum_of_the_headers() {
        let format = Format { name: "vxlan", carrier: Carrier::Vxlan, header_bytes: 8 };
        // What the reference says of Cilium (6.7).
        assert_eq!((format.overhead_bytes(Family::V4), format.overhead_bytes(Family::V6)), (50, 70));
    }
}
