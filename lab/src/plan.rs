//! What one of the lab's own processes is told, in a file that it reads at its start.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{process::Process, spec::PodRange};

/// One process of a lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The cgroup that it joins before anything else.
    pub(crate) cgroup: PathBuf,
    pub(crate) role: Role,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Role {
    /// Keeps the network namespace of the bridge.
    Segment,
    /// Keeps a node and runs its kubelet.
    Node(Box<NodePlan>),
    /// Serves the API.
    Control(ControlPlan),
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodePlan {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) api_url: String,
    /// Of this machine; the node has it at [`crate::rootfs::BUILD`].
    pub(crate) bin_dir: PathBuf,
    /// The one directory that node and machine share, at the same path in both.
    pub(crate) node_dir: PathBuf,
    /// Names of all nodes, for `/etc/hosts`.
    pub(crate) hosts: Vec<(IpAddr, String)>,
    pub(crate) control_plane: bool,
}

/// The control process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ControlPlan {
    pub(crate) segment: Process,
    /// Addresses in the segment.
    pub(crate) listen: Vec<SocketAddr>,
    /// Port on this machine's loopback; 0 for a free one.
    pub(crate) port: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) pod_ranges: Vec<PodRange>,
}
