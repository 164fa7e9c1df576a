//! The trait implementation: how much a node asks of each pool, and what it gives back.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use kinesin_core::{
    ipam::{AllocateRequest, Block, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease},
    registry::{BuildContext, BuildError},
    values::{Families, Family},
};
use kinesin_ipam_allocator::{Growing, Keep, Mode, Usage};

use crate::{
    NAME,
    config::{Config, Settings},
};

/// Leases from the blocks of pools that the operator gave to this node.
#[derive(Debug)]
pub struct MultiPool {
    settings: Settings,
    families: Families,
    growing: Mutex<Growing>,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(MultiPool::new(settings, context.families)))
}

impl MultiPool {
    pub(crate) fn new(settings: Settings, families: Families) -> Self {
        let mode = Mode {
            name: NAME,
            default_pool: Cow::Owned(settings.default_pool.clone()),
            expected_from: "the operator, which cuts it out of a CiliumPodIPPool",
        };
        Self { settings, families, growing: Mutex::new(Growing::new(mode)) }
    }

    fn growing(&self) -> MutexGuard<'_, Growing> {
        // No method of the allocator leaves it half changed; a panic elsewhere must not end IPAM.
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses that a node has of a pool: full portions of the pre-allocation, at least one of which is free
    /// (Cilium's `neededIPCeil`; reference 5.4).
    fn wanted(&self, usage: &Usage) -> u64 {
        let base = usage.in_use + usage.waiting;
        match self.settings.pre_allocation.get(&usage.pool) {
            None => base,
            Some(portion) if base.is_multiple_of(*portion) => (base / portion + 1) * portion,
            Some(portion) => (base / portion + 2) * portion,
        }
    }

    pub(crate) fn demand_at(&self, now: Instant) -> Demand {
        let pools = self.settings.pre_allocation.keys();
        let always = pools.flat_map(|pool| self.families.iter().map(|family| (pool.as_str(), family)));
        self.growing().demand(always, |usage| self.wanted(usage), now)
    }

    pub(crate) fn give_back_at(&self, now: Instant) -> Vec<Block> {
        let keep = |usage: &Usage| Keep { addresses: self.wanted(usage), blocks: 0 };
        self.growing().give_back(keep, self.settings.linger, now)
    }

    pub(crate) fn allocate_at(&self, request: &AllocateRequest, now: Instant) -> Result<Lease, IpamError> {
        let refused = match self.growing().allocate(request, now) {
            Ok(lease) => return Ok(lease),
            Err(refused) => refused,
        };
        let pool = request.pool.as_ref().unwrap_or(&self.settings.default_pool).clone();
        // Whether such a pool exists is for the operator to say; here it is one of which the node has nothing.
        Err(match refused {
            IpamError::NotReady { family, .. } => IpamError::PoolNotReady { pool, family },
            IpamError::UnknownPool { .. } => {
                IpamError::PoolNotReady { pool, family: request.families.iter().next().unwrap_or(Family::V4) }
            }
            other => other,
        })
    }
}

#[async_trait]
impl Ipam for MultiPool {
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

#[cfg(test)]
mod tests;
