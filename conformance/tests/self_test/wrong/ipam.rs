//! Faults of `Ipam`, around the reference.

mod means;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    capability::Capability,
    ipam::{AllocateRequest, Block, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, Owner},
    registry::{BuildContext, BuildError},
};

use super::{Fault, fault};
use crate::reference::ipam::Reference;

/// At least one per behaviour.
pub(crate) const FAULTS: &[Fault] = &[
    fault("neighbours_range_too", "IPAM-1", &["IPAM-7", "IPAM-8", "IPAM-13"]),
    fault("two_allocators", "IPAM-2", &["IPAM-6", "IPAM-7", "IPAM-8", "IPAM-12", "IPAM-13", "IPAM-16"]),
    fault("next_address_each_time", "IPAM-3", &["IPAM-4", "IPAM-5", "IPAM-6", "IPAM-7", "IPAM-8"]),
    fault("one_more_family_moves_both", "IPAM-3", &["IPAM-4", "IPAM-5", "IPAM-7"]),
    fault("half_a_lease", "IPAM-4", &["IPAM-7", "IPAM-12", "IPAM-16"]),
    fault("released_address_leaks", "IPAM-5", &["IPAM-7", "IPAM-8", "IPAM-10"]),
    fault("latest_claim_wins", "IPAM-6", &[]),
    fault("restored_without_a_mark", "IPAM-6", &[]),
    fault("restores_anything", "IPAM-6", &["IPAM-13"]),
    fault("full_pool_without_counts", "IPAM-7", &[]),
    fault("full_pool_is_not_ready", "IPAM-7", &[]),
    fault("blocks_never_leave", "IPAM-8", &["IPAM-13", "IPAM-15"]),
    fault("leases_leave_with_their_block", "IPAM-8", &["IPAM-12"]),
    fault("reserved_is_leased", "IPAM-9", &[]),
    fault("retire_leaves_a_file", "IPAM-10", &[]),
    fault("retire_forgets_leases", "IPAM-10", &[]),
    fault("any_pool_will_do", "IPAM-11", &["IPAM-12"]),
    fault("unknown_pool_is_the_default", "IPAM-11", &["IPAM-12"]),
    fault("nobody_waits", "IPAM-12", &[]),
    fault("each_sandbox_waits", "IPAM-12", &[]),
    fault("leases_of_old_blocks_are_not_counted", "IPAM-12", &[]),
    fault("asking_ends_the_wait", "IPAM-12", &["IPAM-16"]),
    fault("given_back_blocks_give_leases", "IPAM-13", &[]),
    fault("blocks_with_leases_are_given_back", "IPAM-13", &[]),
    fault("given_back_is_told_once", "IPAM-13", &[]),
    fault("asks_for_what_it_gave_back", "IPAM-14", &[]),
    fault("given_back_for_good", "IPAM-15", &[]),
    fault("the_forgotten_wait_on", "IPAM-16", &[]),
    fault("all_are_forgotten", "IPAM-16", &[]),
    fault("leases_of_the_forgotten_end", "IPAM-16", &[]),
];

/// The reference with a fault.
#[derive(Debug)]
struct Wrong {
    fault: &'static str,
    inner: Reference,
    /// Leases from the same blocks without a word to the first.
    twin: Reference,
    count: AtomicUsize,
    /// Blocks that were given back: of the applied state, or ever in the fault that is about them.
    told: Mutex<BTreeSet<Block>>,
    /// Attachments that found no address, of each owner's name.
    tries: Mutex<BTreeMap<String, BTreeSet<String>>>,
    dir: PathBuf,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(
    fault: &'static str,
    provides: &[Capability],
    context: &BuildContext,
) -> Result<Arc<dyn Ipam>, BuildError> {
    let (inner, twin, count) = (Reference::new(provides), Reference::new(provides), AtomicUsize::new(0));
    let (told, tries, dir) = (Mutex::default(), Mutex::default(), context.state_dir.clone());
    Ok(Arc::new(Wrong { fault, inner, twin, count, told, tries, dir }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wrong {
    fn is(&self, fault: &str) -> bool {
        self.fault == fault
    }

    fn next(&self) -> usize {
        self.count.fetch_add(1, Ordering::SeqCst)
    }
}

#[async_trait]
impl Ipam for Wrong {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut desired = desired.clone();
        match self.fault {
            "neighbours_range_too" => {
                for block in &mut desired.blocks {
                    block.cidr = block.cidr.supernet().map_or(block.cidr, |wider: IpNet| wider.trunc());
                }
            }
            "blocks_never_leave" => {
                let old = self.inner.snapshot().blocks.into_iter().map(|used| used.block);
                let old: Vec<_> = old.filter(|block| !desired.blocks.contains(block)).collect();
                desired.blocks.extend(old);
            }
            "leases_leave_with_their_block" => {
                for lease in self.inner.snapshot().leases.values() {
                    if !lease.addresses.iter().all(|leased| desired.blocks.contains(&leased.block)) {
                        self.inner.release(&lease.attachment).await?;
                    }
                }
            }
            "reserved_is_leased" => desired.reserved.clear(),
            _ => {}
        }
        self.twin.apply(&desired).await?;
        self.inner.apply(&desired).await?;
        let mut told = lock(&self.told);
        if self.is("given_back_for_good") {
            self.inner.give_up(told.iter().filter(|block| desired.blocks.contains(block)).cloned());
        } else {
            told.retain(|block| desired.blocks.contains(block));
        }
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let held = self.inner.snapshot().leases.remove(&request.attachment);
        let twins = self.twin.snapshot().leases.contains_key(&request.attachment);
        if self.is("two_allocators") && held.is_none() && (twins || self.next() % 2 == 1) {
            return self.twin.allocate(request).await;
        }
        if let Some(held) = held {
            let more = request.families.iter().any(|family| held.address(family).is_none());
            if self.is("next_address_each_time") || (self.is("one_more_family_moves_both") && more) {
                return self.moved(request).await;
            }
        }
        let answer = self.inner.allocate(request).await;
        self.tried(request, answer.is_err());
        match (self.fault, answer) {
            ("half_a_lease", Err(error)) => self.half(request, error).await,
            ("full_pool_without_counts", Err(IpamError::Exhausted { pool, family, .. })) => {
                Err(IpamError::Exhausted { pool, family, leased: 0, capacity: 0 })
            }
            ("full_pool_is_not_ready", Err(IpamError::Exhausted { family, .. })) => {
                Err(IpamError::NotReady { family, expected_from: "nobody".to_owned() })
            }
            ("any_pool_will_do", Err(error)) => self.any_pool(request, error).await,
            ("unknown_pool_is_the_default", Err(IpamError::UnknownPool { .. })) => {
                self.inner.allocate(&AllocateRequest { pool: None, ..request.clone() }).await
            }
            ("restored_without_a_mark", Ok(lease)) => Ok(Lease { restored: false, ..lease }),
            (_, answer) => answer,
        }
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        let answer = self.inner.restore(lease).await;
        match (self.fault, answer) {
            ("latest_claim_wins", Err(IpamError::Taken { ip, .. })) => {
                self.evict(ip).await?;
                self.inner.restore(lease).await
            }
            ("restores_anything", Err(IpamError::OutOfRange { .. })) => Ok(()),
            (_, answer) => answer,
        }
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        if self.twin.snapshot().leases.contains_key(attachment) {
            return self.twin.release(attachment).await;
        }
        let ended = self.inner.release(attachment).await?;
        if let (true, Some(lease)) = (self.is("released_address_leaks"), &ended) {
            // Says that it ended, and keeps the addresses, unless their block has left.
            let leak = Lease { attachment: format!("leak-{}", self.next()), ..lease.clone() };
            let _kept = self.inner.restore(&leak).await;
        }
        Ok(ended)
    }

    fn snapshot(&self) -> IpamSnapshot {
        let mut snapshot = self.inner.snapshot();
        snapshot.leases.extend(self.twin.snapshot().leases);
        snapshot.leases.retain(|attachment, _| !attachment.starts_with("leak-"));
        if self.is("restored_without_a_mark") {
            snapshot.leases.values_mut().for_each(|lease| lease.restored = false);
        }
        snapshot
    }

    fn demand(&self) -> Demand {
        let mut demand = self.inner.demand();
        match self.fault {
            "nobody_waits" => demand.pools.iter_mut().for_each(|found| found.waiting = 0),
            "each_sandbox_waits" => self.by_sandbox(&mut demand.pools),
            "leases_of_old_blocks_are_not_counted" => self.without_old_blocks(&mut demand.pools),
            // Right only the first time.
            "asking_ends_the_wait" if self.next() % 2 == 1 => {
                demand.pools.iter_mut().for_each(|found| found.waiting = 0);
            }
            "asks_for_what_it_gave_back" => demand.pools.iter_mut().for_each(|found| found.wanted += 6),
            _ => {}
        }
        demand
    }

    fn forget_waiting(&self, owner: &Owner) {
        lock(&self.tries).remove(&owner.to_string());
        match self.fault {
            "the_forgotten_wait_on" => {}
            "all_are_forgotten" => self.inner.forget_everybody(),
            "leases_of_the_forgotten_end" => self.inner.forget_leases(owner),
            _ => self.inner.forget_waiting(owner),
        }
    }

    async fn give_back(&self) -> Result<Vec<Block>, IpamError> {
        match self.fault {
            "given_back_blocks_give_leases" => {
                let mut told = lock(&self.told);
                told.extend(self.inner.spare());
                let applied = self.inner.snapshot().blocks.into_iter().filter(|used| !used.draining);
                return Ok(applied.map(|used| used.block).filter(|block| told.contains(block)).collect());
            }
            "blocks_with_leases_are_given_back" => {
                let applied = self.inner.snapshot().blocks.into_iter().filter(|used| !used.draining);
                self.inner.give_up(applied.filter(|used| used.leased > 0).map(|used| used.block));
            }
            _ => {}
        }
        let answer = self.inner.give_back().await?;
        let mut told = lock(&self.told);
        let new = answer.iter().filter(|block| !told.contains(*block)).cloned().collect();
        told.extend(answer.iter().cloned());
        Ok(if self.is("given_back_is_told_once") { new } else { answer })
    }

    async fn retire(&self) -> Result<(), IpamError> {
        if self.is("retire_forgets_leases") {
            for attachment in self.inner.snapshot().leases.keys() {
                self.inner.release(attachment).await?;
            }
        }
        let leases = self.snapshot().leases.len();
        if leases > 0 {
            return Err(IpamError::InUse { leases });
        }
        self.twin.retire().await?;
        self.inner.retire().await?;
        lock(&self.told).clear();
        lock(&self.tries).clear();
        if self.is("retire_leaves_a_file") {
            let path = self.dir.join("leases");
            std::fs::write(&path, "").map_err(|source| IpamError::Store { path, source })?;
        }
        Ok(())
    }
}
