#![doc = include_str!("../README.md")]

mod connect;
pub mod crd;
mod error;
mod request;
mod table;
mod tables;
mod watch;
mod writers;

pub use connect::connect;
pub use crd::{CiliumEndpoint, CiliumNode, crds, install_crds};
pub use error::{ApiFailure, ClusterError};
pub use table::{Snapshot, Table, WatchHealth};
pub use tables::{ClusterNode, LocalPod, OwnNode, watch_cluster_nodes, watch_local_pods, watch_own_node};
pub use writers::{EndpointPublication, EndpointPublisher, NodePublication, publish_endpoints, publish_node};

/// Who the agent is in `managedFields`.
pub const AGENT_MANAGER: &str = "kinesin-agent";

/// Who the operator is in `managedFields`.
pub const OPERATOR_MANAGER: &str = "kinesin-operator";
