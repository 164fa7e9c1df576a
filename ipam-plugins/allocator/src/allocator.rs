//! Blocks and leases of a node.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Block, IpamDesired, IpamError, IpamSnapshot, Lease, LeasedAddress, Owner},
    values::Family,
};

use crate::block::BlockState;

/// What the allocator must know of the mode that uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// Registry name of the mode, as leases record it.
    pub name: &'static str,
    /// Pool of requests that name none.
    pub default_pool: Cow<'static, str>,
    /// Who provides blocks, for the message while there are none.
    pub expected_from: &'static str,
}

/// Every block and every lease of one mode on this node.
#[derive(Debug)]
pub struct Allocator {
    mode: Mode,
    /// In the order of the applied state, then those that drain.
    blocks: Vec<BlockState>,
    reserved: BTreeSet<IpAddr>,
    leases: HashMap<String, Lease>,
}

impl Allocator {
    /// An allocator without blocks.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { mode, blocks: Vec::new(), reserved: BTreeSet::new(), leases: HashMap::new() }
    }

    /// Takes over the blocks of `desired`; the answer tells whether anything changed.
    ///
    /// A node network that is a single address reserves that address; a larger one must not overlap a block.
    ///
    /// # Errors
    /// `InvalidBlock`; the earlier state stays.
    pub fn apply(&mut self, desired: &IpamDesired) -> Result<bool, IpamError> {
        let (single, networks): (Vec<IpNet>, Vec<IpNet>) =
            desired.node_networks.iter().partition(|network| network.prefix_len() == network.max_prefix_len());
        let reserved: BTreeSet<IpAddr> =
            desired.reserved.iter().copied().chain(single.iter().map(IpNet::addr)).collect();

        let mut wanted: Vec<BlockState> = Vec::with_capacity(desired.blocks.len());
        for block in &desired.blocks {
            let state = BlockState::new(block)?;
            if let Some(network) = networks.iter().find(|network| overlaps(network, &state.cidr())) {
                let reason = format!(
                    "it overlaps {network}, a network of this node, so that pods there would hide its hosts; give the \
                     node another pod CIDR"
                );
                return Err(IpamError::InvalidBlock { cidr: block.cidr, reason });
            }
            if !wanted.iter().any(|other| other.block == state.block) {
                wanted.push(state);
            }
        }

        let active = self.blocks.iter().filter(|state| !state.draining).map(|state| &state.block);
        if reserved == self.reserved && active.eq(wanted.iter().map(|state| &state.block)) {
            return Ok(false);
        }
        for state in &mut wanted {
            state.given_up = self.blocks.iter().any(|old| old.given_up && old.block == state.block);
        }
        let kept = self.blocks.drain(..).filter(|old| old.leased() > 0);
        let kept: Vec<BlockState> = kept.filter(|old| !wanted.iter().any(|new| new.block == old.block)).collect();
        self.blocks = wanted;
        self.blocks.extend(kept.into_iter().map(BlockState::into_draining));
        self.reserved = reserved;
        self.recount();
        Ok(true)
    }

    /// Leases one address per requested family; the same attachment gets its lease again.
    ///
    /// # Errors
    /// `Exhausted`, `UnknownPool`, `NotReady`; nothing is leased then.
    pub fn allocate(&mut self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let held = self.leases.get(&request.attachment);
        let lacks = |family: Family| {
            request.families.contains(family) && held.is_none_or(|lease| lease.address(family).is_none())
        };
        let missing = [lacks(Family::V4), lacks(Family::V6)];
        if let (Some(lease), [false, false]) = (held, missing) {
            return Ok(lease.clone());
        }
        let pool = request.pool.as_deref().unwrap_or(&self.mode.default_pool);
        let find = |family, is_missing: bool| is_missing.then(|| self.find(pool, family)).transpose();
        // All of them are found before the first is taken.
        let found = [find(Family::V4, missing[0])?, find(Family::V6, missing[1])?];
        for leased in found.iter().flatten() {
            self.take(leased);
        }
        if let Some(lease) = self.leases.get_mut(&request.attachment) {
            lease.addresses.extend(found.into_iter().flatten());
            lease.addresses.sort_by_key(|leased| Family::of(&leased.ip));
            return Ok(lease.clone());
        }
        let mut addresses = Vec::with_capacity(found.len());
        addresses.extend(found.into_iter().flatten());
        let lease = Lease {
            attachment: request.attachment.clone(),
            owner: request.owner.clone(),
            mode: self.mode.name.to_owned(),
            addresses,
            restored: false,
        };
        self.leases.insert(request.attachment.clone(), lease.clone());
        Ok(lease)
    }

    /// Takes back a lease of an earlier run, with exactly its addresses.
    ///
    /// # Errors
    /// `Taken` and `OutOfRange`; nothing is changed then.
    pub fn restore(&mut self, lease: &Lease) -> Result<(), IpamError> {
        let mut addresses: Vec<LeasedAddress> = Vec::new();
        for leased in &lease.addresses {
            let placed = self.place(leased, lease)?;
            if !addresses.contains(&placed) {
                addresses.push(placed);
            }
        }
        self.forget(&lease.attachment);
        for leased in &addresses {
            self.take(leased);
        }
        self.drop_drained();
        let restored = Lease { addresses, restored: true, ..lease.clone() };
        self.leases.insert(lease.attachment.clone(), restored);
        Ok(())
    }

    /// Gives an attachment's addresses back; the answer is the lease that ended.
    pub fn release(&mut self, attachment: &str) -> Option<Lease> {
        let lease = self.forget(attachment);
        self.drop_drained();
        lease
    }

    fn forget(&mut self, attachment: &str) -> Option<Lease> {
        let lease = self.leases.remove(attachment)?;
        for LeasedAddress { ip, block } in &lease.addresses {
            for state in &mut self.blocks {
                if state.block == *block {
                    state.count_release();
                }
                if !self.reserved.contains(ip) {
                    state.vacate(*ip);
                }
            }
        }
        Some(lease)
    }

    fn drop_drained(&mut self) {
        self.blocks.retain(|state| !state.draining || state.leased() > 0);
    }

    /// What is leased, and from what.
    #[must_use]
    pub fn snapshot(&self) -> IpamSnapshot {
        IpamSnapshot {
            blocks: self.blocks.iter().map(BlockState::usage).collect(),
            leases: self.leases.clone().into_iter().collect(),
        }
    }

    /// Use per block: those of the state in its order, then those that only keep old leases.
    pub(crate) fn blocks(&self) -> &[BlockState] {
        &self.blocks
    }

    /// Gives no lease of this block any more, until a state does not name it; one with leases stays as it is.
    pub(crate) fn give_up(&mut self, block: &Block) {
        for state in &mut self.blocks {
            if state.block == *block && state.leased() == 0 {
                state.given_up = true;
            }
        }
    }

    /// Whether a lease of this pool and family could be given now.
    pub(crate) fn has_free(&self, pool: &str, family: Family) -> bool {
        self.blocks.iter().any(|state| {
            state.gives()
                && state.block.pool == pool
                && Family::of_net(&state.cidr()) == family
                && state.capacity() > state.leased()
        })
    }

    /// The lease of an attachment.
    pub(crate) fn lease(&self, attachment: &str) -> Option<&Lease> {
        self.leases.get(attachment)
    }

    /// The mode that uses this allocator.
    pub(crate) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Forgets the blocks.
    ///
    /// # Errors
    /// `InUse` while leases are left.
    pub fn retire(&mut self) -> Result<(), IpamError> {
        if self.leases.is_empty() {
            *self = Self::new(self.mode.clone());
            Ok(())
        } else {
            Err(IpamError::InUse { leases: self.leases.len() })
        }
    }

    /// A free address of a pool and family, from the first block that has one.
    fn find(&self, pool: &str, family: Family) -> Result<LeasedAddress, IpamError> {
        let active = || self.blocks.iter().filter(|state| state.gives());
        let of_pool = || active().filter(|state| state.block.pool == pool);
        let of_family = || of_pool().filter(|state| Family::of_net(&state.cidr()) == family);
        if let Some(found) = of_family().find_map(|state| Some((state, state.find()?))) {
            return Ok(LeasedAddress { ip: found.1, block: found.0.block.clone() });
        }
        if pool != self.mode.default_pool && of_pool().next().is_none() {
            let known: BTreeSet<&str> = active().map(|state| state.block.pool.as_str()).collect();
            return Err(IpamError::UnknownPool {
                pool: pool.to_owned(),
                mode: self.mode.name.to_owned(),
                known: known.into_iter().map(str::to_owned).collect(),
            });
        }
        if of_family().next().is_none() {
            return Err(IpamError::NotReady { family, expected_from: self.mode.expected_from.to_owned() });
        }
        Err(IpamError::Exhausted {
            pool: pool.to_owned(),
            family,
            // Lossless: a usize has at most 64 bits.
            leased: of_family().map(|state| state.leased() as u64).sum(),
            capacity: of_family().map(|state| state.capacity() as u64).sum(),
        })
    }

    /// The block that a restored address belongs to: the recorded one if it is known, else one that holds it.
    fn place(&self, leased: &LeasedAddress, lease: &Lease) -> Result<LeasedAddress, IpamError> {
        let ip = leased.ip;
        let taken = |holder| IpamError::Taken { ip, holder, attachment: lease.attachment.clone() };
        // Only who finds his address taken looks for its holder among all leases.
        let is_free = self.blocks.iter().any(|state| state.is_free(ip));
        let holds = |other: &&Lease| other.addresses.iter().any(|held| held.ip == ip);
        let other = if is_free { None } else { self.leases.values().find(holds) };
        if let Some(other) = other.filter(|other| other.attachment != lease.attachment) {
            return Err(taken(other.owner.clone()));
        }
        // The router address is the node's own and may be counted among its addresses.
        if self.reserved.contains(&ip) && lease.owner != Owner::Router {
            return Err(taken(Owner::Container("this node itself".to_owned())));
        }
        let holds = |state: &&BlockState| !state.given_up && state.range.index_of(ip).is_some();
        let recorded = self.blocks.iter().filter(holds).find(|state| state.block == leased.block);
        match recorded.or_else(|| self.blocks.iter().find(holds)) {
            Some(state) => Ok(LeasedAddress { ip, block: state.block.clone() }),
            None => Err(IpamError::OutOfRange { ip, blocks: self.blocks.iter().map(BlockState::cidr).collect() }),
        }
    }

    fn take(&mut self, leased: &LeasedAddress) {
        for state in &mut self.blocks {
            if state.block == leased.block {
                state.count_lease();
            }
            state.occupy(leased.ip);
        }
    }

    /// Counts anew what is free, from leases and reserved addresses.
    fn recount(&mut self) {
        for state in &mut self.blocks {
            state.reset();
            for ip in &self.reserved {
                state.occupy(*ip);
            }
            for leased in self.leases.values().flat_map(|lease| &lease.addresses) {
                state.occupy(leased.ip);
                if leased.block == state.block {
                    state.count_lease();
                }
            }
        }
    }
}

fn overlaps(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
