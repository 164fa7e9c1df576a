//! What the cluster cases run on.
//!
//! A target says what it can do. A case that needs more is skipped under the name of what is missing, never passed.

mod agents;
mod inside;
mod kube;
mod lab;

use std::{fmt, net::IpAddr};

use ::kube::Client;
use ipnet::IpNet;
use kinesin_core::values::Families;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

pub use inside::Inside;
pub use kube::{KubeOptions, KubeTarget};
pub use lab::LabTarget;

use crate::cluster::{Stop, worker::Hands};

/// Something that not every target can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TargetCapability {
    /// Two nodes or more.
    TwoNodes,
    /// Start the agents again by deleting their pods.
    RestartAgent,
    /// End an agent by signal.
    KillAgent,
    /// Cut a node off and start it again.
    RestartNode,
    /// Change the MTU of a node's device on the underlay.
    ChangeMtu,
    /// Nodes have so few addresses that they come back soon.
    SmallPodRanges,
    /// Pods have addresses of their Node's `spec.podCIDRs`.
    NodePodCidrs,
    /// Pods have addresses of blocks that an operator gives to their node.
    GivenPodCidrs,
    /// The cluster is there for the case alone: its settings are the case's, and can be changed.
    OwnLab,
    /// End plugins and the API server by signal, and count what nodes hold.
    ReachInside,
}

impl TargetCapability {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::TwoNodes,
        Self::RestartAgent,
        Self::KillAgent,
        Self::RestartNode,
        Self::ChangeMtu,
        Self::SmallPodRanges,
        Self::NodePodCidrs,
        Self::GivenPodCidrs,
        Self::OwnLab,
        Self::ReachInside,
    ];
}

impl fmt::Display for TargetCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoNodes => "TWO_NODES",
            Self::RestartAgent => "RESTART_AGENT",
            Self::KillAgent => "KILL_AGENT",
            Self::RestartNode => "RESTART_NODE",
            Self::ChangeMtu => "CHANGE_MTU",
            Self::SmallPodRanges => "SMALL_POD_RANGES",
            Self::NodePodCidrs => "NODE_POD_CIDRS",
            Self::GivenPodCidrs => "GIVEN_POD_CIDRS",
            Self::OwnLab => "OWN_LAB",
            Self::ReachInside => "REACH_INSIDE",
        })
    }
}

/// A node of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its addresses in the families of the pods.
    pub ips: Vec<IpAddr>,
}

/// A running pod that the suite has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodInfo {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// What is tested, as reports name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Name of the implementation.
    pub implementation: String,
    /// Its version.
    pub version: String,
    /// Release of the nodes' kernel.
    pub kernel: String,
    /// Version of Kubernetes.
    pub kubernetes: String,
}

/// A cluster that cases run on. Its methods block, and must not be called from within its runtime.
pub trait Target: fmt::Debug + Send + Sync {
    /// What it is, in a word: `lab`.
    fn kind(&self) -> &'static str;

    /// Whether it can do something.
    fn can(&self, what: TargetCapability) -> bool;

    /// The families of its pods.
    fn families(&self) -> Families;

    /// Its nodes, in an order that stays.
    fn nodes(&self) -> Vec<NodeInfo>;

    /// Where its client runs.
    fn runtime(&self) -> &Handle;

    /// A client of its API.
    fn client(&self) -> &Client;

    /// The container of the pods that the suite starts, as in a Pod's `spec.containers`.
    fn container(&self) -> Value;

    /// Somebody who sends and answers packets in a running pod.
    ///
    /// # Errors
    /// When nobody can (yet).
    fn pod_hands(&self, pod: &PodInfo) -> Result<Box<dyn Hands>, String>;

    /// The same in a node's own network; `None` when that takes a pod in the node's network.
    ///
    /// # Errors
    /// When the node is down.
    fn node_hands(&self, node: &str) -> Result<Option<Box<dyn Hands>>, String>;

    /// What a command in the container of a node's agent writes to stdout.
    ///
    /// # Errors
    /// When no agent is ready there, or the command fails.
    fn ask_agent(&self, node: &str, words: &[&str]) -> Result<String, Stop>;

    /// Changes the configuration as `helm upgrade` with further values does, and returns when every agent has it.
    ///
    /// # Errors
    /// When it is refused, and always without [`TargetCapability::OwnLab`].
    fn configure(&self, _values: &str) -> Result<(), Stop> {
        Err(unable(TargetCapability::OwnLab))
    }

    /// The program `kinesin` with its way to this cluster, still without a command.
    ///
    /// # Errors
    /// When it is not there, and always without [`TargetCapability::OwnLab`]: what it does may be undone by nobody.
    fn program(&self) -> Result<std::process::Command, Stop> {
        Err(unable(TargetCapability::OwnLab))
    }

    /// Means to end its parts where they stand; some with [`TargetCapability::ReachInside`].
    fn inside(&self) -> Option<&dyn Inside> {
        None
    }

    /// Deletes every agent's pod and returns when others have taken their place and are ready.
    ///
    /// # Errors
    /// When they do not come back.
    fn restart_agents(&self) -> Result<(), Stop>;

    /// Ends every agent by SIGKILL at once, and returns when others have taken their place and work.
    ///
    /// # Errors
    /// When they do not come back, and always without [`TargetCapability::KillAgent`].
    fn kill_agents(&self) -> Result<(), Stop> {
        Err(unable(TargetCapability::KillAgent))
    }

    /// Ends a node at once, as a loss of power does, starts it again and returns when its agent is ready.
    ///
    /// # Errors
    /// When it does not come back, and always without [`TargetCapability::RestartNode`].
    fn restart_node(&self, _node: &str) -> Result<(), Stop> {
        Err(unable(TargetCapability::RestartNode))
    }

    /// Ends a node at once and does `meanwhile`; then it comes back under its name, empty and with other addresses on the
    /// underlay, and its agent is ready.
    ///
    /// # Errors
    /// When it does not come back, what `meanwhile` says, and always without [`TargetCapability::RestartNode`].
    fn move_node(&self, _node: &str, _meanwhile: &dyn Fn() -> Result<(), Stop>) -> Result<(), Stop> {
        Err(unable(TargetCapability::RestartNode))
    }

    /// Tells the router between the nodes, which knows nodes alone, by which of them each of these networks is reached;
    /// none for a network that it shall forget.
    ///
    /// # Errors
    /// The router's, and always without [`TargetCapability::OwnLab`].
    fn set_network_routes(&self, _routes: &[(IpNet, Option<IpAddr>)]) -> Result<(), Stop> {
        Err(unable(TargetCapability::OwnLab))
    }

    /// Sets how large packets to these addresses of nodes the router between nodes carries, in bytes, as it tells whoever sends
    /// larger ones; none takes that back. Of IPv4 alone.
    ///
    /// # Errors
    /// The router's, and always without [`TargetCapability::OwnLab`].
    fn set_way_mtu(&self, _nodes: &[IpAddr], _mtu_bytes: Option<u32>) -> Result<(), Stop> {
        Err(unable(TargetCapability::OwnLab))
    }

    /// Sets the MTU of a node's device on the underlay, in bytes; the answer is what it was before.
    ///
    /// # Errors
    /// The device's, and always without [`TargetCapability::ChangeMtu`].
    fn set_mtu(&self, _node: &str, _mtu_bytes: u32) -> Result<u32, Stop> {
        Err(unable(TargetCapability::ChangeMtu))
    }

    /// Sets how large packets to and from a node the underlay carries, in bytes, without a word to the node; the answer is
    /// what it was before.
    ///
    /// # Errors
    /// The device's, and always without [`TargetCapability::ChangeMtu`].
    fn set_carried(&self, _node: &str, _bytes: u32) -> Result<u32, Stop> {
        Err(unable(TargetCapability::ChangeMtu))
    }
}

fn unable(what: TargetCapability) -> Stop {
    Stop::broken(format!("a case asked for {what}, which it has not declared and this target lacks"))
}
