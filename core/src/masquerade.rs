//! The trait that gives packets leaving the cluster the node's address.

use std::{fmt, net::IpAddr};

use async_trait::async_trait;
use ipnet::IpNet;

use crate::values::Families;

/// Gives packets that leave the cluster the node's address.
///
/// # Behaviour
/// - MASQ-1: after `apply`, a pod's packet to an address outside `excluded` leaves with the device's node address, and
///   its reply reaches the pod.
/// - MASQ-2: a packet to an excluded address keeps its source.
/// - MASQ-3: two connections never share a translated tuple.
/// - MASQ-4: a full table refuses new connections with a counted reason and keeps every old one.
/// - MASQ-5: `apply` of the same state changes nothing and breaks no connection.
/// - MASQ-6: `retire` leaves nothing behind.
#[async_trait]
pub trait Masquerade: fmt::Debug + Send + Sync + 'static {
    /// Makes the kernel agree with `desired`.
    ///
    /// # Errors
    /// `NoAddress` names a device without an address of an enabled family.
    async fn apply(&self, desired: &MasqueradeDesired) -> Result<(), MasqueradeError>;

    /// Removes everything that the backend has made on this node.
    ///
    /// # Errors
    /// What could not be removed; the rest is gone.
    async fn retire(&self) -> Result<(), MasqueradeError>;
}

/// What leaves the cluster, and by which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasqueradeDesired {
    /// Families to masquerade.
    pub families: Families,
    /// Sources that are masqueraded: the node's pod CIDRs.
    pub sources: Vec<IpNet>,
    /// Destinations that keep the pod's address.
    pub excluded: Vec<IpNet>,
    /// Devices that lead outside, each with the addresses to use.
    pub devices: Vec<(String, Vec<IpAddr>)>,
}

/// Why masquerading could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasqueradeError {
    /// A device lacks an address.
    #[error("device {device:?} has no {family} address to masquerade with; give it one or exclude the family")]
    NoAddress {
        /// The device.
        device: String,
        /// The family.
        family: crate::values::Family,
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

impl MasqueradeError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        true
    }
}
