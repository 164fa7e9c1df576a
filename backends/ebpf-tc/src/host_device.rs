//! The node's own pair of devices, its routes to local pods, and the sysctls that forwarding needs.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::chassis::NodeSpec;
use kinesin_netlink::{
    Link, Mirror, MirrorSpec, Netlink, NetlinkError, Route, RouteScope, Sysctl, SysctlError, TABLE_MAIN, VethSpec,
};

/// The device that holds the router addresses.
pub(crate) const HOST: &str = "cilium_host";
/// Its peer.
pub(crate) const NET: &str = "cilium_net";

/// `RTPROT_KERNEL`, as the reference shows its routes (6.8).
const PROTOCOL: u8 = 2;

/// How long it is waited for a router's IPv6 address to be received: usually that takes microseconds, and CNI waits too.
const RECEIVED_WITHIN: Duration = Duration::from_millis(50);

/// What [`prepare`] came to.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// `cilium_host`.
    pub(crate) host: Link,
    /// The node as it can be now: while a router address is not received yet, those that it replaces stay before it, and
    /// then once more behind it.
    pub(crate) node: NodeSpec,
    /// Router addresses that are not received yet, by which nothing may lead.
    pub(crate) deaf: Vec<Ipv6Addr>,
    pub(crate) changes: usize,
}

/// Makes and repairs both devices and adds router addresses.
///
/// Nothing leads by a new address before [`finish`], which is for when the tables know it: pods could not answer it.
/// `was_deaf` are the addresses that were not received when this was last called: [`finish`] leads by them only now, so what
/// they replace stays once more, for answers that are on their way.
pub(crate) async fn prepare(
    netlink: &Netlink,
    node: &NodeSpec,
    was_deaf: &[Ipv6Addr],
) -> Result<Prepared, NetlinkError> {
    let mut changes = 0;
    let host = pair(netlink, node.device_mtu_bytes, &mut changes).await?;
    let former = netlink.addresses_of(host.index).await?;
    add_addresses(netlink, &host, &node.router, &mut changes).await?;
    let mut deaf = Vec::new();
    for address in &node.router {
        if let IpAddr::V6(address) = address {
            // From `finish` on the node speaks to pods from this address, and must hear their answers.
            if !netlink.is_received(*address, RECEIVED_WITHIN).await? {
                deaf.push(*address);
            }
        }
    }
    let mut node = node.clone();
    let is_kept = |net: &IpNet| net.addr().is_ipv6() && !is_link_local(net) && !node.router.contains(&net.addr());
    let kept: Vec<IpAddr> = former.iter().filter(|net| is_kept(net)).map(IpNet::addr).collect();
    if !deaf.is_empty() {
        node.router.splice(0..0, kept);
    } else if node.router.iter().any(|ip| was_deaf.iter().any(|deaf| *ip == IpAddr::V6(*deaf))) {
        node.router.extend(kept);
    }
    Ok(Prepared { host, node, deaf, changes })
}

/// Makes and repairs the routes, then removes router addresses that are left; the answer is the number of changes. The
/// kernel's routes are known from one call to the next (`followed`): most of them lead to other nodes.
///
/// In this order: with an address the kernel takes every IPv4 route whose source it is (`fib_sync_down_addr`), and pods
/// would be out of reach until those by the new address were there.
pub(crate) async fn finish(
    netlink: &Netlink,
    followed: &mut Option<Mirror>,
    prepared: &Prepared,
) -> Result<usize, NetlinkError> {
    let mirror = match followed {
        Some(mirror) => mirror,
        None => followed.insert(Mirror::new(MirrorSpec { keep: is_ours, ..MirrorSpec::default() })?),
    };
    mirror.distrust();
    mirror.look().await?;
    let Prepared { host, node, deaf, .. } = prepared;
    let mut changes = 0;
    let mut hearing = node.clone();
    hearing.router.retain(|ip| !deaf.iter().any(|deaf| *ip == IpAddr::V6(*deaf)));
    routes(netlink, mirror, host, node, &wanted_routes(host.index, &hearing), &mut changes).await?;
    remove_addresses(netlink, host, &node.router, &mut changes).await?;
    Ok(changes)
}

/// Removes both devices, and with them their addresses and routes.
pub(crate) async fn remove(netlink: &Netlink) -> Result<(), NetlinkError> {
    netlink.delete_link_by_name(HOST).await?;
    netlink.delete_link_by_name(NET).await.map(drop)
}

async fn pair(netlink: &Netlink, mtu: u32, changes: &mut usize) -> Result<Link, NetlinkError> {
    let found = (netlink.find_link(HOST).await?, netlink.find_link(NET).await?);
    if let (Some(host), Some(net)) = &found {
        if host.peer_index != Some(net.index) {
            // Two devices that are no pair: what an interrupted or foreign set-up left.
            remove(netlink).await?;
        }
    } else {
        remove(netlink).await?;
    }
    if netlink.find_link(HOST).await?.is_none() {
        let spec = VethSpec { name: HOST, mac: None, peer_name: NET, peer_mac: None, peer_netns: None, mtu: Some(mtu) };
        netlink.add_veth(&spec).await?;
        *changes += 1;
    }
    for name in [NET, HOST] {
        let link = netlink.link(name).await?;
        if link.mtu != mtu {
            netlink.set_mtu(link.index, mtu).await?;
            *changes += 1;
        }
        if !link.noarp {
            // Nobody on this pair answers: `from_host` addresses every packet itself.
            netlink.set_noarp(link.index).await?;
            *changes += 1;
        }
        if !link.up {
            netlink.set_up(link.index).await?;
            *changes += 1;
        }
    }
    netlink.link(HOST).await
}

async fn add_addresses(
    netlink: &Netlink,
    host: &Link,
    router: &[IpAddr],
    changes: &mut usize,
) -> Result<(), NetlinkError> {
    let actual = netlink.addresses_of(host.index).await?;
    for address in router.iter().copied().map(IpNet::from).filter(|address| !actual.contains(address)) {
        netlink.add_address(host.index, address).await?;
        *changes += 1;
    }
    Ok(())
}

async fn remove_addresses(
    netlink: &Netlink,
    host: &Link,
    router: &[IpAddr],
    changes: &mut usize,
) -> Result<(), NetlinkError> {
    let actual = netlink.addresses_of(host.index).await?;
    let is_old = |net: &IpNet| !is_link_local(net) && !router.contains(&net.addr());
    for old in actual.into_iter().filter(is_old) {
        netlink.delete_address(host.index, old).await?;
        *changes += 1;
    }
    Ok(())
}

fn is_link_local(net: &IpNet) -> bool {
    // fe80::/10 (RFC 4291 section 2.5.6): the kernel's own.
    matches!(net.addr(), IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}

async fn routes(
    netlink: &Netlink,
    mirror: &Mirror,
    host: &Link,
    node: &NodeSpec,
    desired: &[Route],
    changes: &mut usize,
) -> Result<(), NetlinkError> {
    let actual = mirror.routes();
    for route in desired {
        // IPv6 routes get a metric from the kernel; the rest must agree.
        let same = |found: &&Route| Route { metric: route.metric, ..(*found).clone() } == *route;
        if !actual.iter().any(|found| same(&found)) {
            netlink.replace_route(route).await?;
            *changes += 1;
        }
    }
    for old in actual.iter().filter(|found| found.dev == host.index) {
        let kept = desired.iter().any(|route| route.dst == old.dst) || is_link_local(&old.dst) || is_own(old, node);
        if !kept {
            netlink.delete_route(old).await?;
            *changes += 1;
        }
    }
    Ok(())
}

/// Whether a route on `cilium_host` is of the chassis' own making. A routing backend has routes to other nodes' pods there,
/// with another protocol or with an MTU, which those to the node's own pods never have.
fn is_ours(route: &Route) -> bool {
    route.table == TABLE_MAIN && route.protocol == PROTOCOL && route.mtu.is_none()
}

/// The route that the kernel makes for an address of its own.
fn is_own(route: &Route, node: &NodeSpec) -> bool {
    node.router.contains(&route.dst.addr()) && route.dst.prefix_len() == route.dst.max_prefix_len()
}

fn wanted_routes(host: u32, node: &NodeSpec) -> Vec<Route> {
    let mut routes = Vec::new();
    for (index, router) in node.router.iter().enumerate() {
        // Routes to pods go by the first address of a family; another one is only kept for sockets that use it.
        let is_first = !node.router[..index].iter().any(|other| other.is_ipv4() == router.is_ipv4());
        let cidrs = node.pod_cidrs.iter().filter(|cidr| is_first && cidr.addr().is_ipv4() == router.is_ipv4());
        if router.is_ipv4() {
            routes.push(Route { scope: RouteScope::Link, ..Route::new(IpNet::from(*router), host, PROTOCOL) });
        }
        for cidr in cidrs {
            // IPv6 refuses a gateway that is an own address; the device resolves no neighbours anyway.
            let via = router.is_ipv4().then_some(*router);
            routes.push(Route { via, src: Some(*router), ..Route::new(*cidr, host, PROTOCOL) });
        }
    }
    routes
}

/// Switches on what forwarding between pods, host and network needs; the answer names each change.
pub(crate) fn forwarding(node: &NodeSpec) -> Result<Vec<String>, SysctlError> {
    let mut changed = Vec::new();
    if node.families.v4 {
        set("ipv4/ip_forward", "1", &mut changed)?;
        // The stricter of `all` and the device wins (ip-sysctl.rst): a pod's packet comes in on a device to which no
        // route leads, since the route goes by `cilium_host`.
        set("ipv4/conf/all/rp_filter", "0", &mut changed)?;
        for device in [HOST, NET] {
            set(&format!("ipv4/conf/{device}/rp_filter"), "0", &mut changed)?;
        }
    }
    if node.families.v6 {
        set("ipv6/conf/all/forwarding", "1", &mut changed)?;
    }
    Ok(changed)
}

/// What the host end of a pod needs.
pub(crate) fn endpoint(device: &str, node: &NodeSpec) -> Result<(), SysctlError> {
    if node.families.v4 {
        set(&format!("ipv4/conf/{device}/rp_filter"), "0", &mut Vec::new())?;
    }
    Ok(())
}

fn set(key: &str, value: &str, changed: &mut Vec<String>) -> Result<(), SysctlError> {
    if Sysctl::here().set(key, value)? {
        changed.push(format!("net.{}={value}", key.replace('/', ".")));
    }
    Ok(())
}
