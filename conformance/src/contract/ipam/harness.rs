//! A node for one implementation of [`Ipam`]: instances come and go, the state directory stays.

use std::{net::IpAddr, sync::Arc};

use kinesin_core::{
    capability::Capability,
    ipam::{AllocateRequest, Block, BlockSource, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, Owner},
    registry::{BuildContext, BuildError, IpamBackend},
    values::{Families, Family},
};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{
    contract::workbench::{Maker, Waiter, directory, leftovers},
    outcome::Stop,
};

/// Option of modes that let a block rest before they give it back, in seconds.
const LINGER: &str = "releaseAfterSeconds";

/// How instances of one implementation are made.
#[derive(Debug)]
pub struct Harness {
    maker: Maker<dyn Ipam>,
    /// Options of nodes whose blocks must not have to rest before they are given back.
    eager: Map<String, Value>,
}

impl Harness {
    /// Of a registered backend, with its section at its defaults.
    #[must_use]
    pub fn of(backend: &'static IpamBackend) -> Self {
        let harness = Self::new(backend.name, backend.provides, backend.build);
        let has_key = backend.defaults.lines().any(|line| line.split('=').next().unwrap_or("").trim() == LINGER);
        let eager = if has_key { [(LINGER.to_owned(), 0.into())].into_iter().collect() } else { harness.eager };
        Self { eager, ..harness }
    }

    /// Of an implementation that is in no registry, by its name and what it provides.
    pub fn new(
        name: &str,
        provides: &[Capability],
        make: impl Fn(&BuildContext) -> Result<Arc<dyn Ipam>, BuildError> + Send + Sync + 'static,
    ) -> Self {
        Self { maker: Maker::new(name, provides, make), eager: Map::new() }
    }

    /// A fresh node with a first instance, every option at its default.
    pub(super) fn node(&self) -> Result<Node<'_>, Stop> {
        self.node_with(&Map::new())
    }

    /// A fresh node that gives blocks back as soon as it does not need them, where the mode has the option.
    pub(super) fn eager_node(&self) -> Result<Node<'_>, Stop> {
        self.node_with(&self.eager)
    }

    fn node_with(&self, options: &Map<String, Value>) -> Result<Node<'_>, Stop> {
        let maker = &self.maker;
        let (families, dir, waiter) = (maker.families()?, directory()?, Waiter::new()?);
        let ipam = maker.start(families, dir.path(), options)?;
        let named_pools = maker.provides().contains(&Capability::NAMED_POOLS);
        let asks = BlockSource::of(maker.provides()) != BlockSource::NodePodCidrs;
        Ok(Node { maker, families, named_pools, asks, options: options.clone(), dir, waiter, ipam })
    }
}

/// A node with one instance at a time.
#[derive(Debug)]
pub(super) struct Node<'a> {
    maker: &'a Maker<dyn Ipam>,
    /// Families that the implementation serves.
    pub(super) families: Families,
    /// Whether requests may choose a pool other than the default one.
    pub(super) named_pools: bool,
    /// Whether somebody serves its demand and takes its blocks back.
    pub(super) asks: bool,
    options: Map<String, Value>,
    dir: TempDir,
    waiter: Waiter,
    pub(super) ipam: Arc<dyn Ipam>,
}

impl Node<'_> {
    /// The agent ends without a word, and another one starts.
    pub(super) fn restart(&mut self) -> Result<(), Stop> {
        self.ipam = self.maker.start(self.families, self.dir.path(), &self.options)?;
        Ok(())
    }

    /// The desired state with these blocks of the default pool, as far as their family is served.
    pub(super) fn state(&self, cidrs: &[&str]) -> IpamDesired {
        self.state_of(cidrs.iter().map(|cidr| block(cidr)))
    }

    /// The desired state with these blocks, as far as their family and pool are served.
    pub(super) fn state_of(&self, blocks: impl IntoIterator<Item = Block>) -> IpamDesired {
        let served = |block: &Block| {
            self.families.contains(Family::of_net(&block.cidr)) && (self.named_pools || block.pool == DEFAULT_POOL)
        };
        IpamDesired { blocks: blocks.into_iter().filter(served).collect(), ..IpamDesired::default() }
    }

    pub(super) fn apply(&self, desired: &IpamDesired) -> Result<Result<(), IpamError>, Stop> {
        self.waiter.wait("apply", self.ipam.apply(desired))
    }

    /// Applies what must be taken.
    pub(super) fn take(&self, desired: &IpamDesired) -> Result<(), Stop> {
        self.apply(desired)?.map_err(|error| Stop::broken(format!("apply refused ordinary blocks: {error}")))
    }

    pub(super) fn allocate(&self, who: &str, families: Families) -> Result<Result<Lease, IpamError>, Stop> {
        self.allocate_from(None, who, families)
    }

    pub(super) fn allocate_from(
        &self,
        pool: Option<&str>,
        who: &str,
        families: Families,
    ) -> Result<Result<Lease, IpamError>, Stop> {
        self.request(&AllocateRequest { pool: pool.map(str::to_owned), ..request(who, families) })
    }

    pub(super) fn request(&self, request: &AllocateRequest) -> Result<Result<Lease, IpamError>, Stop> {
        self.waiter.wait("allocate", self.ipam.allocate(request))
    }

    /// Leases what must be there to lease, of every family that is served.
    pub(super) fn lease(&self, who: &str) -> Result<Lease, Stop> {
        let lease = self.allocate(who, self.families)?;
        lease.map_err(|error| Stop::broken(format!("allocate for {who:?} failed while addresses are free: {error}")))
    }

    /// Leases one address of one family of the default pool until none is left; the answer ends with the error.
    pub(super) fn fill(&self, family: Family) -> Result<(Vec<Lease>, IpamError), Stop> {
        self.fill_from(None, family)
    }

    /// Leases one address of one family until none is left in a pool; the answer ends with the error.
    pub(super) fn fill_from(&self, pool: Option<&str>, family: Family) -> Result<(Vec<Lease>, IpamError), Stop> {
        let mut leases = Vec::new();
        // Twice as many as any block of the cases has.
        for number in 0..64 {
            let who = format!("{}-{family}-{number}", pool.unwrap_or("any"));
            match self.allocate_from(pool, &who, only(family))? {
                Ok(lease) => leases.push(lease),
                Err(error) => return Ok((leases, error)),
            }
        }
        Err(Stop::broken(format!("{} leases came from blocks that have no more than 32 addresses", leases.len())))
    }

    pub(super) fn restore(&self, lease: &Lease) -> Result<Result<(), IpamError>, Stop> {
        self.waiter.wait("restore", self.ipam.restore(lease))
    }

    pub(super) fn release(&self, who: &str) -> Result<Option<Lease>, Stop> {
        let released = self.waiter.wait("release", self.ipam.release(who))?;
        released.map_err(|error| Stop::broken(format!("release of {who:?} failed: {error}")))
    }

    pub(super) fn demand(&self) -> Demand {
        self.ipam.demand()
    }

    /// Says that the owner of these leases is gone.
    pub(super) fn forget_waiting(&self, who: &str) {
        self.ipam.forget_waiting(&request(who, self.families).owner);
    }

    pub(super) fn give_back(&self) -> Result<Vec<Block>, Stop> {
        let given = self.waiter.wait("give_back", self.ipam.give_back())?;
        given.map_err(|error| Stop::broken(format!("give_back failed: {error}")))
    }

    pub(super) fn retire(&self) -> Result<Result<(), IpamError>, Stop> {
        self.waiter.wait("retire", self.ipam.retire())
    }

    pub(super) fn snapshot(&self) -> IpamSnapshot {
        self.ipam.snapshot()
    }

    /// Files in the state directory.
    pub(super) fn files(&self) -> Result<Vec<String>, Stop> {
        leftovers(self.dir.path())
    }
}

/// Pool of modes without named pools, and of requests that name none.
pub(super) const DEFAULT_POOL: &str = "default";

/// A block of the default pool.
pub(super) fn block(cidr: &str) -> Block {
    block_of(DEFAULT_POOL, cidr)
}

pub(super) fn block_of(pool: &str, cidr: &str) -> Block {
    Block { pool: pool.to_owned(), cidr: cidr.parse().expect("the cases write networks") }
}

/// One family alone.
pub(super) fn only(family: Family) -> Families {
    Families { v4: family == Family::V4, v6: family == Family::V6 }
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("the cases write addresses")
}

/// A request of a Pod whose name is the attachment's.
pub(super) fn request(who: &str, families: Families) -> AllocateRequest {
    let owner = Owner::Pod { namespace: "default".to_owned(), name: who.to_owned() };
    AllocateRequest { attachment: who.to_owned(), owner, families, pool: None }
}
