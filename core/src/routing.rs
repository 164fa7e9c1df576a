//! The trait that makes other nodes' pods reachable.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use async_trait::async_trait;
use ipnet::IpNet;

use crate::values::{Carrier, Families, Family};

/// Makes the pods of other nodes reachable.
///
/// # Behaviour
/// - ROUTING-1: after `apply`, every peer that this backend carries is either in `paths` or in `unreachable` with a reason.
/// - ROUTING-2: `apply` of the same state changes nothing in the kernel.
/// - ROUTING-3: a peer or pod CIDR that left the state is removed, and nothing else is.
/// - ROUTING-4: what the backend finds missing or altered in the kernel is put back.
/// - ROUTING-5: one peer that cannot be routed does not keep the others from being routed.
/// - ROUTING-6: what another program put into the kernel is never touched.
/// - ROUTING-7: `retire` removes everything the backend made, also what an earlier run made, and can be repeated.
/// - ROUTING-8: `plan` changes nothing; if it tells paths at all, `apply` of the same state reports them: the same prefixes by
///   the same nodes and carrier.
/// - ROUTING-9: where pod CIDRs of peers overlap, that of the elder ([`seniority`]) is carried as if the others were not there,
///   and the others' are in `unreachable` with a reason that names the elder, until it leaves the state. One that is refused so
///   is in nobody's way.
#[async_trait]
pub trait Routing: fmt::Debug + Send + Sync + 'static {
    /// What carries the packets of this backend.
    fn carrier(&self) -> Carrier;

    /// Bytes that the carrier adds to a packet on an underlay of `family`.
    fn overhead_bytes(&self, underlay: Family) -> u16;

    /// The paths that `apply` of this state would report, with nothing changed; none if only `apply` can tell.
    ///
    /// While peers change from one carrier to another, the chassis has to know the new way before a route leads there. The
    /// next hop of a path may be one that only `apply` finds.
    ///
    /// # Errors
    /// As `apply`.
    async fn plan(&self, _desired: &RoutingDesired) -> Result<Option<Vec<Path>>, RoutingError> {
        Ok(None)
    }

    /// Makes the kernel agree with `desired`; the answer says which prefixes can be carried.
    ///
    /// # Errors
    /// Only what concerns all peers; one peer's trouble is in the report.
    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError>;

    /// Removes everything that the backend has made on this node.
    ///
    /// # Errors
    /// What could not be removed; the rest is gone.
    async fn retire(&self) -> Result<(), RoutingError>;
}

/// The cluster as routing sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingDesired {
    /// This node.
    pub local: LocalNode,
    /// All other nodes by name.
    pub peers: BTreeMap<String, Peer>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// Its name.
    pub name: String,
    /// When it joined the cluster, as in [`Peer::created_unix_seconds`].
    pub created_unix_seconds: Option<i64>,
    /// Families that pods use.
    pub families: Families,
    /// Underlay addresses.
    pub addresses: Vec<IpAddr>,
    /// Its own pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// Devices that carry traffic to other nodes; the first is preferred.
    pub uplinks: Vec<String>,
    /// Name of the chassis' device by which the node's own stack reaches pods; it need not be there yet.
    pub host_device: String,
    /// The router addresses: the first of each family is the one to use. One that the host device does not have yet is
    /// about to be put there, and another one serves until then.
    pub router: Vec<IpAddr>,
    /// MTU of the uplink in bytes.
    pub mtu_bytes: u32,
}

/// What every link carries of IPv6 in bytes (RFC 8200 section 5).
pub const IPV6_LEAST_MTU: u32 = 1280;
/// What every host takes of IPv4 in bytes (RFC 791 section 3.1).
pub const IPV4_LEAST_MTU: u32 = 576;

/// Another node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its underlay addresses, at most one per family is used.
    pub addresses: Vec<IpAddr>,
    /// Its pod CIDRs.
    pub pod_cidrs: Vec<IpNet>,
    /// When it joined the cluster under this name, in seconds since 1970 (UTC); absent if that is not known.
    pub created_unix_seconds: Option<i64>,
    /// What is to carry packets to it. A backend of another carrier only compares it with its own peers. Absent: whichever
    /// backend is asked.
    pub carrier: Option<Carrier>,
    /// What the underlay carries to it in bytes, as far as that is known, such as the MTU of its uplink; absent if it is not.
    pub mtu_bytes: Option<u32>,
}

/// In which order nodes are heard that claim the same addresses: elder ones first, those of one age by name, and those of
/// unknown age last.
///
/// # Examples
/// ```
/// use kinesin_core::routing::seniority;
///
/// assert!(seniority("w2", Some(1_700_000_000)) < seniority("w1", Some(1_700_000_001)));
/// assert!(seniority("w1", Some(1_700_000_000)) < seniority("w2", Some(1_700_000_000)));
/// assert!(seniority("w2", Some(1_700_000_000)) < seniority("w1", None));
/// ```
#[must_use]
pub fn seniority(name: &str, created_unix_seconds: Option<i64>) -> (bool, Option<i64>, &str) {
    (created_unix_seconds.is_none(), created_unix_seconds, name)
}

impl Peer {
    /// Whether a backend of this carrier is to reach it.
    #[must_use]
    pub fn is_carried_by(&self, carrier: Carrier) -> bool {
        self.carrier.is_none_or(|own| own == carrier)
    }

    /// MTU of the underlay on the way to its pods of one family in bytes, where it is narrower than `own_mtu_bytes`, this
    /// node's: for [`Path::mtu_bytes`]. `overhead_bytes` is what the carrier adds.
    ///
    /// IPv6 pods are left their least MTU whatever the peer says: nobody sends less (RFC 8200 section 5).
    ///
    /// # Examples
    /// ```
    /// # use kinesin_core::{routing::Peer, values::Family};
    /// let peer = Peer { mtu_bytes: Some(1300), ..Peer::default() };
    /// assert_eq!(peer.narrower_mtu(1500, Family::V4, 50), Some(1300));
    /// assert_eq!(peer.narrower_mtu(1500, Family::V6, 50), Some(1330));
    /// assert_eq!(peer.narrower_mtu(1300, Family::V4, 50), None);
    /// assert_eq!(Peer::default().narrower_mtu(1500, Family::V4, 50), None);
    /// ```
    #[must_use]
    pub fn narrower_mtu(&self, own_mtu_bytes: u32, pods: Family, overhead_bytes: u16) -> Option<u32> {
        let least = match pods {
            Family::V4 => 0,
            Family::V6 => IPV6_LEAST_MTU + u32::from(overhead_bytes),
        };
        self.mtu_bytes.map(|known| known.max(least)).filter(|narrow| *narrow < own_mtu_bytes)
    }
}

/// What `apply` achieved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingReport {
    /// Prefixes that can be carried, for the chassis.
    pub paths: Vec<Path>,
    /// Peers, or single pod CIDRs of them, that cannot be reached: name to reason and remedy.
    pub unreachable: BTreeMap<String, String>,
    /// Changes made in the kernel.
    pub changes: usize,
}

/// How to reach a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The pod CIDR.
    pub prefix: IpNet,
    /// Underlay address of its node.
    pub node: IpAddr,
    /// What carries it.
    pub carrier: Carrier,
    /// The neighbour on the first uplink's own link that takes its packets, when the backend knows one for sure; with it
    /// the chassis asks no routing table. None: as this node's routing tables say, packet by packet.
    pub next_hop: Option<IpAddr>,
    /// MTU of the underlay on this way in bytes, the carrier's headers included, where it is narrower than this node's own
    /// ([`Peer::narrower_mtu`]).
    pub mtu_bytes: Option<u32>,
}

/// Why routing failed for the node as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// The node has no usable device.
    #[error("uplink {device:?} cannot carry pod traffic: {reason}")]
    Uplink {
        /// The device.
        device: String,
        /// Why, and what to do.
        reason: String,
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

impl RoutingError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        true
    }
}
