//! The seam under the traits: how packets enter and leave an endpoint on this node.
//!
//! A chassis may be eBPF or plain kernel forwarding, so nothing here assumes either.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use async_trait::async_trait;
use ipnet::IpNet;

use crate::{
    routing::Path,
    values::{Carrier, EndpointId, Families, Identity, Mac},
};

/// Attaches endpoints, delivers to them, answers their neighbour traffic and owns the host device.
///
/// # Behaviour
/// - CHASSIS-1: before `attach` returns, no packet reaches or leaves the endpoint; after it, both directions work.
/// - CHASSIS-2: an endpoint can send only from its own addresses, and never to a node's tunnel port.
/// - CHASSIS-3: `apply` of the same state changes nothing; what is missing or altered is put back; endpoints that left
///   the state are detached.
/// - CHASSIS-4: `attach` of an attached endpoint and `detach` of an unknown one succeed and change nothing.
/// - CHASSIS-5: one endpoint whose device is gone does not keep the others from being attached; it is reported.
/// - CHASSIS-6: traffic of attached endpoints goes on while the agent is away and while it starts again.
/// - CHASSIS-7: every packet that is dropped is counted under its reason.
/// - CHASSIS-8: `retire` leaves no device, program, map or file of the chassis behind.
#[async_trait]
pub trait Chassis: fmt::Debug + Send + Sync + 'static {
    /// Makes the node agree with `desired`: host device, uplinks, endpoints and paths.
    ///
    /// # Errors
    /// What concerns the node as a whole; one endpoint's trouble is in the report.
    async fn apply(&self, desired: &ChassisDesired) -> Result<ChassisReport, ChassisError>;

    /// Attaches one endpoint; the fast path of CNI ADD.
    ///
    /// # Errors
    /// `NotReady` before the first `apply`; `Device` when the host end is missing.
    async fn attach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError>;

    /// Detaches one endpoint; its device may already be gone.
    ///
    /// # Errors
    /// What is left in the kernel.
    async fn detach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError>;

    /// Replaces the paths to other nodes.
    ///
    /// # Errors
    /// `NotReady` before the first `apply`; `Kernel` when a table refuses.
    async fn set_paths(&self, paths: &[Path]) -> Result<(), ChassisError>;

    /// What the kernel has: one row per address.
    ///
    /// # Errors
    /// `Kernel` when the tables cannot be read.
    async fn addresses(&self) -> Result<Vec<AddressRow>, ChassisError>;

    /// Packets and bytes per reason and direction since the tables were made.
    ///
    /// # Errors
    /// `Kernel` when the tables cannot be read.
    async fn counters(&self) -> Result<Vec<Counter>, ChassisError>;

    /// What routers on the way to other nodes said of the underlay there, in bytes, by the node's address: as long as it
    /// holds, after which the way may have become wider. None from a chassis that is told nothing.
    ///
    /// # Errors
    /// `NotReady` before the first `apply`; `Kernel` when the tables cannot be read.
    async fn told_mtus(&self) -> Result<BTreeMap<IpAddr, u32>, ChassisError> {
        Ok(BTreeMap::new())
    }

    /// Removes everything that the chassis has made on this node.
    ///
    /// # Errors
    /// What could not be removed; the rest is gone.
    async fn retire(&self) -> Result<(), ChassisError>;
}

/// The node as the chassis sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChassisDesired {
    /// The node itself.
    pub node: NodeSpec,
    /// Every endpoint by number.
    pub endpoints: BTreeMap<EndpointId, EndpointSpec>,
    /// Ways to other nodes, from the routing backends.
    pub paths: Vec<Path>,
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Families that pods use.
    pub families: Families,
    /// Every address of the node's own links, which pods reach through the stack.
    pub addresses: Vec<IpAddr>,
    /// Addresses of the other nodes: their tunnel ports are closed to pods.
    pub peer_addresses: Vec<IpAddr>,
    /// MTU of the way to those of them to which it is narrower than the uplink's, in bytes.
    pub narrow_peers: BTreeMap<IpAddr, u32>,
    /// Router addresses, which live on `cilium_host`: the first of each family is the one in use, others are kept for
    /// sockets that use them still.
    pub router: Vec<IpAddr>,
    /// The node's pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// Devices that carry traffic to other nodes.
    pub uplinks: Vec<String>,
    /// MTU of pod devices and of the underlay in bytes. What fits into a tunnel is less by the tunnel's headers, which the
    /// chassis itself takes off.
    pub device_mtu_bytes: u32,
    /// MTU of pod routes in bytes.
    pub route_mtu_bytes: u32,
    /// UDP ports of every carrier, closed to pods on every node.
    pub tunnel_ports: Vec<u16>,
    /// This node's addresses as the other nodes know it, at most one per family: sources of outer headers, and the only
    /// addresses at which tunnels are accepted.
    pub underlay: Vec<IpAddr>,
    /// Encapsulations that the node accepts and may send: at most one per carrier, and never [`Carrier::Native`]. What
    /// comes by any other is not taken apart.
    pub tunnels: Vec<Tunnel>,
}

/// An encapsulation in UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tunnel {
    /// The format.
    pub carrier: Carrier,
    /// UDP port that all nodes of the cluster use for it.
    pub port: u16,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Number on this node.
    pub id: EndpointId,
    /// Host end's name.
    pub device: String,
    /// Host end's index; checked against the name, since both can be reused.
    pub ifindex: u32,
    /// MAC of the host end.
    pub host_mac: Mac,
    /// MAC in the pod.
    pub mac: Mac,
    /// Addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// Security identity.
    pub identity: Identity,
    /// Cookie of the pod's network namespace; 0 when unknown.
    pub netns_cookie: u64,
    /// Whether it is the node's health endpoint.
    pub health: bool,
}

/// What `apply` achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChassisReport {
    /// Endpoints that could not be attached: number to reason.
    pub failed: BTreeMap<EndpointId, String>,
    /// Changes made in the kernel.
    pub changes: usize,
    /// How programs are attached, such as `TCX`; empty where there are none.
    pub attach_mode: String,
    /// For each tunnel and uplink, who puts the tunnel on and takes it off; empty where there is nothing to choose.
    pub tunnel_paths: Vec<TunnelPathReport>,
    /// What was chosen less than best, with the reason, such as a fall-back from tcx to clsact.
    pub degraded: Vec<String>,
    /// What the kernel was not ready for, with the reason: another `apply` is to follow soon, and until then things are as
    /// they were.
    pub pending: Vec<String>,
}

/// Who puts a tunnel on and takes it off, by one uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelPathReport {
    /// The tunnel.
    pub carrier: Carrier,
    /// The uplink.
    pub uplink: String,
    /// Such as `bpf`, or `device` for the kernel's own.
    pub path: &'static str,
    /// Why.
    pub reason: String,
}

/// One row of the kernel's endpoint table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRow {
    /// The address.
    pub ip: IpAddr,
    /// Whether it is the node's own.
    pub host: bool,
    /// Endpoint number; 0 for the node's own.
    pub id: u16,
    /// Security identity.
    pub identity: Identity,
    /// Flag bits as the table has them.
    pub flags: u32,
    /// Host end's index.
    pub ifindex: u32,
    /// MAC in the pod.
    pub mac: Mac,
    /// MAC of the host end.
    pub host_mac: Mac,
}

/// The first number of a drop in [`Counter::reason`], as Cilium numbers them.
const FIRST_DROP: u8 = 130;

/// Packets that shared one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// Number of the reason; 0 is "forwarded", and below 130 nothing was dropped.
    pub reason: u8,
    /// The reason in words.
    pub text: String,
    /// `ingress` or `egress`, seen from the endpoint.
    pub direction: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Counter {
    /// Whether these packets were dropped.
    #[must_use]
    pub fn is_drop(&self) -> bool {
        self.reason >= FIRST_DROP
    }
}

/// Why the chassis failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChassisError {
    /// `apply` has not yet succeeded.
    #[error("the datapath is not set up yet; the agent is still starting")]
    NotReady,
    /// A device is missing or wrong.
    #[error("device {device:?} cannot be used: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why.
        reason: String,
    },
    /// Pins of another layout are in the way.
    #[error("{path} holds maps of layout {found}, this agent writes layout {own}: {remedy}")]
    Layout {
        /// The directory.
        path: String,
        /// Found there.
        found: String,
        /// Ours.
        own: String,
        /// What to do.
        remedy: String,
    },
    /// Another agent owns this node's datapath.
    #[error("another agent (pid {pid}) runs the datapath of this node; stop it first")]
    Busy {
        /// Its process.
        pid: u32,
    },
    /// The kernel refused.
    #[error("cannot {action}")]
    Kernel {
        /// What was tried, on what.
        action: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Some things could not be removed.
    #[error("{} things could not be removed: {}", .left.len(), .left.join("; "))]
    Retire {
        /// Each with its reason.
        left: Vec<String>,
    },
}

impl ChassisError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Layout { .. })
    }
}
