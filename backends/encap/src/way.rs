//! The way to one pod CIDR: by which address of its node, and the route that the node's own stack needs.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_core::{
    routing::{LocalNode, Path, Peer},
    values::{Carrier, Family, Underlay},
};
use kinesin_netlink::Route;
use kinesin_routes::{Kernel, Way, bare_route};

/// What is the same for every peer.
#[derive(Debug)]
pub(crate) struct Ways<'a> {
    kernel: &'a Kernel,
    local: &'a LocalNode,
    carrier: Carrier,
    /// Families by which this node can send tunnels, the preferred one first.
    underlays: Vec<Family>,
    /// Index of the host device, if it is there and up.
    host: Option<u32>,
    /// The router address of each family that the host device has.
    router: Vec<IpAddr>,
}

impl<'a> Ways<'a> {
    pub(crate) fn new(kernel: &'a Kernel, local: &'a LocalNode, carrier: Carrier, underlay: Underlay) -> Self {
        let has = |family: &Family| local.addresses.iter().any(|ip| Family::of(ip) == *family);
        let host = kernel.device(&local.host_device).filter(|link| link.up).map(|link| link.index);
        // The kernel refuses a route whose source is no address of the node.
        let is_there = |ip: &&IpAddr| host.is_some_and(|device| kernel.has_address(device, **ip));
        let first = |family| local.router.iter().filter(is_there).find(|ip| Family::of(ip) == family).copied();
        Self {
            kernel,
            local,
            carrier,
            underlays: underlay.families().filter(has).collect(),
            host,
            router: Family::ALL.into_iter().filter_map(first).collect(),
        }
    }

    /// The way to one pod CIDR, or why there is none; `overhead` are the bytes that the tunnel adds over a family.
    pub(crate) fn to(&self, peer: &Peer, cidr: IpNet, overhead: impl Fn(Family) -> u16) -> Result<Way, String> {
        let node = self.node(peer)?;
        // No next hop, though it would spare each packet a look-up of some 130 ns. A direct route of native routing is this
        // node's own decision; where outer packets go is decided by its routing tables, by rules that prefer one table, by
        // routes with several next hops that share the load, and by whoever changes them, of which nobody here hears before
        // the next pass. Only the kernel answers that for each packet.
        let overhead_bytes = overhead(Family::of(&node));
        let mtu_bytes = peer.narrower_mtu(self.local.mtu_bytes, Family::of_net(&cidr), overhead_bytes);
        let path = Path { prefix: cidr, node, carrier: self.carrier, next_hop: None, mtu_bytes };
        let inside = mtu_bytes.unwrap_or(self.local.mtu_bytes).saturating_sub(overhead_bytes.into());
        Ok(Way { path, route: self.route(cidr, inside) })
    }

    fn node(&self, peer: &Peer) -> Result<IpAddr, String> {
        for family in &self.underlays {
            if let Some(node) = self.kernel.node_address(peer, *family)? {
                return Ok(node);
            }
        }
        let families: Vec<String> = self.underlays.iter().map(ToString::to_string).collect();
        Err(match &families[..] {
            [] => "this node has no address of the family that tunnels travel by; give it an InternalIP of that family, or \
                   change underlay-protocol"
                .to_owned(),
            _ => format!(
                "its node has no {} address, by which this node's tunnels travel; give it an InternalIP of that family, or \
                 change underlay-protocol",
                families.join(" or ")
            ),
        })
    }

    /// None while the chassis' device or its address is not there: the next pass, after the chassis has made it, sets it.
    fn route(&self, cidr: IpNet, mtu_bytes: u32) -> Option<Route> {
        let router = *self.router.iter().find(|ip| Family::of(ip) == Family::of_net(&cidr))?;
        Some(Route {
            // IPv6 refuses a gateway that is an own address; the device resolves no neighbours anyway.
            via: router.is_ipv4().then_some(router),
            src: Some(router),
            mtu: Some(mtu_bytes),
            ..bare_route(cidr, self.host?)
        })
    }
}
