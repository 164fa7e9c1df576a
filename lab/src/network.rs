//! The underlay: a bridge in a namespace of its own, and a cable from it to every node.

use ipnet::IpNet;
use kinesin_netlink::{NetNs, Netlink, Route, Sysctl, VethSpec};

use crate::{LabError, process::Process};

const BRIDGE: &str = "br0";
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

/// Brings the bridge up with the gateway's addresses; what is there already stays.
pub(crate) async fn bridge(segment: &Process, gateways: &[IpNet]) -> Result<(), LabError> {
    let netlink = Netlink::in_netns(&netns_of(segment)?)?;
    netlink.set_up(netlink.link("lo").await?.index).await?;
    netlink.ensure_bridge(BRIDGE).await?;
    let bridge = netlink.link(BRIDGE).await?.index;
    netlink.set_up(bridge).await?;
    for gateway in gateways {
        netlink.add_address(bridge, *gateway).await?;
    }
    Ok(())
}

/// Connects a node to the bridge; what is there already stays.
pub(crate) async fn connect(
    segment: &Process,
    node: &Process,
    name: &str,
    addresses: &[IpNet],
    gateways: &[IpNet],
    mtu_bytes: u16,
) -> Result<(), LabError> {
    let (segment, node) = (netns_of(segment)?, netns_of(node)?);
    let (bridge_side, node_side) = (Netlink::in_netns(&segment)?, Netlink::in_netns(&node)?);
    let sysctl = Sysctl::of(&node);
    for (key, value) in SYSCTLS.iter().filter(|(key, _)| key.starts_with("ipv4") || has_ipv6()) {
        sysctl.set(key, value)?;
    }
    node_side.set_up(node_side.link("lo").await?.index).await?;
    if node_side.find_link(UPLINK).await?.is_none() {
        // A port whose other end is gone vanishes with it, but not at once.
        bridge_side.delete_link_by_name(name).await?;
        let cable = VethSpec {
            name,
            mac: None,
            peer_name: UPLINK,
            peer_mac: None,
            peer_netns: Some(&node),
            mtu: Some(u32::from(mtu_bytes)),
        };
        bridge_side.add_veth(&cable).await?;
    }
    let port = bridge_side.link(name).await?.index;
    bridge_side.set_master(port, bridge_side.link(BRIDGE).await?.index).await?;
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

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}
