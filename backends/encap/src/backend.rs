//! The ways of tunnels, for a format that is told by its header; the shared crate keeps the routes.

use std::sync::Arc;

use ipnet::IpNet;
use kinesin_core::{
    capability::{Capability, Requirement},
    registry::{BuildContext, BuildError, RoutingBackend},
    routing::{Peer, Routing, RoutingDesired, RoutingError},
    values::{Carrier, Family},
};
use kinesin_routes::{Kernel, Outcome, Pathfinder, RouteKeeping};

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

/// What every tunnel needs.
const REQUIRES: &[Requirement] = &[Requirement::Needs {
    capability: Capability::CHASSIS_EBPF,
    reason: "packets are encapsulated by eBPF programs",
    remedy: "choose chassis \"ebpf\"",
}];

/// The registration of a format: `defaults` is its crate's `default.toml`, and `build` calls [`Encap::build`] with the format.
#[must_use]
pub const fn registration(
    format: &Format,
    summary: &'static str,
    defaults: &'static str,
    build: fn(&BuildContext) -> Result<Arc<dyn Routing>, BuildError>,
) -> RoutingBackend {
    RoutingBackend {
        name: format.name,
        summary,
        provides: &[Capability::IPV4, Capability::IPV6],
        requires: REQUIRES,
        overhead_bytes: format.overhead_bytes(Family::V6),
        defaults,
        build,
    }
}

/// Finds the way through the tunnels of one format.
#[derive(Debug)]
pub struct Encap {
    format: Format,
    settings: Settings,
}

impl Encap {
    /// Builds the backend of a format from its section.
    ///
    /// # Errors
    /// [`BuildError::Config`] for an option that is wrong.
    pub fn build(context: &BuildContext, format: Format) -> Result<Arc<dyn Routing>, BuildError> {
        let settings = context.section.parse::<Config>()?.validate(context);
        Ok(Arc::new(RouteKeeping::new(Self { format, settings }, &context.state_dir, format.name)))
    }
}

impl Pathfinder for Encap {
    fn carrier(&self) -> Carrier {
        self.format.carrier
    }

    fn overhead_bytes(&self, underlay: Family) -> u16 {
        self.format.overhead_bytes(underlay)
    }

    fn find(
        &self,
        kernel: &Kernel,
        desired: &RoutingDesired,
        pods: &[(IpNet, &str, &Peer)],
        outcome: &mut Outcome,
    ) -> Result<(), RoutingError> {
        if !pods.is_empty() {
            // Tunnels leave by them; a node that has none up is cut off, which is one reason and not one for each peer.
            kernel.uplinks(&desired.local.uplinks)?;
        }
        let ways = Ways::new(kernel, &desired.local, self.format.carrier, self.settings.underlay);
        for (cidr, name, peer) in pods {
            outcome.take(name, *cidr, ways.to(peer, *cidr, |family| self.format.overhead_bytes(family)));
        }
        Ok(())
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
