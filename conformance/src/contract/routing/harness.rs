//! A node for one implementation of [`Routing`]: a network namespace with an uplink, and an observer of its kernel.

use std::{cell::RefCell, net::IpAddr, path, sync::Arc};

use ipnet::IpNet;
use kinesin_core::{
    capability::Capability,
    registry::{BuildContext, BuildError, RoutingBackend},
    routing::{LocalNode, Path, Peer, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Families, Family},
};
use kinesin_netlink::{NetNs, Netlink, NetlinkError, Sysctl, VethSpec};

use super::{view::View, watch::Watch};
use crate::{
    contract::workbench::{Maker, NETWORK_NAMESPACES, Waiter, directory, leftovers},
    outcome::{Judged, Stop},
};

/// Name of the nodes' uplink.
pub(super) const UPLINK: &str = "eth0";
/// Name of the chassis' device, by which the node's own stack reaches pods.
pub(super) const HOST_DEVICE: &str = "cilium_host";
/// The addresses that it has.
const ROUTER: [&str; 2] = ["10.244.0.1/32", "fd00:244::1/128"];

/// How instances of one implementation are made.
#[derive(Debug)]
pub struct Harness(Maker<dyn Routing>);

impl Harness {
    /// Of a registered backend, with its section at its defaults.
    #[must_use]
    pub fn of(backend: &'static RoutingBackend) -> Self {
        Self::new(backend.name, backend.provides, backend.build)
    }

    /// Of an implementation that is in no registry, by its name and what it provides.
    pub fn new(
        name: &str,
        provides: &[Capability],
        make: impl Fn(&BuildContext) -> Result<Arc<dyn Routing>, BuildError> + Send + Sync + 'static,
    ) -> Self {
        Self(Maker::new(name, provides, make))
    }

    /// Runs a case on a fresh node, in a thread within its namespace.
    pub(super) fn on_node<T: Send>(&self, case: impl FnOnce(&Node<'_>) -> Result<T, Stop> + Send) -> Result<T, Stop> {
        let families = self.0.families()?;
        let netns = NetNs::anonymous()
            .map_err(|error| Stop::Missing { feature: NETWORK_NAMESPACES, reason: error.to_string() })?;
        let state = directory()?;
        let on_node = || case(&Node::new(&self.0, families, state.path())?);
        // A panic of the implementation is told here as one of the thread.
        netns.run(on_node).map_err(|error| Stop::broken(format!("the case ended early: {error}")))?
    }
}

/// A node with one uplink, on 192.168.10.0/24 and fd00:10::/64; only to be used in its own thread.
#[derive(Debug)]
pub(super) struct Node<'a> {
    maker: &'a Maker<dyn Routing>,
    pub(super) families: Families,
    state: &'a path::Path,
    waiter: Waiter,
    pub(super) netlink: Netlink,
    watch: RefCell<Watch>,
}

impl<'a> Node<'a> {
    fn new(maker: &'a Maker<dyn Routing>, families: Families, state: &'a path::Path) -> Result<Self, Stop> {
        let waiter = Waiter::new()?;
        let (netlink, watch) = waiter
            .wait("netlink", async {
                let netlink = Netlink::new().map_err(|error| error.to_string())?;
                make_uplink(&netlink).await.map_err(|error| error.to_string())?;
                make_host_device(&netlink).await.map_err(|error| error.to_string())?;
                let known = netlink.addresses().await.map_err(|error| error.to_string())?;
                let watch = Watch::start(known.into_iter().collect()).map_err(|error| error.to_string())?;
                Ok::<_, String>((netlink, RefCell::new(watch)))
            })?
            .map_err(|error| Stop::broken(format!("the suite cannot set a node up: {error}")))?;
        Ok(Self { maker, families, state, waiter, netlink, watch })
    }

    /// An instance, as each run of the agent makes one.
    pub(super) fn start(&self) -> Result<Arc<dyn Routing>, Stop> {
        self.maker.start(self.families, self.state, &serde_json::Map::new())
    }

    /// What the implementation answers.
    pub(super) fn apply(&self, routing: &dyn Routing, desired: &RoutingDesired) -> Result<RoutingReport, Stop> {
        let report = self.waiter.wait("apply", routing.apply(desired))?;
        report.map_err(|error| Stop::broken(format!("apply failed on a node whose uplink is up: {}", told(&error))))
    }

    /// What the implementation answers; none if it fails for the node as a whole.
    ///
    /// Random clusters have odd peers, and that these must not fail the others is ROUTING-5 and nothing else.
    pub(super) fn try_apply(
        &self,
        routing: &dyn Routing,
        desired: &RoutingDesired,
    ) -> Result<Option<RoutingReport>, Stop> {
        Ok(self.waiter.wait("apply", routing.apply(desired))?.ok())
    }

    /// What the implementation answers; none if it tells no paths, or fails for the node as a whole.
    pub(super) fn plan(&self, routing: &dyn Routing, desired: &RoutingDesired) -> Result<Option<Vec<Path>>, Stop> {
        Ok(self.waiter.wait("plan", routing.plan(desired))?.ok().flatten())
    }

    pub(super) fn retire(&self, routing: &dyn Routing) -> Judged {
        let retired = self.waiter.wait("retire", routing.retire())?;
        retired.map_err(|error| Stop::broken(format!("retire failed: {}", told(&error))))
    }

    /// What the kernel has.
    pub(super) fn view(&self) -> Result<View, Stop> {
        self.kernel(View::read(&self.netlink))
    }

    /// What has changed in the kernel since the last call.
    pub(super) fn changes(&self) -> Result<Vec<String>, Stop> {
        // The case runs in this thread alone, so nobody else borrows while it waits.
        let mut watch = self.watch.borrow_mut();
        let changes = self.waiter.wait("netlink", watch.changes())?;
        changes.map_err(|error| Stop::broken(format!("the suite cannot watch the kernel: {error}")))
    }

    /// Waits for a request of the case's own.
    pub(super) fn kernel<T>(&self, answer: impl Future<Output = Result<T, NetlinkError>>) -> Result<T, Stop> {
        self.waiter.wait("netlink", answer)?.map_err(|error| Stop::broken(format!("the suite {error}")))
    }

    /// Files in the state directory.
    pub(super) fn files(&self) -> Result<Vec<String>, Stop> {
        leftovers(self.state)
    }

    /// The cluster with these peers, as far as their families are served.
    pub(super) fn cluster(&self, peers: &[(&str, Peer)]) -> RoutingDesired {
        let mut desired = RoutingDesired {
            local: LocalNode {
                name: "local".to_owned(),
                created_unix_seconds: None,
                families: self.families,
                addresses: vec![ip("192.168.10.100"), ip("fd00:10::100")],
                pod_cidrs: vec![net("10.244.0.0/24"), net("fd00:244::/64")],
                uplinks: vec![UPLINK.to_owned()],
                host_device: HOST_DEVICE.to_owned(),
                router: ROUTER.map(|address| net(address).addr()).to_vec(),
                mtu_bytes: 1500,
            },
            peers: peers.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect(),
        };
        let served = |net: &IpNet| self.families.contains(Family::of_net(net));
        desired.local.pod_cidrs.retain(served);
        desired.local.router.retain(|ip| self.families.contains(Family::of(ip)));
        desired.peers.values_mut().for_each(|peer| peer.pod_cidrs.retain(served));
        desired
    }
}

async fn make_uplink(netlink: &Netlink) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Whether an address is free is asked of nobody, so that the answer comes at once.
    Sysctl::here().set("ipv6/conf/default/accept_dad", "0")?;
    let spec = VethSpec { name: UPLINK, mac: None, peer_name: "wire", peer_mac: None, peer_netns: None, mtu: None };
    netlink.add_veth(&spec).await?;
    for name in ["lo", UPLINK, "wire"] {
        netlink.set_up(netlink.link(name).await?.index).await?;
    }
    let uplink = netlink.link(UPLINK).await?.index;
    for address in ["192.168.10.100/24", "fd00:10::100/64"] {
        netlink.add_address(uplink, net(address)).await?;
    }
    Ok(())
}

/// The host device as a chassis makes it: a pair on which nobody is asked for neighbours.
async fn make_host_device(netlink: &Netlink) -> Result<(), NetlinkError> {
    let peer_name = "cilium_net";
    let spec = VethSpec { name: HOST_DEVICE, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
    netlink.add_veth(&spec).await?;
    for name in [HOST_DEVICE, peer_name] {
        let index = netlink.link(name).await?.index;
        netlink.set_noarp(index).await?;
        netlink.set_up(index).await?;
    }
    let index = netlink.link(HOST_DEVICE).await?.index;
    for address in ROUTER {
        netlink.add_address(index, net(address)).await?;
    }
    Ok(())
}

/// An error with its cause.
fn told(error: &RoutingError) -> String {
    let source = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{source}")
}

/// Another node on the same segment, by its number; both families.
pub(super) fn peer(number: u8) -> Peer {
    Peer {
        addresses: vec![ip(&format!("192.168.10.{number}")), ip(&format!("fd00:10::{number}"))],
        pod_cidrs: vec![net(&format!("10.244.{number}.0/24")), net(&format!("fd00:244:{number}::/64"))],
        ..Peer::default()
    }
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().expect("the cases write networks")
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("the cases write addresses")
}
