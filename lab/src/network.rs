//! The underlay: a bridge for each segment in a namespace of its own, which routes between them, and a cable to every node.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_netlink::{NetNs, Netlink, Route, Sysctl, VethSpec};

use crate::{LabError, process::Process};

/// A node's cable.
pub(crate) struct Cable<'a> {
    /// The node's name, which becomes that of the port.
    pub(crate) node: &'a str,
    pub(crate) segment: usize,
    pub(crate) addresses: &'a [IpNet],
    pub(crate) gateways: &'a [IpNet],
    pub(crate) mtu_bytes: u16,
}

/// The nodes' device on the underlay, as in the walk through a real cluster.
pub const UPLINK: &str = "eth1";
/// `RTPROT_STATIC`: set by whoever runs the machine.
const PROTOCOL: u8 = 4;

/// How a new namespace starts out whatever the machine has set for itself.
const SYSCTLS: [(&str, &str); 5] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_ra", "0"),
];

pub(crate) fn netns_of(process: &Process) -> Result<NetNs, LabError> {
    Ok(NetNs::open(format!("/proc/{}/ns/net", process.pid))?)
}

fn bridge_of(segment: usize) -> String {
    format!("br{segment}")
}

/// Brings a bridge up for each segment, with the gateway's addresses; what is there already stays.
pub(crate) async fn bridges(holder: &Process, segments: &[Vec<IpNet>]) -> Result<(), LabError> {
    let netns = netns_of(holder)?;
    let netlink = Netlink::in_netns(&netns)?;
    netlink.set_up(netlink.link("lo").await?.index).await?;
    if segments.len() > 1 {
        set_sysctls(&netns)?;
    }
    for (segment, gateways) in segments.iter().enumerate() {
        let name = bridge_of(segment);
        netlink.ensure_bridge(&name).await?;
        let bridge = netlink.link(&name).await?.index;
        netlink.set_up(bridge).await?;
        for gateway in gateways {
            netlink.add_address(bridge, *gateway).await?;
        }
    }
    Ok(())
}

fn set_sysctls(netns: &NetNs) -> Result<(), LabError> {
    let sysctl = Sysctl::of(netns);
    for (key, value) in SYSCTLS.iter().filter(|(key, _)| key.starts_with("ipv4") || has_ipv6()) {
        sysctl.set(key, value)?;
    }
    Ok(())
}

/// Connects a node to its segment's bridge; what is there already stays.
pub(crate) async fn connect(segment: &Process, node: &Process, cable: &Cable<'_>) -> Result<(), LabError> {
    let Cable { node: name, addresses, gateways, mtu_bytes, .. } = *cable;
    let (segment, node) = (netns_of(segment)?, netns_of(node)?);
    let (bridge_side, node_side) = (Netlink::in_netns(&segment)?, Netlink::in_netns(&node)?);
    set_sysctls(&node)?;
    node_side.set_up(node_side.link("lo").await?.index).await?;
    if node_side.find_link(UPLINK).await?.is_none() || bridge_side.find_link(name).await?.is_none() {
        // An end whose other one is gone with its namespace vanishes too, but not at once.
        node_side.delete_link_by_name(UPLINK).await?;
        bridge_side.delete_link_by_name(name).await?;
        let veth = VethSpec {
            name,
            mac: None,
            peer_name: UPLINK,
            peer_mac: Some(mac(addresses)),
            peer_netns: Some(&node),
            mtu: Some(u32::from(mtu_bytes)),
        };
        bridge_side.add_veth(&veth).await?;
    }
    let port = bridge_side.link(name).await?.index;
    bridge_side.set_master(port, bridge_side.link(&bridge_of(cable.segment)).await?.index).await?;
    bridge_side.set_up(port).await?;
    let uplink = node_side.link(UPLINK).await?.index;
    for address in addresses {
        node_side.add_address(uplink, *address).await?;
    }
    node_side.set_up(uplink).await?;
    for gateway in gateways {
        let everything = if gateway.addr().is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        // Both texts are constants that parse.
        if let Ok(everything) = everything.parse() {
            let route = Route { via: Some(gateway.addr()), ..Route::new(everything, uplink, PROTOCOL) };
            node_side.replace_route(&route).await?;
        }
    }
    Ok(())
}

/// The Ethernet address of a node's device: locally administered, and the same after a restart, as that of a real card,
/// since its neighbours remember it.
fn mac(addresses: &[IpNet]) -> [u8; 6] {
    let host = match addresses.first().map(IpNet::addr) {
        Some(IpAddr::V4(address)) => address.octets()[3],
        // Digits that read like the IPv4 host part, so they are taken back to it.
        Some(IpAddr::V6(address)) => format!("{:x}", address.segments()[7]).parse().unwrap_or_default(),
        None => 0,
    };
    [0x02, 0, 192, 168, 10, host]
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Families, spec::node_addresses};

    #[test]
    fn ethernet_address_is_the_nodes_own_in_every_family() {
        for index in [0, 1, 99] {
            let of = |families| mac(&node_addresses(families, 1, index));
            let last = 100 + u8::try_from(index).expect("small");
            assert_eq!(of(Families::Ipv4), [0x02, 0, 192, 168, 10, last]);
            assert_eq!((of(Families::Ipv6), of(Families::Dual)), (of(Families::Ipv4), of(Families::Ipv4)));
        }
    }
}
