//! The trait implementation: when a node asks for a further block, and when it gives one back.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use kinesin_core::{
    ipam::{AllocateRequest, Block, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease},
    registry::{BuildContext, BuildError},
    values::Families,
};
use kinesin_ipam_allocator::{Growing, Keep, Mode, Usage};

use crate::{
    NAME,
    config::{Config, Settings},
};

/// The one pool of this mode.
const POOL: &str = "default";

const MODE: Mode = Mode {
    name: NAME,
    default_pool: Cow::Borrowed(POOL),
    expected_from: "the operator, which cuts it out of cluster-pool-ipv4-cidr or cluster-pool-ipv6-cidr and writes it to \
                    the CiliumNode's spec.ipam.podCIDRs; look at its status.ipam.operator-status.error",
};

const BOUNDED: &str = "a node keeps to the blocks that it has because backendConfig.cluster_pool.grow is false: set it to \
                       true, or delete pods on this node";

/// Leases from the blocks that the operator gave to this node.
#[derive(Debug)]
pub struct ClusterPool {
    settings: Settings,
    families: Families,
    growing: Mutex<Growing>,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(ClusterPool::new(settings, context.families)))
}

impl ClusterPool {
    pub(crate) fn new(settings: Settings, families: Families) -> Self {
        Self { settings, families, growing: Mutex::new(Growing::new(MODE)) }
    }

    fn growing(&self) -> MutexGuard<'_, Growing> {
        // No method of the allocator leaves it half changed; a panic elsewhere must not end IPAM.
        self.growing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Free addresses below which the node asks. A /29 with half of its six addresses leased is not low.
    fn watermark(&self, usage: &Usage) -> u64 {
        self.settings.low_watermark.map_or_else(|| (usage.largest / 8).clamp(2, 64), u64::from)
    }

    fn wanted(&self, usage: &Usage) -> u64 {
        let needed = usage.in_use + usage.waiting;
        if self.settings.grow { needed + self.watermark(usage) } else { needed }
    }

    pub(crate) fn demand_at(&self, now: Instant) -> Demand {
        let always = self.families.iter().map(|family| (POOL, family));
        let demand = self.growing().demand(always, |usage| self.wanted(usage), now);
        Demand { bounded: (!self.settings.grow).then(|| BOUNDED.to_owned()), ..demand }
    }

    pub(crate) fn give_back_at(&self, now: Instant) -> Vec<Block> {
        let keep = |usage: &Usage| {
            if !self.settings.grow {
                return Keep { addresses: u64::MAX / 2, blocks: usize::MAX };
            }
            // Twice the watermark must stay free, or the next pod would ask for the block again.
            Keep { addresses: self.wanted(usage) + self.watermark(usage), blocks: 1 }
        };
        self.growing().give_back(keep, self.settings.linger, now)
    }
}

#[async_trait]
impl Ipam for ClusterPool {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut growing = self.growing();
        if growing.apply(desired)? {
            for used in growing.snapshot().blocks {
                tracing::info!(
                    cidr = %used.block.cidr, capacity = used.capacity, leased = used.leased, draining = used.draining,
                    "pod CIDR in use"
                );
            }
        }
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        self.growing().allocate(request, Instant::now())
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
