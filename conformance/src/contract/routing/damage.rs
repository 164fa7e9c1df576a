//! What may happen to the things that a routing backend made, one at a time.

use ipnet::IpNet;
use kinesin_netlink::{Route, TABLE_MAIN};

use super::{
    harness::{Node, UPLINK, ip},
    view::View,
};
use crate::outcome::Judged;

/// Harm to one thing that the implementation has made.
#[derive(Debug)]
pub(super) enum Damage {
    Remove(String, Route),
    Misdirect(String, Route),
    TakeAddress(String, IpNet),
    SetDown(String),
    SetMtu(String),
    RemoveDevice(String),
}

/// Everything that can be done to what was made, one thing at a time.
pub(super) fn damages(made: &View) -> Vec<Damage> {
    let mut damages = Vec::new();
    for (device, route) in &made.routes {
        damages.push(Damage::Remove(device.clone(), route.clone()));
        // Elsewhere the wrong neighbour would be refused by the kernel.
        if route.via.is_some() && route.table == TABLE_MAIN && device == UPLINK {
            damages.push(Damage::Misdirect(device.clone(), route.clone()));
        }
    }
    damages.extend(made.addresses.iter().map(|(device, address)| Damage::TakeAddress(device.clone(), *address)));
    for link in &made.links {
        if link.up {
            damages.push(Damage::SetDown(link.name.clone()));
        }
        damages.push(Damage::SetMtu(link.name.clone()));
        damages.push(Damage::RemoveDevice(link.name.clone()));
    }
    damages
}

impl Damage {
    pub(super) fn inflict(&self, node: &Node<'_>) -> Judged {
        let device = match self {
            Self::Remove(device, _) | Self::Misdirect(device, _) | Self::TakeAddress(device, _) => device,
            Self::SetDown(device) | Self::SetMtu(device) | Self::RemoveDevice(device) => device,
        };
        let dev = node.kernel(node.netlink.link(device))?.index;
        match self {
            Self::Remove(_, route) => node.kernel(node.netlink.delete_route(&Route { dev, ..route.clone() })),
            Self::Misdirect(_, route) => {
                let hop = if route.dst.addr().is_ipv4() { "192.168.10.77" } else { "fd00:10::77" };
                node.kernel(node.netlink.replace_route(&Route { dev, via: Some(ip(hop)), ..route.clone() }))
            }
            Self::TakeAddress(_, address) => node.kernel(node.netlink.delete_address(dev, *address)),
            Self::SetDown(_) => node.kernel(node.netlink.set_down(dev)),
            // The least that IPv6 allows, which no backend chooses on a link of 1500 bytes.
            Self::SetMtu(_) => node.kernel(node.netlink.set_mtu(dev, 1280)),
            Self::RemoveDevice(_) => node.kernel(node.netlink.delete_link(dev)),
        }
    }
}
