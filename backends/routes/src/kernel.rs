//! The kernel's devices, addresses and routes, as this node's routing sees them.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::routing::{Peer, RoutingError};
use kinesin_core::values::Family;
use kinesin_netlink::{Link, Mirror, MirrorSpec, NetlinkError, Route, Seen, TABLE_MAIN};

use crate::{ledger::Entry, plan::route_of};

/// What the kernel has, without asking it for everything at every turn.
#[derive(Debug)]
pub struct Kernel {
    mirror: Mirror,
    /// Addresses of this node.
    own: BTreeSet<IpAddr>,
}

impl Kernel {
    pub(crate) fn open(spec: MirrorSpec) -> Result<Self, RoutingError> {
        Ok(Self { mirror: Mirror::new(spec).map_err(netlink_error)?, own: BTreeSet::new() })
    }

    /// Brings it up to date; the answer is what is different.
    pub(crate) async fn look(&mut self) -> Result<Seen, RoutingError> {
        let seen = self.mirror.look().await.map_err(netlink_error)?;
        if seen.devices {
            self.own = self.mirror.addresses().iter().map(|(_, address)| address.addr()).collect();
        }
        Ok(seen)
    }

    /// Makes the next look read everything.
    pub(crate) fn distrust(&mut self) {
        self.mirror.distrust();
    }

    /// How often every route was read.
    pub(crate) fn readings(&self) -> u64 {
        self.mirror.readings()
    }

    /// Every unicast route with one next hop, in order of their destinations.
    #[must_use]
    pub fn routes(&self) -> &BTreeSet<Route> {
        self.mirror.routes()
    }

    /// The device of this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Link> {
        self.mirror.links().iter().find(|link| link.name == name)
    }

    /// The name of a device; its index if there is none.
    #[must_use]
    pub fn device_name(&self, index: u32) -> String {
        let link = self.mirror.links().iter().find(|link| link.index == index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    }

    /// Whether a device has this address.
    #[must_use]
    pub fn has_address(&self, device: u32, address: IpAddr) -> bool {
        self.mirror.addresses().iter().any(|(index, found)| *index == device && found.addr() == address)
    }

    /// Indices of the uplinks that can carry anything, in the given order.
    ///
    /// # Errors
    /// [`RoutingError::Uplink`] when none is up.
    pub fn uplinks(&self, names: &[String]) -> Result<Vec<u32>, RoutingError> {
        let found = names.iter().filter_map(|name| self.device(name));
        let up: Vec<u32> = found.clone().filter(|link| link.up).map(|link| link.index).collect();
        if !up.is_empty() {
            return Ok(up);
        }
        let reason = match (names.is_empty(), found.count()) {
            (true, _) => {
                "no device that is up is one of devices, or, without that key, has the node's address or a default route; \
                 correct devices"
            }
            (false, 0) => "it does not exist; correct devices",
            (false, _) => "it is down; set it up",
        };
        let device = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(RoutingError::Uplink { device, reason: reason.to_owned() })
    }

    /// The peer's underlay address of one family, if it has one.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub fn node_address(&self, peer: &Peer, family: Family) -> Result<Option<IpAddr>, String> {
        let node = peer.addresses.iter().copied().find(|ip| Family::of(ip) == family);
        match node {
            Some(node) if self.own.contains(&node) => {
                Err(format!("{node}, the address of its node, is this node's own; correct its InternalIP"))
            }
            node => Ok(node),
        }
    }

    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.own.iter().copied()
    }

    /// The routes of the main table to exactly this destination.
    pub(crate) fn routes_to(&self, dst: IpNet) -> Vec<&Route> {
        self.mirror.routes_to(dst).filter(|route| route.table == TABLE_MAIN).collect()
    }

    pub(crate) fn entry(&self, route: &Route) -> Entry {
        Entry { via: route.via, device: self.device_name(route.dev), src: route.src, mtu_bytes: route.mtu }
    }

    /// A listed route as it was made. The routes of a device that is gone went with it, and index 0 is nobody's.
    pub(crate) fn route_of(&self, dst: IpNet, entry: &Entry) -> Route {
        route_of(dst, entry, self.device(&entry.device).map_or(0, |link| link.index))
    }
}

pub(crate) fn netlink_error(error: NetlinkError) -> RoutingError {
    let text = error.to_string();
    // `RoutingError` starts its message with "cannot"; most of these do too.
    let action = text.strip_prefix("cannot ").map_or_else(|| format!("read the node's network: {text}"), str::to_owned);
    RoutingError::Kernel { action, source: Box::new(error) }
}
