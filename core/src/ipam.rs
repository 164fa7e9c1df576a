//! The trait that leases pod addresses on a node.

use std::{collections::BTreeMap, fmt, io, net::IpAddr, path::PathBuf, time::Duration};

use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    capability::Capability,
    values::{Families, Family},
};

/// Leases pod addresses on this node.
///
/// # Behaviour
/// - IPAM-1: a leased address lies in a block of the applied state and is not the block's network address, nor its
///   broadcast address (IPv4), unless the block has fewer than three addresses.
/// - IPAM-2: no address is leased to two attachments at a time.
/// - IPAM-3: the same attachment gets the same lease again.
/// - IPAM-4: every requested family is leased, or none.
/// - IPAM-5: a released address can be leased again; releasing what is not leased is `Ok(None)`.
/// - IPAM-6: `restore` takes exactly the lease's addresses, refuses those of another attachment, and marks the lease
///   as restored.
/// - IPAM-7: a pool without a free address answers `Exhausted` with its counts, and nothing is leased.
/// - IPAM-8: `apply` of the same state changes nothing; a block that leaves the state keeps its leases and gives no
///   new ones.
/// - IPAM-9: reserved addresses are never leased.
/// - IPAM-10: `retire` answers `InUse` while a lease is left, and otherwise leaves nothing behind.
/// - IPAM-11: a new address comes from a block of the requested pool, or of the mode's default pool when none is
///   requested; a pool without blocks answers `UnknownPool`, `NotReady` or `PoolNotReady`, and nothing is leased.
/// - IPAM-12: `demand` counts per pool and family every leased address as `in_use`, and as `waiting` every owner whose
///   last `allocate` found no address there: once per owner, whatever attachments it tried with, until it gets one, is
///   forgotten, or [`WAITING_EXPIRES`] has passed. Asking changes nothing.
/// - IPAM-13: no lease is of a block that `give_back` has answered, and none is given from it afterwards, although later
///   states name it still; it is answered again and again until a state does not name it.
/// - IPAM-14: the blocks that `give_back` leaves to a pool and family can lease as many addresses as `demand` wants there,
///   or it has taken none of them: asking and giving back do not chase each other.
/// - IPAM-15: a block that was given back, left the state and came again gives leases like any other.
/// - IPAM-16: an owner that `forget_waiting` names waits no longer; leases, its own too, and whoever else waits stay as
///   they are.
///
/// A mode that takes whatever blocks it is given leaves the last five to the trait.
#[async_trait]
pub trait Ipam: fmt::Debug + Send + Sync + 'static {
    /// Takes over the blocks that this node may lease from.
    ///
    /// # Errors
    /// `InvalidBlock` names a block that cannot be used; the earlier state stays.
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError>;

    /// Leases one address per requested family.
    ///
    /// # Errors
    /// `Exhausted`, `UnknownPool`, `NotReady` before the first `apply`; `PoolNotReady` for a pool of which a node has
    /// nothing until it asks.
    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError>;

    /// Takes a lease of an earlier run of the agent back as it was.
    ///
    /// # Errors
    /// `Taken` when another attachment has one of the addresses; `OutOfRange` when no block, kept or applied, holds it.
    async fn restore(&self, lease: &Lease) -> Result<(), IpamError>;

    /// Gives an attachment's addresses back; the answer is the lease that ended.
    ///
    /// # Errors
    /// Only what keeps the backend from recording it.
    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError>;

    /// What is leased, and from what.
    fn snapshot(&self) -> IpamSnapshot;

    /// What the node needs of each pool, for whoever hands out blocks; empty in a mode that asks for nothing.
    fn demand(&self) -> Demand {
        Demand::default()
    }

    /// Ends the wait of an owner that is gone: what it lacked, nobody needs any more.
    fn forget_waiting(&self, _owner: &Owner) {}

    /// Gives up blocks that the node does not need; the answer is every block of the applied state that it has given up.
    ///
    /// Not to be called before all leases of an earlier run are restored.
    ///
    /// # Errors
    /// Only what keeps the backend from recording it.
    async fn give_back(&self) -> Result<Vec<Block>, IpamError> {
        Ok(Vec::new())
    }

    /// Removes what the backend keeps on the node.
    ///
    /// # Errors
    /// `InUse` while leases are left.
    async fn retire(&self) -> Result<(), IpamError>;
}

/// What the control plane wants of a node's IPAM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamDesired {
    /// Blocks in order of preference.
    pub blocks: Vec<Block>,
    /// Addresses that are never leased: the node's own.
    pub reserved: Vec<IpAddr>,
    /// Networks that a block must not overlap: the node's own links.
    pub node_networks: Vec<IpNet>,
}

/// A range of pod addresses that belongs to this node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Block {
    /// Pool that it was cut from; `default` where a mode has no pools.
    pub pool: String,
    /// The range.
    pub cidr: IpNet,
}

/// How long an owner that found no address counts as waiting if nobody says that it is gone: a Pod that still wants one is
/// tried again far sooner.
pub const WAITING_EXPIRES: Duration = Duration::from_secs(300);

/// What a node needs of the pools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// By pool, then family; pools of which nothing is needed are left out.
    pub pools: Vec<PoolDemand>,
    /// Why the mode asks for nothing beyond what it was given, and how to change that; absent when it does ask.
    pub bounded: Option<String>,
}

/// What a node needs of one pool in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolDemand {
    /// The pool.
    pub pool: String,
    /// The family.
    pub family: Family,
    /// Addresses leased.
    pub in_use: u64,
    /// Owners that found no address.
    pub waiting: u64,
    /// Addresses that the node wants to have in all, those in use included.
    pub wanted: u64,
}

impl Demand {
    /// What is needed of a pool in a family.
    #[must_use]
    pub fn of(&self, pool: &str, family: Family) -> Option<&PoolDemand> {
        self.pools.iter().find(|found| found.pool == pool && found.family == family)
    }
}

/// Where the blocks of a mode come from. A backend says it by one of the `blocks:` capabilities that it provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockSource {
    /// The ranges that Kubernetes gives to the node (Node `spec.podCIDRs`).
    NodePodCidrs,
    /// The ranges that the operator gives to the node (CiliumNode `spec.ipam.podCIDRs`).
    GivenPodCidrs,
    /// The ranges of pools that the operator gives to the node (CiliumNode `spec.ipam.pools`).
    GivenPools,
}

impl BlockSource {
    /// The source that a backend with these capabilities takes its blocks from; one that names none takes the Node's.
    #[must_use]
    pub fn of(provides: &[Capability]) -> Self {
        if provides.contains(&Capability::BLOCKS_GIVEN_POOLS) {
            Self::GivenPools
        } else if provides.contains(&Capability::BLOCKS_GIVEN_POD_CIDRS) {
            Self::GivenPodCidrs
        } else {
            Self::NodePodCidrs
        }
    }

    /// Cilium's word for modes of this source: the operator serves nodes by it.
    #[must_use]
    pub fn mode(self) -> &'static str {
        match self {
            Self::NodePodCidrs => "kubernetes",
            Self::GivenPodCidrs => "cluster-pool",
            Self::GivenPools => "multi-pool",
        }
    }

    /// Whether a Pod may name a pool.
    #[must_use]
    pub fn has_pools(self) -> bool {
        self == Self::GivenPools
    }
}

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// The node's router address, on `cilium_host`.
    Router,
    /// The node's health endpoint.
    Health,
    /// A Pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A container outside Kubernetes, by its id.
    Container(String),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("router"),
            Self::Health => f.write_str("health"),
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Container(id) => f.write_str(id),
        }
    }
}

/// A request for one address per family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllocateRequest {
    /// Key of the lease: `CONTAINERID:IFNAME`, `router` or `health`.
    pub attachment: String,
    /// Who will hold it.
    pub owner: Owner,
    /// Families to lease.
    pub families: Families,
    /// Pool to lease from; the mode's default when absent.
    pub pool: Option<String>,
}

/// One address per family, held by one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Key of the lease.
    pub attachment: String,
    /// Who holds it.
    pub owner: Owner,
    /// Registry name of the backend that gave it.
    pub mode: String,
    /// The addresses, IPv4 first.
    pub addresses: Vec<LeasedAddress>,
    /// Whether it was taken over from an earlier run of the agent.
    #[serde(default)]
    pub restored: bool,
}

impl Lease {
    /// The address of one family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|leased| leased.ip).find(|ip| Family::of(ip) == family)
    }
}

/// One address of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeasedAddress {
    /// The address.
    pub ip: IpAddr,
    /// Block and pool that it comes from.
    pub block: Block,
}

/// What is leased, and from what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpamSnapshot {
    /// Use per block, in the order of the applied state, then blocks that only keep old leases.
    pub blocks: Vec<BlockUse>,
    /// Every lease by attachment.
    pub leases: BTreeMap<String, Lease>,
}

impl IpamSnapshot {
    /// Whether there is neither a block nor a lease.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.leases.is_empty()
    }

    /// Leased addresses and capacity of a pool and family; of the capacity only what gives new leases.
    #[must_use]
    pub fn totals(&self, pool: &str, family: Family) -> (u64, u64) {
        let of_pool =
            self.blocks.iter().filter(|used| used.block.pool == pool && Family::of_net(&used.block.cidr) == family);
        of_pool.fold((0, 0), |(leased, capacity), used| {
            (leased + used.leased, capacity + if used.draining { 0 } else { used.capacity })
        })
    }
}

/// Use of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUse {
    /// The block.
    pub block: Block,
    /// Addresses leased.
    pub leased: u64,
    /// Addresses that can be leased at all.
    pub capacity: u64,
    /// Whether it gives new leases.
    pub draining: bool,
}

/// Why an address could not be leased, restored or released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    /// Every address of the pool is leased. The first words are Cilium's, which users search for.
    #[error(
        "range is full: pool {pool:?} has no free {family} address ({leased} of {capacity} leased); delete pods on this \
         node or give the node a larger pod CIDR"
    )]
    Exhausted {
        /// The pool.
        pool: String,
        /// The family.
        family: Family,
        /// Addresses leased.
        leased: u64,
        /// Addresses that can be leased.
        capacity: u64,
    },
    /// No block has been applied yet for a family.
    #[error("no {family} pod CIDR has been given to this node yet; it is expected from {expected_from}")]
    NotReady {
        /// The family.
        family: Family,
        /// Who should provide it.
        expected_from: String,
    },
    /// The node has no block of a pool yet. The words after "unable" are Cilium's, which users search for.
    #[error("unable to allocate from pool {pool:?} (family {}): pool not (yet) available", word(.family))]
    PoolNotReady {
        /// The pool.
        pool: String,
        /// The family.
        family: Family,
    },
    /// The mode has no such pool.
    #[error("pool {pool:?} does not exist in mode {mode:?}; use one of {known:?}")]
    UnknownPool {
        /// The pool.
        pool: String,
        /// Registry name of the mode.
        mode: String,
        /// Pools that exist.
        known: Vec<String>,
    },
    /// A block cannot be used.
    #[error("pod CIDR {cidr} cannot be used: {reason}")]
    InvalidBlock {
        /// The block.
        cidr: IpNet,
        /// Why, and what to change.
        reason: String,
    },
    /// An address belongs to another attachment.
    #[error("{ip} is leased to {holder} and cannot be restored for {attachment:?}")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who holds it.
        holder: Owner,
        /// Who asked.
        attachment: String,
    },
    /// An address is in no block.
    #[error("{ip} is in none of this node's blocks {blocks:?}")]
    OutOfRange {
        /// The address.
        ip: IpAddr,
        /// The blocks.
        blocks: Vec<IpNet>,
    },
    /// Leases are left.
    #[error("{leases} leases are still held; delete their pods or let them drain")]
    InUse {
        /// How many.
        leases: usize,
    },
    /// A file of the backend could not be read or written.
    #[error("cannot access {path:?}")]
    Store {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl IpamError {
    /// Whether the same call may succeed later without a change of its arguments.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Exhausted { .. }
                | Self::NotReady { .. }
                | Self::PoolNotReady { .. }
                | Self::InUse { .. }
                | Self::Store { .. }
        )
    }
}

/// A family as Cilium writes it in errors.
fn word(family: &Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_follows_from_what_a_backend_provides() {
        let families = [Capability::IPV4, Capability::IPV6];
        assert_eq!(BlockSource::of(&families), BlockSource::NodePodCidrs);
        let given = [Capability::IPV4, Capability::BLOCKS_GIVEN_POD_CIDRS];
        assert_eq!(BlockSource::of(&given).mode(), "cluster-pool");
        assert!(BlockSource::of(&[Capability::BLOCKS_GIVEN_POOLS]).has_pools());
    }

    #[test]
    fn missing_pool_reads_as_cilium_writes_it() {
        let error = IpamError::PoolNotReady { pool: "vac".to_owned(), family: Family::V4 };
        let expected = "unable to allocate from pool \"vac\" (family ipv4): pool not (yet) available";
        assert_eq!((error.to_string().as_str(), error.retryable()), (expected, true));
    }
}
