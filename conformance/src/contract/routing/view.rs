//! What a node's kernel has, by names that are the same on every node.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;
use kinesin_netlink::{Link, Netlink, NetlinkError, Route};

/// Routes and addresses that the kernel makes and removes by itself are in this table.
const TABLE_LOCAL: u32 = 255;

/// Devices, addresses and routes, as the case sees them; what the kernel makes by itself is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct View {
    pub(super) links: BTreeSet<Device>,
    pub(super) addresses: BTreeSet<(String, IpNet)>,
    /// With the device's name; the index in the route is 0.
    pub(super) routes: BTreeSet<(String, Route)>,
}

/// A device without what is drawn by lot: its index and Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Device {
    pub(super) name: String,
    kind: String,
    mtu: u32,
    pub(super) up: bool,
}

impl View {
    /// Reads the namespace of the socket.
    pub(super) async fn read(netlink: &Netlink) -> Result<Self, NetlinkError> {
        let links = netlink.links().await?;
        let name = |index: u32| {
            links.iter().find(|link| link.index == index).map_or_else(|| index.to_string(), |link| link.name.clone())
        };
        let addresses = netlink.addresses().await?.into_iter().filter(|(_, address)| !automatic(address.addr()));
        let addresses = addresses.map(|(index, address)| (name(index), address)).collect();
        let routes = netlink.routes().await?.into_iter();
        let routes = routes.filter(|route| route.table != TABLE_LOCAL && !automatic(route.dst.addr()));
        let routes = routes.map(|route| (name(route.dev), Route { dev: 0, ..route })).collect();
        Ok(Self { links: links.iter().map(device).collect(), addresses, routes })
    }

    /// What this has and `other` has not.
    pub(super) fn without(&self, other: &Self) -> Self {
        Self {
            links: self.links.difference(&other.links).cloned().collect(),
            addresses: self.addresses.difference(&other.addresses).cloned().collect(),
            routes: self.routes.difference(&other.routes).cloned().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Both directions of the difference, for a message.
    pub(super) fn against(&self, expected: &Self) -> String {
        format!("too much: {}; missing: {}", self.without(expected), expected.without(self))
    }
}

/// Link-local and multicast: they come and go with a device's carrier.
pub(super) fn automatic(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast(),
    }
}

fn device(link: &Link) -> Device {
    Device { name: link.name.clone(), kind: format!("{:?}", link.kind), mtu: link.mtu, up: link.up }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let links = self.links.iter().map(|link| format!("device {} ({}, up: {})", link.name, link.kind, link.up));
        let addresses = self.addresses.iter().map(|(device, address)| format!("{address} at {device}"));
        let routes = self.routes.iter().map(|(device, route)| {
            let via = route.via.map(|hop| format!(" via {hop}")).unwrap_or_default();
            format!("route to {}{via} dev {device} table {} protocol {}", route.dst, route.table, route.protocol)
        });
        let all: Vec<String> = links.chain(addresses).chain(routes).collect();
        f.write_str(if all.is_empty() { "nothing" } else { "" })?;
        f.write_str(&all.join(", "))
    }
}
