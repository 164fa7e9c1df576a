//! What a node and its control plane owe each other: who waits for addresses, and which blocks were given back.

use std::collections::{BTreeMap, BTreeSet};

use kinesin_core::{
    ipam::{Block, Demand, IpamDesired, IpamSnapshot, Lease},
    values::Family,
};

use super::{
    harness::{DEFAULT_POOL, Node},
    model::{Breach, demand},
};

type Place = (String, Family);

/// Who waits, and which blocks were given back.
#[derive(Debug, Clone, Default)]
pub(super) struct Owed {
    /// Where the last try of each owner found no address.
    waiting: BTreeMap<String, BTreeSet<Place>>,
    /// Blocks of the applied state that were given back.
    pub(super) given_back: BTreeSet<Block>,
    /// Blocks that were given back, left the state and came again.
    pub(super) come_again: BTreeSet<Block>,
    /// Blocks that were given back and have left the state.
    gone: BTreeSet<Block>,
}

impl Owed {
    /// A state was applied.
    pub(super) fn applied(&mut self, blocks: &[Block]) {
        let (kept, left) = std::mem::take(&mut self.given_back).into_iter().partition(|block| blocks.contains(block));
        self.given_back = kept;
        self.come_again.extend(self.gone.iter().filter(|block| blocks.contains(block)).cloned());
        self.gone.retain(|block| !blocks.contains(block));
        self.gone.extend::<BTreeSet<Block>>(left);
    }

    /// An owner has tried to get an address, and lacks these families.
    pub(super) fn tried(
        &mut self,
        who: &str,
        pool: &str,
        missing: impl Iterator<Item = Family>,
        snapshot: &IpamSnapshot,
    ) {
        // Whether the last IPv6 address of a block is used is the backend's choice, so its word counts.
        let none_left = missing.filter(|family| {
            let of = |block: &Block| block.pool == pool && Family::of_net(&block.cidr) == *family;
            !snapshot.blocks.iter().any(|used| of(&used.block) && !used.draining && used.capacity > used.leased)
        });
        self.waiting.insert(who.to_owned(), none_left.map(|family| (pool.to_owned(), family)).collect());
    }

    /// An owner is gone.
    pub(super) fn forgot(&mut self, who: &str) {
        self.waiting.remove(who);
    }

    /// The agent was started again: nobody has tried yet, and whether given-back blocks are remembered is the backend's.
    pub(super) fn restarted(&mut self, snapshot: &IpamSnapshot) {
        let remembered = |block: &Block| snapshot.blocks.iter().any(|used| used.block == *block && used.draining);
        self.given_back.retain(remembered);
        (self.waiting, self.come_again, self.gone) = Default::default();
    }

    /// Judges the demand.
    pub(super) fn counted(&self, node: &Node<'_>, leases: &BTreeMap<String, Lease>) -> Result<(), Breach> {
        let (before, told) = (node.snapshot(), node.demand());
        demand!(node.demand() == told, "IPAM-12", "asked again, {told:?} became {:?}", node.demand());
        demand!(node.snapshot() == before, "IPAM-12", "asking for the demand left {:?}", node.snapshot());
        if !node.asks {
            return nobody_is_asked(&told);
        }
        let mut expected: BTreeMap<Place, (u64, u64)> = BTreeMap::new();
        for leased in leases.values().flat_map(|lease| &lease.addresses) {
            expected.entry((leased.block.pool.clone(), Family::of(&leased.ip))).or_default().0 += 1;
        }
        for place in self.waiting.values().flatten() {
            expected.entry(place.clone()).or_default().1 += 1;
        }
        // Whether a pool that the mode cannot have is asked for is the mode's choice.
        let judged = |pool: &str| node.named_pools || pool == DEFAULT_POOL;
        let mut seen = BTreeSet::new();
        for found in told.pools.iter().filter(|found| judged(&found.pool)) {
            let place = (found.pool.clone(), found.family);
            let counts = expected.get(&place).copied().unwrap_or_default();
            let said = (found.in_use, found.waiting);
            demand!(said == counts, "IPAM-12", "{counts:?} are in use and waiting at {place:?}, told are {said:?}");
            demand!(found.wanted >= found.in_use, "IPAM-12", "less is wanted than is in use: {found:?}");
            demand!(seen.insert(place), "IPAM-12", "a pool is counted twice: {told:?}");
        }
        let left_out = expected.iter().find(|(place, _)| judged(&place.0) && !seen.contains(*place));
        demand!(left_out.is_none(), "IPAM-12", "{left_out:?} are in use and waiting, and not in {told:?}");
        Ok(())
    }

    /// Judges what was given back, and takes it over.
    pub(super) fn gave_back(
        &mut self,
        node: &Node<'_>,
        desired: &IpamDesired,
        leases: &BTreeMap<String, Lease>,
        answer: Vec<Block>,
    ) -> Result<(), Breach> {
        demand!(node.asks || answer.is_empty(), "IPAM-13", "{answer:?} were given back to nobody: {NOT_SERVED}");
        let kept = self.given_back.iter().find(|block| !answer.contains(block));
        demand!(
            kept.is_none(),
            "IPAM-13",
            "{kept:?} was given back and is still applied, and the answer is {answer:?}"
        );
        let stray = answer.iter().find(|block| !desired.blocks.contains(block));
        demand!(stray.is_none(), "IPAM-13", "{stray:?} was given back, applied are {:?}", desired.blocks);
        for leased in leases.values().flat_map(|lease| &lease.addresses) {
            demand!(
                !answer.contains(&leased.block),
                "IPAM-13",
                "{} was given back with the lease {leased:?}",
                leased.block.cidr
            );
        }
        let new: Vec<&Block> = answer.iter().filter(|block| !self.given_back.contains(*block)).collect();
        let (snapshot, told) = (node.snapshot(), node.demand());
        for block in new {
            let family = Family::of_net(&block.cidr);
            let left = capacity(&snapshot, &block.pool, family, &answer);
            let wanted = told.of(&block.pool, family).map_or(0, |found| found.wanted);
            demand!(
                left >= wanted,
                "IPAM-14",
                "{block:?} was given back, {left} addresses are left and {wanted} wanted"
            );
        }
        self.come_again.retain(|block| !answer.contains(block));
        self.given_back = answer.into_iter().collect();
        Ok(())
    }
}

/// Why a mode without one of the capabilities must not ask.
const NOT_SERVED: &str =
    "the mode provides neither blocks:given-pod-cidrs nor blocks:given-pools, so that nobody serves it";

/// Judges the demand of a mode that takes whatever it is given.
fn nobody_is_asked(told: &Demand) -> Result<(), Breach> {
    demand!(*told == Demand::default(), "IPAM-12", "{told:?} is asked of nobody: {NOT_SERVED}");
    Ok(())
}

/// Addresses that the blocks of a pool and family can lease, those in `without` aside.
fn capacity(snapshot: &IpamSnapshot, pool: &str, family: Family, without: &[Block]) -> u64 {
    let of = |block: &Block| block.pool == pool && Family::of_net(&block.cidr) == family && !without.contains(block);
    snapshot.blocks.iter().filter(|used| of(&used.block) && !used.draining).map(|used| used.capacity).sum()
}
