//! What the cluster cases run on.
//!
//! A target says what it can do. A case that needs more is skipped under the name of what is missing, never passed.

mod agents;
mod kube;
mod lab;

use std::{fmt, net::IpAddr};

use ::kube::Client;
use kinesin_core::values::Families;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;

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
}

impl TargetCapability {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::TwoNodes, Self::RestartAgent, Self::KillAgent, Self::RestartNode, Self::ChangeMtu, Self::SmallPodRanges];
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

    /// Sets the MTU of a node's device on the underlay, in bytes; the answer is what it was before.
    ///
    /// # Errors
    /// The device's, and always without [`TargetCapability::ChangeMtu`].
    fn set_mtu(&self, _node: &str, _mtu_bytes: u32) -> Result<u32, Stop> {
        Err(unable(TargetCapability::ChangeMtu))
    }
}

fn unable(what: TargetCapability) -> Stop {
    Stop::broken(format!("a case asked for {what}, which it has not declared and this target lacks"))
}
