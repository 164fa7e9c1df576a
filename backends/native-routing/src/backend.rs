//! Finds the way to each pod CIDR; the shared crate keeps the routes.

use std::sync::Arc;

use ipnet::IpNet;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{LocalNode, Path, Peer, Routing, RoutingDesired, RoutingError},
    values::{Carrier, Family},
};
use kinesin_netlink::Route;
use kinesin_routes::{Kernel, Outcome, Pathfinder, RouteKeeping, Way, bare_route};

use crate::{
    NAME,
    config::{Config, Settings},
    neighbours::{Reach, Table},
};

/// Finds the way through the network itself.
#[derive(Debug)]
pub struct NativeRouting {
    settings: Settings,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate(context);
    Ok(Arc::new(RouteKeeping::new(NativeRouting { settings }, &context.state_dir, NAME)))
}

impl Pathfinder for NativeRouting {
    fn carrier(&self) -> Carrier {
        Carrier::Native
    }

    fn overhead_bytes(&self, _underlay: Family) -> u16 {
        0
    }

    fn find(
        &self,
        kernel: &Kernel,
        desired: &RoutingDesired,
        pods: &[(IpNet, &str, &Peer)],
        outcome: &mut Outcome,
    ) -> Result<(), RoutingError> {
        let uplinks = if self.settings.direct_routes && !pods.is_empty() {
            kernel.uplinks(&desired.local.uplinks)?
        } else {
            Vec::new()
        };
        let table = Table::new(kernel.routes(), &uplinks);
        for (cidr, name, peer) in pods {
            outcome.take(name, *cidr, self.way_to(&desired.local, peer, *cidr, &table, kernel, &uplinks));
        }
        Ok(())
    }
}

impl NativeRouting {
    /// The way to one pod CIDR: the path, and the route if one is to be set.
    fn way_to(
        &self,
        local: &LocalNode,
        peer: &Peer,
        cidr: IpNet,
        table: &Table<'_>,
        kernel: &Kernel,
        uplinks: &[u32],
    ) -> Result<Way, String> {
        let family = Family::of_net(&cidr);
        let Some(node) = kernel.node_address(peer, family)? else {
            return Err(format!("its node has no {family} address; give it an InternalIP of that family"));
        };
        let mtu_bytes = peer.narrower_mtu(local.mtu_bytes, family, 0);
        let path = Path { prefix: cidr, node, carrier: Carrier::Native, next_hop: None, mtu_bytes };
        if !self.settings.direct_routes {
            return Ok(Way { path, route: None });
        }
        match table.reach(node) {
            Reach::OnLink(dev) => {
                // The stack cuts to it what may be cut, of pods as well.
                let route = Route { via: Some(node), mtu: mtu_bytes, ..bare_route(cidr, dev) };
                // The chassis sends by the first uplink; over another one the routing table leads.
                let next_hop = (uplinks.first() == Some(&dev)).then_some(node);
                Ok(Way { path: Path { next_hop, ..path }, route: Some(route) })
            }
            Reach::Gateway(gateway) if self.settings.skip_unreachable => Err(format!(
                "{node} is behind the router {gateway}; left to the network (direct-routing-skip-unreachable)"
            )),
            Reach::Gateway(gateway) => Err(format!(
                "{node} is behind the router {gateway}, and a direct route needs both nodes on one segment; set \
                 direct-routing-skip-unreachable if the network routes pod CIDRs, or choose a tunnel"
            )),
            Reach::OtherDevice(dev) => Err(format!(
                "{node} is reached by device {}, which is no uplink; add it to devices",
                kernel.device_name(dev)
            )),
            Reach::Nowhere => Err(format!("no route leads to {node}; check the address and the node's own routes")),
        }
    }
}
