//! An allocator whose node asks for more blocks and gives blocks back: what cluster pool and multi pool share.
//!
//! The clock comes in with each call, so that tests own it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kinesin_core::{
    ipam::{AllocateRequest, Block, Demand, IpamDesired, IpamError, IpamSnapshot, Lease, Owner, PoolDemand},
    values::Family,
};

use crate::{
    allocator::{Allocator, Mode},
    block::BlockState,
    waiting::Waiting,
};

/// Blocks, leases, and who waits.
#[derive(Debug)]
pub struct Growing {
    allocator: Allocator,
    waiting: Waiting,
    /// Blocks that could be given up, and since when.
    spare_since: BTreeMap<Block, Instant>,
}

/// How much of one pool and family is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The pool.
    pub pool: String,
    /// The family.
    pub family: Family,
    /// Addresses leased, from blocks that drain too.
    pub in_use: u64,
    /// Owners that found no address.
    pub waiting: u64,
    /// Addresses that the blocks which give leases have in all, leased ones included.
    pub capacity: u64,
    /// Addresses of those blocks that the node itself keeps from being leased; whoever hands out blocks does not know.
    pub withheld: u64,
    /// Addresses of the largest of those blocks.
    pub largest: u64,
}

/// What is kept of a pool and family when blocks are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Addresses, those in use included.
    pub addresses: u64,
    /// Blocks.
    pub blocks: usize,
}

impl Growing {
    /// An allocator without blocks.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { allocator: Allocator::new(mode), waiting: Waiting::default(), spare_since: BTreeMap::new() }
    }

    /// See [`Allocator::apply`].
    ///
    /// # Errors
    /// `InvalidBlock`; the earlier state stays.
    pub fn apply(&mut self, desired: &IpamDesired) -> Result<bool, IpamError> {
        let changed = self.allocator.apply(desired)?;
        let known: BTreeSet<&Block> = self.allocator.blocks().iter().map(|state| &state.block).collect();
        self.spare_since.retain(|block, _| known.contains(block));
        Ok(changed)
    }

    /// See [`Allocator::allocate`]; notes who got nothing.
    ///
    /// # Errors
    /// `Exhausted`, `UnknownPool`, `NotReady`; nothing is leased then.
    pub fn allocate(&mut self, request: &AllocateRequest, now: Instant) -> Result<Lease, IpamError> {
        let outcome = self.allocator.allocate(request);
        // Only its last try counts: one that failed earlier for another pool or family is no need any more.
        self.waiting.forget(&request.owner);
        if outcome.is_err() {
            let pool = request.pool.as_deref().unwrap_or(&self.allocator.mode().default_pool).to_owned();
            // Each family that lacks an address is waited for, so that one answer can bring both.
            for family in request.families.iter() {
                let held = self.allocator.lease(&request.attachment).is_some_and(|it| it.address(family).is_some());
                if !held && !self.allocator.has_free(&pool, family) {
                    self.waiting.note(&pool, family, &request.owner, now);
                }
            }
        }
        outcome
    }

    /// Ends the wait of an owner that is gone.
    pub fn forget_waiting(&mut self, owner: &Owner) {
        self.waiting.forget(owner);
    }

    /// See [`Allocator::restore`].
    ///
    /// # Errors
    /// `Taken` and `OutOfRange`; nothing is changed then.
    pub fn restore(&mut self, lease: &Lease) -> Result<(), IpamError> {
        self.allocator.restore(lease)
    }

    /// See [`Allocator::release`].
    pub fn release(&mut self, attachment: &str) -> Option<Lease> {
        self.allocator.release(attachment)
    }

    /// See [`Allocator::snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> IpamSnapshot {
        self.allocator.snapshot()
    }

    /// See [`Allocator::retire`].
    ///
    /// # Errors
    /// `InUse` while leases are left.
    pub fn retire(&mut self) -> Result<(), IpamError> {
        self.allocator.retire()?;
        (self.waiting, self.spare_since) = (Waiting::default(), BTreeMap::new());
        Ok(())
    }

    /// How much of each pool and family is used, and of those in `also`, by pool and family.
    #[must_use]
    pub fn usage<'a>(&'a self, also: impl Iterator<Item = (&'a str, Family)>, now: Instant) -> Vec<Usage> {
        let of_blocks = self.allocator.blocks().iter().map(key);
        let keys: BTreeSet<(&str, Family)> = of_blocks.chain(self.waiting.keys()).chain(also).collect();
        keys.into_iter().map(|(pool, family)| self.usage_of(pool, family, now)).collect()
    }

    fn usage_of(&self, pool: &str, family: Family, now: Instant) -> Usage {
        let blocks = || self.allocator.blocks().iter().filter(|state| key(state) == (pool, family));
        let giving = || blocks().filter(|state| state.gives());
        // Lossless, here and below: a usize has at most 64 bits.
        let sum = |count: usize| count as u64;
        let capacity = sum(giving().map(BlockState::capacity).sum());
        Usage {
            pool: pool.to_owned(),
            family,
            in_use: sum(blocks().map(BlockState::leased).sum()),
            waiting: self.waiting.count(pool, family, now),
            capacity,
            withheld: sum(giving().map(|state| state.range.usable()).sum()).saturating_sub(capacity),
            largest: giving().map(|state| sum(state.range.usable())).max().unwrap_or(0),
        }
    }

    /// The demand that follows from how many addresses a pool shall have; what nothing is needed of is left out.
    #[must_use]
    pub fn demand<'a>(
        &'a self,
        also: impl Iterator<Item = (&'a str, Family)>,
        wanted: impl Fn(&Usage) -> u64,
        now: Instant,
    ) -> Demand {
        let pools = self.usage(also, now).into_iter().filter_map(|usage| {
            let wanted = wanted(&usage);
            let Usage { pool, family, in_use, waiting, withheld, .. } = usage;
            (wanted > 0).then(|| PoolDemand { pool, family, in_use, waiting, wanted: wanted + withheld })
        });
        Demand { pools: pools.collect(), bounded: None }
    }

    /// Gives up blocks, the last ones first, that hold no lease and have not been needed for `linger`; the answer is
    /// every block of the state that is given up.
    pub fn give_back(&mut self, keep: impl Fn(&Usage) -> Keep, linger: Duration, now: Instant) -> Vec<Block> {
        self.waiting.expire(now);
        let mut spare = BTreeSet::new();
        for usage in self.usage(std::iter::empty(), now) {
            let Keep { addresses, blocks } = keep(&usage);
            let giving = self.allocator.blocks().iter().filter(|state| state.gives() && is_of(state, &usage));
            let giving: Vec<&BlockState> = giving.collect();
            // What the node withholds is asked for on top, so it is kept on top.
            let (mut left, mut count) = (usage.capacity, giving.len());
            for state in giving.iter().rev() {
                let rest = left.saturating_sub(state.capacity() as u64);
                if state.leased() == 0 && rest >= addresses + usage.withheld && count > blocks {
                    (left, count) = (rest, count - 1);
                    spare.insert(state.block.clone());
                }
            }
        }
        self.spare_since.retain(|block, _| spare.contains(block));
        for block in spare {
            let since = *self.spare_since.entry(block.clone()).or_insert(now);
            if now.checked_duration_since(since).unwrap_or_default() >= linger {
                self.allocator.give_up(&block);
            }
        }
        let given_up = self.allocator.blocks().iter().filter(|state| state.given_up);
        given_up.map(|state| state.block.clone()).collect()
    }
}

fn key(state: &BlockState) -> (&str, Family) {
    (&state.block.pool, Family::of_net(&state.cidr()))
}

fn is_of(state: &BlockState, usage: &Usage) -> bool {
    key(state) == (&usage.pool, usage.family)
}
