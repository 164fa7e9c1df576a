//! One block: which of its addresses are free, and how many are leased from it.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_core::ipam::{Block, BlockUse, IpamError};
use rand::RngExt as _;

use crate::{bitmap::Bitmap, range::Range};

/// A block in use.
#[derive(Debug)]
pub(crate) struct BlockState {
    pub(crate) block: Block,
    pub(crate) range: Range,
    /// Addresses that are neither leased, from this or an overlapping block, nor reserved.
    free: Bitmap,
    /// Addresses whose lease names this block.
    leased: usize,
    /// Whether it left the state and gives no new leases.
    pub(crate) draining: bool,
    /// Whether it is named by the state, but was given up: it gives no leases until it has left and come again.
    pub(crate) given_up: bool,
}

impl BlockState {
    /// A block with all its addresses free.
    pub(crate) fn new(block: &Block) -> Result<Self, IpamError> {
        let range = Range::new(block.cidr).map_err(|reason| IpamError::InvalidBlock { cidr: block.cidr, reason })?;
        let block = Block { pool: block.pool.clone(), cidr: range.network() };
        Ok(Self { block, range, free: all_of(&range), leased: 0, draining: false, given_up: false })
    }

    /// The same block, giving no new leases.
    pub(crate) fn into_draining(self) -> Self {
        Self { draining: true, ..self }
    }

    /// Whether it gives new leases.
    pub(crate) fn gives(&self) -> bool {
        !self.draining && !self.given_up
    }

    /// Sets everything free again.
    pub(crate) fn reset(&mut self) {
        self.free = all_of(&self.range);
        self.leased = 0;
    }

    pub(crate) fn cidr(&self) -> IpNet {
        self.block.cidr
    }

    pub(crate) fn leased(&self) -> usize {
        self.leased
    }

    /// Counts a lease that names this block.
    pub(crate) fn count_lease(&mut self) {
        self.leased += 1;
    }

    /// Counts the end of a lease that names this block.
    pub(crate) fn count_release(&mut self) {
        self.leased = self.leased.saturating_sub(1);
    }

    /// What can be leased at all: what is, and what could be.
    pub(crate) fn capacity(&self) -> usize {
        self.leased + self.free.count()
    }

    /// A free address: upward from a random place, so that what was just released is not what comes next.
    pub(crate) fn find(&self) -> Option<IpAddr> {
        let start = rand::rng().random_range(0..self.range.size());
        self.free.next_from(start).map(|index| self.range.address(index))
    }

    /// Whether an address is neither leased nor reserved; one outside is not free.
    pub(crate) fn is_free(&self, ip: IpAddr) -> bool {
        self.range.index_of(ip).is_some_and(|index| self.free.contains(index))
    }

    /// Marks an address as not free; one outside is ignored.
    pub(crate) fn occupy(&mut self, ip: IpAddr) {
        if let Some(index) = self.range.index_of(ip) {
            self.free.remove(index);
        }
    }

    /// Marks an address as free; one outside is ignored.
    pub(crate) fn vacate(&mut self, ip: IpAddr) {
        if let Some(index) = self.range.index_of(ip) {
            self.free.insert(index);
        }
    }

    pub(crate) fn usage(&self) -> BlockUse {
        BlockUse {
            block: self.block.clone(),
            // Lossless: a usize has at most 64 bits.
            leased: self.leased as u64,
            capacity: self.capacity() as u64,
            draining: !self.gives(),
        }
    }
}

fn all_of(range: &Range) -> Bitmap {
    Bitmap::filled(range.size(), range.first(), range.last())
}
