//! One fault per behaviour of `Ipam`, around the reference.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease},
    registry::{BuildContext, BuildError},
    values::Families,
};

use crate::reference::ipam::Reference;

/// The reference, wrong in the behaviour `breaks`.
#[derive(Debug)]
struct Wrong {
    breaks: &'static str,
    inner: Reference,
    /// Leases from the same blocks without a word to the first.
    twin: Reference,
    count: AtomicUsize,
    dir: PathBuf,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(breaks: &'static str, context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let (inner, twin, count) = (Reference::default(), Reference::default(), AtomicUsize::new(0));
    Ok(Arc::new(Wrong { breaks, inner, twin, count, dir: context.state_dir.clone() }))
}

impl Wrong {
    fn breaks(&self, id: &str) -> bool {
        self.breaks == id
    }

    fn next(&self) -> usize {
        self.count.fetch_add(1, Ordering::SeqCst)
    }

    /// Whether an attachment is the twin's.
    async fn is_twins(&self, attachment: &str) -> bool {
        self.twin.snapshot().leases.contains_key(attachment)
    }
}

#[async_trait]
impl Ipam for Wrong {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut desired = desired.clone();
        if self.breaks("IPAM-1") {
            // Takes the neighbours' addresses for its own.
            for block in &mut desired.blocks {
                block.cidr = block.cidr.supernet().map_or(block.cidr, |wider: IpNet| wider.trunc());
            }
        }
        if self.breaks("IPAM-8") {
            // Never lets a block go.
            let old = self.inner.snapshot().blocks.into_iter().map(|used| used.block);
            let old: Vec<_> = old.filter(|block| !desired.blocks.contains(block)).collect();
            desired.blocks.extend(old);
        }
        if self.breaks("IPAM-9") {
            desired.reserved.clear();
        }
        self.twin.apply(&desired).await?;
        self.inner.apply(&desired).await
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let held = self.inner.snapshot().leases.contains_key(&request.attachment);
        if self.breaks("IPAM-2") && !held && (self.is_twins(&request.attachment).await || self.next() % 2 == 1) {
            return self.twin.allocate(request).await;
        }
        if self.breaks("IPAM-3") && held {
            // The next free address instead of the own one.
            self.inner.release(&request.attachment).await?;
            let decoy = AllocateRequest { attachment: "decoy".to_owned(), ..request.clone() };
            self.inner.allocate(&decoy).await?;
            let lease = self.inner.allocate(request).await;
            self.inner.release("decoy").await?;
            return lease;
        }
        match self.inner.allocate(request).await {
            Err(error) if self.breaks("IPAM-4") => {
                // Takes what it can get.
                for family in [Families { v4: true, v6: false }, Families { v4: false, v6: true }] {
                    let _half = self.inner.allocate(&AllocateRequest { families: family, ..request.clone() }).await;
                }
                Err(error)
            }
            Err(IpamError::Exhausted { pool, family, .. }) if self.breaks("IPAM-7") => {
                Err(IpamError::Exhausted { pool, family, leased: 0, capacity: 0 })
            }
            other => other,
        }
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        match self.inner.restore(lease).await {
            Err(IpamError::Taken { ip, .. }) if self.breaks("IPAM-6") => {
                // The latest claim wins.
                let leases = self.inner.snapshot().leases;
                for (attachment, _) in leases.iter().filter(|(_, held)| held.addresses.iter().any(|a| a.ip == ip)) {
                    self.inner.release(attachment).await?;
                }
                self.inner.restore(lease).await
            }
            other => other,
        }
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        if self.is_twins(attachment).await {
            return self.twin.release(attachment).await;
        }
        let ended = self.inner.release(attachment).await?;
        if let (true, Some(lease)) = (self.breaks("IPAM-5"), &ended) {
            // Says that it ended, and keeps the addresses.
            self.inner.restore(&Lease { attachment: format!("leak-{}", self.next()), ..lease.clone() }).await?;
        }
        Ok(ended)
    }

    fn snapshot(&self) -> IpamSnapshot {
        let mut snapshot = self.inner.snapshot();
        snapshot.leases.extend(self.twin.snapshot().leases);
        snapshot.leases.retain(|attachment, _| !attachment.starts_with("leak-"));
        snapshot
    }

    async fn retire(&self) -> Result<(), IpamError> {
        self.inner.retire().await?;
        if self.breaks("IPAM-10") {
            std::fs::write(self.dir.join("leases"), "")
                .map_err(|source| IpamError::Store { path: self.dir.clone(), source })?;
        }
        Ok(())
    }
}
