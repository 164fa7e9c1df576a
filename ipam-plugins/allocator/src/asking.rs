//! The trait implementation of modes whose node asks for blocks and gives blocks back: they differ in their rules alone.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use kinesin_core::{
    ipam::{AllocateRequest, Block, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, Owner},
    values::Family,
};

use crate::{
    allocator::Mode,
    growing::{Growing, Keep, Usage},
};

/// How much a node asks of each pool, and what it keeps.
pub trait Rules: fmt::Debug + Send + Sync + 'static {
    /// Pools and families of which something may be wanted although nobody uses them.
    fn always(&self) -> Vec<(&str, Family)>;

    /// Addresses that the node wants to have of a pool in all, those in use included; 0 for none.
    fn wanted(&self, usage: &Usage) -> u64;

    /// What stays when blocks are given back.
    fn keep(&self, usage: &Usage) -> Keep;

    /// For how long a block must not have been needed before it is given back.
    fn linger(&self) -> Duration;

    /// Why the node asks for nothing beyond what it was given, and how to change that; nothing if it does ask.
    fn bounded(&self) -> Option<&'static str> {
        None
    }

    /// A refusal in the words of the mode.
    fn refusal(&self, _request: &AllocateRequest, error: IpamError) -> IpamError {
        error
    }
}

/// Leases from given blocks, by the rules of one mode.
#[derive(Debug)]
pub struct Asking<R> {
    rules: R,
    growing: Mutex<Growing>,
}

impl<R: Rules> Asking<R> {
    /// A node without blocks.
    #[must_use]
    pub fn new(mode: Mode, rules: R) -> Self {
        Self { rules, growing: Mutex::new(Growing::new(mode)) }
    }

    /// The leases themselves, for tests that own the clock.
    pub fn growing(&self) -> MutexGuard<'_, Growing> {
        // No method of the allocator leaves it half changed; a panic elsewhere must not end IPAM.
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Ipam::allocate`] at this time.
    ///
    /// # Errors
    /// As there.
    pub fn allocate_at(&self, request: &AllocateRequest, now: Instant) -> Result<Lease, IpamError> {
        self.growing().allocate(request, now).map_err(|error| self.rules.refusal(request, error))
    }

    /// As [`Ipam::demand`] at this time.
    #[must_use]
    pub fn demand_at(&self, now: Instant) -> Demand {
        let always = self.rules.always();
        let demand = self.growing().demand(always.into_iter(), |usage| self.rules.wanted(usage), now);
        Demand { bounded: self.rules.bounded().map(str::to_owned), ..demand }
    }

    /// As [`Ipam::give_back`] at this time.
    pub fn give_back_at(&self, now: Instant) -> Vec<Block> {
        self.growing().give_back(|usage| self.rules.keep(usage), self.rules.linger(), now)
    }
}

#[async_trait]
impl<R: Rules> Ipam for Asking<R> {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut growing = self.growing();
        if growing.apply(desired)? {
            for used in growing.snapshot().blocks {
                tracing::info!(
                    pool = used.block.pool, cidr = %used.block.cidr, capacity = used.capacity, leased = used.leased,
                    draining = used.draining, "pod CIDR in use"
                );
            }
        }
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        self.allocate_at(request, Instant::now())
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        self.growing().restore(lease)
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        Ok(self.growing().release(attachment))
    }

    fn snapshot(&self) -> IpamSnapshot {
        self.growing().snapshot()
    }

    fn forget_waiting(&self, owner: &Owner) {
        self.growing().forget_waiting(owner);
    }

    fn demand(&self) -> Demand {
        self.demand_at(Instant::now())
    }

    async fn give_back(&self) -> Result<Vec<Block>, IpamError> {
        Ok(self.give_back_at(Instant::now()))
    }

    async fn retire(&self) -> Result<(), IpamError> {
        self.growing().retire()
    }
}
