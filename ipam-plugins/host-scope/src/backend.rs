//! The trait implementation: host scope's own rules around the shared allocator.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease},
    registry::{BuildContext, BuildError},
    values::{Families, Family},
};
use kinesin_ipam_allocator::{Allocator, Mode, Range};

use crate::{
    NAME,
    config::{Config, Settings},
};

const MODE: Mode = Mode {
    name: NAME,
    default_pool: Cow::Borrowed("default"),
    expected_from: "Node.spec.podCIDRs, which kube-controller-manager fills in with --allocate-node-cidrs (kubeadm: \
                    networking.podSubnet); a dual-stack cluster needs a CIDR of both families there",
};

/// Leases from the pod CIDRs that Kubernetes gave to this node.
#[derive(Debug)]
pub struct HostScope {
    settings: Settings,
    families: Families,
    allocator: Mutex<Allocator>,
}

/// Builds the backend from its section.
pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let settings = context.section.parse::<Config>()?.validate()?;
    Ok(Arc::new(HostScope::new(settings, context.families)))
}

impl HostScope {
    pub(crate) fn new(settings: Settings, families: Families) -> Self {
        Self { settings, families, allocator: Mutex::new(Allocator::new(MODE)) }
    }

    fn allocator(&self) -> MutexGuard<'_, Allocator> {
        // No method of the allocator leaves it half changed; a panic elsewhere must not end IPAM.
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses pod CIDRs that together cannot hold what a node needs of a family.
    fn check_size(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        for family in self.families.iter() {
            let cidrs: Vec<IpNet> =
                desired.blocks.iter().map(|block| block.cidr).filter(|cidr| Family::of_net(cidr) == family).collect();
            let Some(first) = cidrs.first().copied() else {
                continue;
            };
            let mut usable = 0;
            for cidr in cidrs {
                let range = Range::new(cidr).map_err(|reason| IpamError::InvalidBlock { cidr, reason })?;
                let held = desired.reserved.iter().filter(|ip| range.index_of(**ip).is_some()).count();
                usable += range.usable().saturating_sub(held);
            }
            if usable < self.settings.min_addresses as usize {
                let reason = format!(
                    "{usable} {family} addresses can be leased from it, and a node needs {} for its router, its health \
                     endpoint and pods; give the node a larger pod CIDR (a /24 or a /120 is usual)",
                    self.settings.min_addresses
                );
                return Err(IpamError::InvalidBlock { cidr: first, reason });
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Ipam for HostScope {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        self.check_size(desired)?;
        let mut allocator = self.allocator();
        if allocator.apply(desired)? {
            for used in allocator.snapshot().blocks {
                tracing::info!(
                    cidr = %used.block.cidr, capacity = used.capacity, leased = used.leased, draining = used.draining,
                    "pod CIDR in use"
                );
            }
        }
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        self.allocator().allocate(request)
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        self.allocator().restore(lease)
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        Ok(self.allocator().release(attachment))
    }

    fn snapshot(&self) -> IpamSnapshot {
        self.allocator().snapshot()
    }

    async fn retire(&self) -> Result<(), IpamError> {
        self.allocator().retire()
    }
}
