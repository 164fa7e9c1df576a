//! How the faults are done that take more than a line.

use kinesin_core::{
    ipam::{AllocateRequest, Block, Ipam as _, IpamError, Lease, PoolDemand},
    values::{Families, Family},
};

use super::{Wrong, lock};

impl Wrong {
    /// The next free address instead of the attachment's own.
    pub(super) async fn moved(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        self.inner.release(&request.attachment).await?;
        let decoy = AllocateRequest { attachment: "decoy".to_owned(), ..request.clone() };
        self.inner.allocate(&decoy).await?;
        let lease = self.inner.allocate(request).await;
        self.inner.release("decoy").await?;
        lease
    }

    /// Takes what it can get.
    pub(super) async fn half(&self, request: &AllocateRequest, error: IpamError) -> Result<Lease, IpamError> {
        for family in request.families.iter() {
            let families = Families { v4: family == Family::V4, v6: family == Family::V6 };
            let _half = self.inner.allocate(&AllocateRequest { families, ..request.clone() }).await;
        }
        Err(error)
    }

    pub(super) async fn any_pool(&self, request: &AllocateRequest, error: IpamError) -> Result<Lease, IpamError> {
        let pools = self.inner.snapshot().blocks.into_iter().filter(|used| !used.draining).map(|used| used.block.pool);
        for pool in pools {
            let lease = self.inner.allocate(&AllocateRequest { pool: Some(pool), ..request.clone() }).await;
            if lease.is_ok() {
                return lease;
            }
        }
        Err(error)
    }

    pub(super) fn tried(&self, request: &AllocateRequest, failed: bool) {
        let (mut tries, owner) = (lock(&self.tries), request.owner.to_string());
        if failed {
            tries.entry(owner).or_default().insert(request.attachment.clone());
        } else {
            tries.remove(&owner);
        }
    }

    /// Counts one owner as often as it has tried with another sandbox.
    pub(super) fn by_sandbox(&self, pools: &mut [PoolDemand]) {
        let more: usize = lock(&self.tries).values().map(|attachments| attachments.len() - 1).sum();
        pools.iter_mut().filter(|found| found.waiting > 0).for_each(|found| found.waiting += more as u64);
    }

    pub(super) fn without_old_blocks(&self, pools: &mut [PoolDemand]) {
        let blocks = self.inner.snapshot().blocks;
        for found in pools {
            let of = |block: &Block| block.pool == found.pool && Family::of_net(&block.cidr) == found.family;
            found.in_use = blocks.iter().filter(|used| of(&used.block) && !used.draining).map(|used| used.leased).sum();
        }
    }

    pub(super) async fn evict(&self, taken: std::net::IpAddr) -> Result<(), IpamError> {
        let leases = self.inner.snapshot().leases;
        for (attachment, _) in leases.iter().filter(|(_, held)| held.addresses.iter().any(|a| a.ip == taken)) {
            self.inner.release(attachment).await?;
        }
        Ok(())
    }
}
