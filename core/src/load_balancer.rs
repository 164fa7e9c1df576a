//! The trait that turns service addresses into backends.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;

/// Turns service addresses into backends.
///
/// # Behaviour
/// - LB-1: after `apply`, a new connection to a frontend reaches one of its active backends.
/// - LB-2: `apply` of the same state changes nothing; a change touches the services it names and no others.
/// - LB-3: a connection stays with its backend while that backend is active or terminating.
/// - LB-4: a frontend without backends refuses at once, it does not time out.
/// - LB-5: source ranges are checked before a backend is chosen.
/// - LB-6: with session affinity, one client reaches one backend until the timeout.
/// - LB-7: `retire` leaves nothing behind.
#[async_trait]
pub trait LoadBalancer: fmt::Debug + Send + Sync + 'static {
    /// Makes the kernel agree with `desired`.
    ///
    /// # Errors
    /// `Full` names the table; what fitted works.
    async fn apply(&self, desired: &LoadBalancerDesired) -> Result<(), LoadBalancerError>;

    /// Removes everything that the backend has made on this node.
    ///
    /// # Errors
    /// What could not be removed; the rest is gone.
    async fn retire(&self) -> Result<(), LoadBalancerError>;
}

/// Every service of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadBalancerDesired {
    /// Frontends and where they lead.
    pub frontends: BTreeMap<Frontend, Service>,
}

/// An address that clients know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address and port.
    pub address: SocketAddr,
    /// IP protocol number (IANA).
    pub protocol: u8,
    /// Which kind of service address it is.
    pub kind: FrontendKind,
}

/// The kinds of service addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FrontendKind {
    /// Inside the cluster only.
    ClusterIp,
    /// A port of every node.
    NodePort,
    /// An address from a load balancer.
    LoadBalancer,
    /// An address that someone else routes to the cluster.
    ExternalIp,
    /// A port of the node that runs the pod.
    HostPort,
}

/// Where a frontend leads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// `NAMESPACE/NAME`, for messages.
    pub name: String,
    /// Backends, sorted.
    pub backends: Vec<Backend>,
    /// Session affinity by client address, with its timeout.
    pub affinity: Option<Duration>,
    /// Only backends of this node.
    pub local_only: bool,
    /// Clients that may use it; everyone when empty.
    pub source_ranges: Vec<IpNet>,
}

/// One endpoint of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it takes new connections.
    pub state: BackendState,
    /// Node that it runs on.
    pub node: Option<IpAddr>,
}

/// Whether a backend takes connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BackendState {
    /// New and old connections.
    Active,
    /// Old ones only.
    Terminating,
    /// None.
    Quarantined,
}

/// Why services could not be programmed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadBalancerError {
    /// A table is full.
    #[error("table {table:?} is full at {capacity} entries; raise its size")]
    Full {
        /// The table.
        table: String,
        /// Its size in entries.
        capacity: u32,
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
}

impl LoadBalancerError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        true
    }
}
