//! The node's health endpoint: a namespace of the agent's own behind `lxc_health`, with a responder on TCP.
//!
//! It is attached like a pod, so whoever reaches it has crossed the whole datapath. The namespace ends with the agent;
//! the next one makes another with the same addresses. ICMP is answered by the kernel.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use ipnet::IpNet;
use kinesin_agent_api::types::{
    AddressPair, Endpoint, EndpointChangeRequest, EndpointIdentity, EndpointNetworking, EndpointState, EndpointStatus,
};
use kinesin_core::{
    chassis::EndpointSpec,
    ipam::Owner,
    values::{Family, Identity, Mac},
};
use kinesin_netlink::{Link, NetNs, Netlink, NetlinkError, Route, RouteScope, VethSpec};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connectivity::answer_hello,
    engine::{Engine, EngineError, State},
};

/// The host end, as Cilium names it.
pub(crate) const DEVICE: &str = "lxc_health";
/// The end in the namespace.
const INSIDE: &str = "cilium";
/// `RTPROT_STATIC`.
const PROTOCOL: u8 = 4;

/// A running health endpoint.
#[derive(Debug)]
pub(crate) struct HealthEndpoint {
    /// What the chassis knows of it.
    pub(crate) spec: EndpointSpec,
    /// Where it is.
    pub(crate) netns: Arc<NetNs>,
    _responders: Vec<AbortOnDropHandle<()>>,
}

impl HealthEndpoint {
    /// As the REST API shows it: like a pod's, but without a container.
    pub(crate) fn view(&self, engine: &Engine) -> Endpoint {
        let snapshots = engine.backends.ipam.snapshots();
        let leases = snapshots.iter().flat_map(|(_, snapshot)| snapshot.leases.values());
        let leased: Vec<_> =
            leases.filter(|lease| lease.owner == Owner::Health).flat_map(|lease| &lease.addresses).collect();
        let pool = |ip| leased.iter().find(|found| found.ip == ip).map(|found| found.block.pool.clone());
        let addressing =
            self.spec.addresses.iter().map(|ip| AddressPair { ip: *ip, pool: pool(*ip).unwrap_or_default() });
        Endpoint {
            id: self.spec.id.0,
            spec: EndpointChangeRequest {
                interface_name: self.spec.device.clone(),
                interface_index: self.spec.ifindex,
                host_mac: self.spec.host_mac.to_string(),
                mac: self.spec.mac.to_string(),
                netns_cookie: self.spec.netns_cookie,
                ..EndpointChangeRequest::default()
            },
            status: EndpointStatus {
                state: EndpointState::Ready,
                message: String::new(),
                networking: EndpointNetworking { addressing: addressing.collect(), ..EndpointNetworking::default() },
                identity: EndpointIdentity { id: Identity::HEALTH.0, labels: vec!["reserved:health".to_owned()] },
                restored: false,
            },
        }
    }
}

/// Makes the health endpoint, or makes it anew when its device or its addresses have changed.
pub(crate) async fn apply(engine: &Engine, state: &mut State, addresses: &[IpAddr]) -> Result<(), EngineError> {
    let netlink = Netlink::new()?;
    let datapath = state.datapath(&engine.controllers)?;
    let (router, mtu) = (datapath.gateways(), datapath.device_mtu_bytes);
    if let Some(found) = &state.health {
        let device = netlink.find_link(DEVICE).await?;
        let is_there = |link: &Link| link.index == found.spec.ifindex && link.up;
        if let Some(link) = device.filter(is_there).filter(|_| found.spec.addresses == addresses) {
            if link.mtu != mtu {
                let inside = Netlink::in_netns(&found.netns)?;
                inside.set_mtu(inside.link(INSIDE).await?.index, mtu).await?;
                netlink.set_mtu(link.index, mtu).await?;
            }
            return Ok(());
        }
    }
    remove(engine, state).await?;
    let id = state.free_number()?;

    let netns = NetNs::anonymous()?;
    let host = pair(&netlink, &netns, mtu).await?;
    let inside = Netlink::in_netns(&netns)?;
    let pod = inside.link(INSIDE).await?;
    let spec = EndpointSpec {
        id,
        device: DEVICE.to_owned(),
        ifindex: host.index,
        host_mac: Mac(host.mac),
        mac: Mac(pod.mac),
        addresses: addresses.to_vec(),
        identity: Identity::HEALTH,
        netns_cookie: netns.cookie().unwrap_or(0),
        health: true,
    };
    // As for a pod: the datapath is complete before the links are up.
    engine.backends.chassis.attach(&spec).await?;
    configure(&inside, &pod, addresses, &router).await?;
    netlink.set_up(host.index).await?;
    let responders = respond(&netns, addresses, engine.config.health.port)?;
    state.health = Some(HealthEndpoint { spec, netns: Arc::new(netns), _responders: responders });
    Ok(())
}

/// Removes the health endpoint, also one of an earlier run.
pub(crate) async fn remove(engine: &Engine, state: &mut State) -> Result<(), EngineError> {
    if let Some(old) = state.health.take() {
        engine.backends.chassis.detach(&old.spec).await?;
    }
    Netlink::new()?.delete_link_by_name(DEVICE).await?;
    Ok(())
}

async fn pair(netlink: &Netlink, netns: &NetNs, mtu: u32) -> Result<Link, NetlinkError> {
    let spec = VethSpec {
        name: DEVICE,
        mac: None,
        peer_name: INSIDE,
        peer_mac: None,
        peer_netns: Some(netns),
        mtu: Some(mtu),
    };
    netlink.add_veth(&spec).await?;
    netlink.link(DEVICE).await
}

async fn configure(inside: &Netlink, pod: &Link, addresses: &[IpAddr], router: &[IpAddr]) -> Result<(), NetlinkError> {
    let lo = inside.link("lo").await?;
    inside.set_up(lo.index).await?;
    for address in addresses {
        inside.add_address(pod.index, IpNet::from(*address)).await?;
    }
    inside.set_up(pod.index).await?;
    for hop in router {
        let everything = match Family::of(hop) {
            Family::V4 => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
            Family::V6 => IpNet::new_assert(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let to_hop = Route { scope: RouteScope::Link, ..Route::new(IpNet::from(*hop), pod.index, PROTOCOL) };
        inside.replace_route(&to_hop).await?;
        inside.replace_route(&Route { via: Some(*hop), ..Route::new(everything, pod.index, PROTOCOL) }).await?;
    }
    Ok(())
}

/// Answers `GET /hello` on every address.
fn respond(netns: &NetNs, addresses: &[IpAddr], port: u16) -> Result<Vec<AbortOnDropHandle<()>>, EngineError> {
    let mut responders = Vec::new();
    for address in addresses {
        let listening = SocketAddr::new(*address, port);
        let failed = |source| NetlinkError::Namespace { action: format!("listen on {listening}"), source };
        let listener = netns.run(|| TcpListener::bind(listening))?.map_err(failed)?;
        responders.push(answer_hello(listener).map_err(failed)?);
    }
    Ok(responders)
}
