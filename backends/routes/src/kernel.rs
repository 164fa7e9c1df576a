//! One reading of the kernel's devices, addresses and routes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::routing::{Peer, RoutingError};
use kinesin_core::values::Family;
use kinesin_netlink::{Link, Netlink, NetlinkError, Route};

use crate::{
    ledger::{Entries, Entry},
    plan::route_of,
};

/// One reading of the kernel.
#[derive(Debug)]
pub struct Kernel {
    links: Vec<Link>,
    /// Each with the index of its device.
    addresses: Vec<(u32, IpAddr)>,
    routes: Vec<Route>,
}

impl Kernel {
    pub(crate) async fn read(netlink: &Netlink) -> Result<Self, RoutingError> {
        let links = netlink.links().await.map_err(netlink_error)?;
        let addresses = netlink.addresses().await.map_err(netlink_error)?;
        let routes = netlink.routes().await.map_err(netlink_error)?;
        let addresses = addresses.iter().map(|(index, address)| (*index, address.addr())).collect();
        Ok(Self { links, addresses, routes })
    }

    /// Every unicast route.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The device of this name.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The name of a device; its index if there is none.
    #[must_use]
    pub fn device_name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    }

    /// Whether a device has this address.
    #[must_use]
    pub fn has_address(&self, device: u32, address: IpAddr) -> bool {
        self.addresses.contains(&(device, address))
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
            (true, _) => "no device leads to other nodes; name one in devices",
            (false, 0) => "it does not exist; correct devices",
            (false, _) => "it is down; set it up",
        };
        Err(RoutingError::Uplink { device: names.join(", "), reason: reason.to_owned() })
    }

    /// The peer's underlay address of one family, if it has one.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    pub fn node_address(&self, peer: &Peer, family: Family) -> Result<Option<IpAddr>, String> {
        let node = peer.addresses.iter().copied().find(|ip| Family::of(ip) == family);
        match node {
            Some(node) if self.own_addresses().any(|own| own == node) => {
                Err(format!("{node}, the address of its node, is this node's own; correct its InternalIP"))
            }
            node => Ok(node),
        }
    }

    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(_, address)| *address)
    }

    pub(crate) fn has(&self, route: &Route) -> bool {
        self.routes.contains(route)
    }

    pub(crate) fn entry(&self, route: &Route) -> Entry {
        Entry { via: route.via, device: self.device_name(route.dev), src: route.src, mtu_bytes: route.mtu }
    }

    /// The listed routes as they were made. The routes of a device that is gone went with it, and index 0 is nobody's.
    pub(crate) fn routes_of(&self, entries: &Entries) -> BTreeMap<IpNet, Route> {
        let index = |name: &str| self.device(name).map_or(0, |link| link.index);
        entries.iter().map(|(dst, entry)| (*dst, route_of(*dst, entry, index(&entry.device)))).collect()
    }
}

pub(crate) fn netlink_error(error: NetlinkError) -> RoutingError {
    let text = error.to_string();
    // `RoutingError` starts its message with "cannot"; most of these do too.
    let action = text.strip_prefix("cannot ").map_or_else(|| format!("read the node's network: {text}"), str::to_owned);
    RoutingError::Kernel { action, source: Box::new(error) }
}
