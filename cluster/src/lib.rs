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
pub use crd::{CiliumEndpoint, CiliumNode, CiliumPodIPPool, PodCIDRClaims, crds, install_crds};
pub use error::{ApiFailure, ClusterError};
pub use table::{Snapshot, Table, WatchHealth};
pub use tables::{
    CARRIER_PREFERRED, CARRIERS_ACCEPTED, ClusterNamespace, ClusterNode, IPAM_MODE, LocalPod, OwnCiliumNode, OwnNode,
    PodIPPool, PoolNeed, UPLINK_MTU, watch_cluster_nodes, watch_local_pods, watch_namespaces, watch_own_cilium_node,
    watch_own_node, watch_pod_ip_pools,
};
pub use watch::watch_all;
pub use writers::{
    EndpointPublication, EndpointPublisher, NodeIpamChange, NodePublication, publish_endpoints, publish_node,
    update_node_ipam,
};

/// Who the agent is in `managedFields`.
pub const AGENT_MANAGER: &str = "kinesin-agent";

/// Who the operator is in `managedFields`.
pub const OPERATOR_MANAGER: &str = "kinesin-operator";
