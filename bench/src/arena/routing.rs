//! Plain kernel routing: a veth pair and a host route per pod, a route per node, and the kernel's forwarding.
//!
//! As a user would do it by hand, and as the reference plugin `ptp` does it for pods of one node. No netfilter rule.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_lab::{Node, UPLINK};
use kinesin_netlink::{NetNs, Netlink, Route, RouteScope, VethSpec};

use super::{MTU_BYTES, Pod, Pods, Stage};
use crate::BenchError;

/// `RTPROT_STATIC`: set by whoever runs the machine.
const PROTOCOL: u8 = 4;

/// Pod networks of a node, one a family; `prefix` tells contenders apart.
pub(super) fn pod_networks(prefix: u8, node: u8) -> [IpNet; 2] {
    let v4 = IpNet::new_assert([10, prefix, node, 0].into(), 24);
    // Digits that read like the IPv4 ones.
    let part = |number: u8| u16::from_str_radix(&number.to_string(), 16).unwrap_or_default();
    let v6 = IpNet::new_assert([0xfd00, 0x10, part(prefix), u16::from(node), 0, 0, 0, 0].into(), 64);
    [v4, v6]
}

pub(super) async fn pods(stage: &Stage) -> Result<Pods, BenchError> {
    const PREFIX: u8 = 245;
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let pods = [
        pod(&first, "rt0", PREFIX, 0, 2).await?,
        pod(&first, "rt1", PREFIX, 0, 3).await?,
        pod(&second, "rt0", PREFIX, 1, 2).await?,
    ];
    connect_nodes(stage, PREFIX).await?;
    Ok(pods)
}

/// Tells each node the way to the other's pods.
pub(super) async fn connect_nodes(stage: &Stage, prefix: u8) -> Result<(), BenchError> {
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    for (node, peer, peer_index) in [(&first, &second, 1), (&second, &first, 0)] {
        let netlink = Netlink::in_netns(&node.netns()?)?;
        let uplink = netlink.link(UPLINK).await?.index;
        for network in pod_networks(prefix, peer_index) {
            let is_family = |address: &&IpAddr| address.is_ipv4() == network.addr().is_ipv4();
            let via = peer.addresses().iter().find(is_family).copied();
            netlink.replace_route(&Route { via, ..Route::new(network, uplink, PROTOCOL) }).await?;
        }
    }
    Ok(())
}

async fn pod(node: &Node, name: &str, prefix: u8, node_index: u8, host: u8) -> Result<Pod, BenchError> {
    let netns = NetNs::anonymous()?;
    let outside = Netlink::in_netns(&node.netns()?)?;
    let inside = Netlink::in_netns(&netns)?;
    let pair = VethSpec {
        name,
        mac: None,
        peer_name: "eth0",
        peer_mac: None,
        peer_netns: Some(&netns),
        mtu: Some(u32::from(MTU_BYTES)),
    };
    outside.add_veth(&pair).await?;
    let (host_end, pod_end) = (outside.link(name).await?.index, inside.link("eth0").await?.index);
    inside.set_up(inside.link("lo").await?.index).await?;
    outside.set_up(host_end).await?;
    inside.set_up(pod_end).await?;
    let mut addresses = Vec::new();
    for network in pod_networks(prefix, node_index) {
        let (gateway, address): (IpAddr, IpAddr) = match network.addr() {
            IpAddr::V4(v4) => {
                let [a, b, c, _] = v4.octets();
                ([169, 254, 1, 1].into(), [a, b, c, host].into())
            }
            IpAddr::V6(v6) => {
                let mut segments = v6.segments();
                segments[7] = u16::from(host);
                ([0xfe80, 0, 0, 0, 0, 0, 0, 1].into(), segments.into())
            }
        };
        let everything = if address.is_ipv4() {
            IpNet::new_assert([0, 0, 0, 0].into(), 0)
        } else {
            IpNet::new_assert([0u16; 8].into(), 0)
        };
        outside.add_address(host_end, IpNet::from(gateway)).await?;
        let single = IpNet::from(address);
        inside.add_address(pod_end, single).await?;
        let direct = |to: IpNet, dev| Route { scope: RouteScope::Link, ..Route::new(to, dev, PROTOCOL) };
        inside.replace_route(&direct(IpNet::from(gateway), pod_end)).await?;
        inside.replace_route(&Route { via: Some(gateway), ..Route::new(everything, pod_end, PROTOCOL) }).await?;
        outside.replace_route(&direct(single, host_end)).await?;
        addresses.push(address);
    }
    Ok(Pod { netns: netns.into(), addresses })
}
