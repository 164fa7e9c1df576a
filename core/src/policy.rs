//! The trait that enforces who may talk to whom.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;

use crate::values::{EndpointId, Identity};

/// Enforces who may talk to whom.
///
/// # Behaviour
/// - POLICY-1: after `apply`, a packet passes exactly if the verdict table of its endpoint and direction allows it.
/// - POLICY-2: an endpoint without a verdict table passes no packet.
/// - POLICY-3: a deny wins over every allow of the same or lower precedence.
/// - POLICY-4: replies to an allowed connection pass in the other direction.
/// - POLICY-5: a change of one endpoint's table is atomic: a packet meets the old table or the new one.
/// - POLICY-6: `apply` of the same state changes nothing.
/// - POLICY-7: `retire` is refused while an endpoint is enforced.
#[async_trait]
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// Makes the kernel agree with `desired`.
    ///
    /// # Errors
    /// `Full` names the endpoint; its old table stays in force.
    async fn apply(&self, desired: &PolicyDesired) -> Result<(), PolicyError>;

    /// Removes everything that the backend has made on this node.
    ///
    /// # Errors
    /// `InUse` while endpoints are enforced.
    async fn retire(&self) -> Result<(), PolicyError>;
}

/// The verdict table of every endpoint on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyDesired {
    /// By endpoint.
    pub endpoints: BTreeMap<EndpointId, EndpointPolicy>,
}

/// The verdicts of one endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Generation that these tables belong to, increasing.
    pub generation: u32,
    /// Incoming; `None` is not enforced.
    pub ingress: Option<BTreeMap<VerdictKey, Verdict>>,
    /// Outgoing; `None` is not enforced.
    pub egress: Option<BTreeMap<VerdictKey, Verdict>>,
}

/// What a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictKey {
    /// The other side; any when absent.
    pub identity: Option<Identity>,
    /// IP protocol number (IANA); any when absent.
    pub protocol: Option<u8>,
    /// First port of a range that is a power of two; any when absent.
    pub port: Option<u16>,
    /// Leading bits of `port` that count, 1 to 16.
    pub port_prefix: u8,
}

/// What happens to what matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Drop instead of pass.
    pub deny: bool,
    /// Local proxy port to hand the connection to; none when absent.
    pub proxy_port: Option<u16>,
    /// Higher wins.
    pub precedence: u8,
    /// Names the rule in events and in explanations.
    pub rule_cookie: u32,
}

/// Why policy could not be enforced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// An endpoint's table is full.
    #[error("the policy table of endpoint {endpoint} is full at {capacity} entries; raise its size or merge rules")]
    Full {
        /// The endpoint.
        endpoint: EndpointId,
        /// The table's size in entries.
        capacity: u32,
    },
    /// Endpoints are still enforced.
    #[error("{endpoints} endpoints are still enforced by this backend")]
    InUse {
        /// How many.
        endpoints: usize,
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

impl PolicyError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        true
    }
}
