//! What flannel's backend `vxlan` sets up: one VXLAN device a node and family, and for each other node a route, a neighbour
//! and a forwarding entry; pods by the reference plugins, which flannel's own plugin calls.
//!
//! Devices and entries are those of flannel's `pkg/backend/vxlan/device.go` and `vxlan_network.go` : VNI 1, port
//! 8472, no learning, the node's own subnet address on the device with a prefix of one address, the peer's subnet by the
//! peer's such address `onlink`, both tables filled permanently, so that nothing is flooded or resolved. No masquerading,
//! as for the other contenders.

use std::{io, net::IpAddr, path::Path as FilePath};

use ipnet::IpNet;
use kinesin_lab::UPLINK;
use kinesin_netlink::{Link, NetNs, Netlink, Route, Sysctl};
use rtnetlink::{Handle, LinkVxlan, packet_route::neighbour::NeighbourFlags};
use serde_json::json;

use super::{MTU_BYTES, Pods, Stage, bridge, routing};
use crate::{BenchError, cni::Network};

const PREFIX: u8 = 248;
/// The bridge beside that of the contender `bridge`, which flannel calls `cni0` too.
const BRIDGE: &str = "cni1";
const VNI: u32 = 1;
/// Linux's own number for VXLAN, older than IANA's 4789; flannel keeps it.
const PORT: u16 = 8472;
/// `RTPROT_STATIC`.
const PROTOCOL: u8 = 4;
/// Outer IPv4 (20), UDP (8) and VXLAN (8) headers and the inner Ethernet header (14), RFC 7348 section 5.
const OVERHEAD_V4_BYTES: u16 = 50;
/// The same with an outer IPv6 header (40).
const OVERHEAD_V6_BYTES: u16 = 70;

/// A node's device of one family.
struct Vtep {
    link: Link,
    /// On the underlay.
    outer: IpAddr,
    /// The node's pods.
    network: IpNet,
}

pub(super) async fn pods(stage: &Stage, cni_dir: &FilePath) -> Result<Pods, BenchError> {
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let networks = [on_node(stage, cni_dir, 0)?, on_node(stage, cni_dir, 1)?];
    let mut vteps = Vec::new();
    for (index, node) in [(0, &first), (1, &second)] {
        let netns = node.netns()?;
        let mut own = Vec::new();
        for network in routing::pod_networks(PREFIX, index) {
            let same = |address: &&IpAddr| address.is_ipv4() == network.addr().is_ipv4();
            let outer = node.addresses().iter().find(same).copied();
            let outer =
                outer.ok_or_else(|| BenchError::Scene(format!("{} has no address for {network}", node.name())))?;
            own.push(vtep(&netns, outer, network).await?);
        }
        vteps.push((netns, own));
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let (netns, own) = &vteps[here];
        for (device, peer) in own.iter().zip(&vteps[there].1) {
            lead(netns, device, peer).await?;
        }
    }
    bridge::attach(networks, "fl")
}

/// As flannel's plugin writes it for `bridge`, with the MTU that flanneld found.
fn on_node(stage: &Stage, cni_dir: &FilePath, index: u8) -> Result<Network, BenchError> {
    let mut network = bridge::on_node(stage, cni_dir, index, PREFIX)?;
    let changes = json!({
        "name": "bench-flannel",
        "bridge": BRIDGE,
        "mtu": MTU_BYTES - OVERHEAD_V4_BYTES,
        "hairpinMode": true,
    });
    if let (Some(conf), Some(changes)) = (network.conf.as_object_mut(), changes.as_object()) {
        conf.extend(changes.clone());
    }
    Ok(network)
}

/// Makes the device of one family.
async fn vtep(netns: &NetNs, outer: IpAddr, network: IpNet) -> Result<Vtep, BenchError> {
    let netlink = Netlink::in_netns(netns)?;
    let (name, mtu) = match outer {
        IpAddr::V4(_) => ("flannel.1", MTU_BYTES - OVERHEAD_V4_BYTES),
        IpAddr::V6(_) => ("flannel-v6.1", MTU_BYTES - OVERHEAD_V6_BYTES),
    };
    let device = LinkVxlan::new(name, VNI).dev(netlink.link(UPLINK).await?.index).port(PORT).learning(false);
    let device = match outer {
        IpAddr::V4(outer) => device.local(outer),
        IpAddr::V6(outer) => device.local6(outer),
    };
    let request = handle(netns)?.link().add(device.mtu(u32::from(mtu)).build());
    request.execute().await.map_err(refused(format!("make the VXLAN device {name}")))?;
    let link = netlink.link(name).await?;
    // Nobody announces routers in there.
    Sysctl::of(netns).set(&format!("ipv6/conf/{name}/accept_ra"), "0")?;
    netlink.add_address(link.index, IpNet::from(network.addr())).await?;
    netlink.set_up(link.index).await?;
    Ok(Vtep { link, outer, network })
}

/// Tells a node the way to the other's pods, as flanneld does when a node's subnet appears.
async fn lead(netns: &NetNs, device: &Vtep, peer: &Vtep) -> Result<(), BenchError> {
    let netlink = Netlink::in_netns(netns)?;
    let (index, gateway) = (device.link.index, peer.network.addr());
    netlink.set_neighbour(index, gateway, peer.link.mac).await?;
    let forwarding = handle(netns)?.neighbours().add_bridge(index, &peer.link.mac);
    let forwarding = forwarding.destination(peer.outer).flags(NeighbourFlags::Own).replace();
    forwarding.execute().await.map_err(refused(format!("set the forwarding entry of {}", peer.outer)))?;
    let route = Route { via: Some(gateway), onlink: true, ..Route::new(peer.network, index, PROTOCOL) };
    Ok(netlink.replace_route(&route).await?)
}

/// A socket for what [`Netlink`] has no words for.
fn handle(netns: &NetNs) -> Result<Handle, BenchError> {
    let runtime = tokio::runtime::Handle::current();
    let opened = netns.run(move || {
        let _inside = runtime.enter();
        rtnetlink::new_connection().map(|(connection, handle, _)| {
            // Ends with the last handle.
            tokio::spawn(connection);
            handle
        })
    })?;
    opened.map_err(BenchError::io("open a netlink socket"))
}

fn refused(action: String) -> impl FnOnce(rtnetlink::Error) -> BenchError {
    |error| BenchError::Io { action, source: io::Error::other(error.to_string()) }
}
