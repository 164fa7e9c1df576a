//! The node's IPAM modes: one that gives new leases, and others that keep those which they gave before.
//!
//! A cluster changes its mode while it runs: an agent that starts with another mode takes the leases of the old one over as
//! they are, and the old mode drains. A lease says which mode it is of, so each call about a lease goes to its own mode;
//! new leases come from the preferred one alone. Nothing here names a backend.

pub(crate) mod blocks;
pub(crate) mod exhaustion;
pub(crate) mod lease;
pub(crate) mod own;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod publish;
mod settle;
pub(crate) mod sockets;
pub(crate) mod waiters;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use kinesin_core::ipam::{BlockSource, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, Owner};

/// One mode.
#[derive(Debug, Clone)]
pub(crate) struct Mode {
    /// Registry name.
    pub(crate) name: String,
    /// Where its blocks come from.
    pub(crate) source: BlockSource,
    pub(crate) ipam: Arc<dyn Ipam>,
}

/// Every mode that is compiled in. Those that are not preferred hold nothing unless an earlier run preferred them.
#[derive(Debug, Clone)]
pub(crate) struct Modes {
    preferred: Mode,
    others: Vec<Mode>,
}

/// Why a lease of an earlier run cannot be taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RestoreError {
    /// Its mode is not there.
    #[error("its IPAM mode {mode:?} is not compiled into this agent, which has: {known}; run the agent that gave it")]
    UnknownMode {
        /// The mode.
        mode: String,
        /// What there is.
        known: String,
    },
    /// The mode refuses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
}

impl Modes {
    pub(crate) fn new(preferred: Mode, others: Vec<Mode>) -> Self {
        Self { preferred, others }
    }

    /// The mode that gives new leases.
    pub(crate) fn preferred(&self) -> &Mode {
        &self.preferred
    }

    /// The modes that only keep old leases.
    pub(crate) fn draining(&self) -> impl Iterator<Item = &Mode> {
        self.others.iter()
    }

    /// Every mode, the preferred one first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Mode> {
        std::iter::once(&self.preferred).chain(&self.others)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Mode> {
        self.all().find(|mode| mode.name == name)
    }

    /// Takes a lease back into its own mode; `taken` are the addresses that were taken back so far, each with its mode,
    /// and gets this lease's: a mode does not see what another holds.
    pub(crate) async fn restore(
        &self,
        lease: &Lease,
        taken: &mut BTreeMap<IpAddr, String>,
    ) -> Result<(), RestoreError> {
        let mode = self.get(&lease.mode).ok_or_else(|| {
            let known: Vec<_> = self.all().map(|mode| mode.name.as_str()).collect();
            RestoreError::UnknownMode { mode: lease.mode.clone(), known: known.join(", ") }
        })?;
        for ip in lease.addresses.iter().map(|leased| leased.ip) {
            if let Some(other) = taken.get(&ip).filter(|other| **other != lease.mode) {
                let holder = Owner::Container(format!("a lease of the IPAM mode {other:?}"));
                return Err(IpamError::Taken { ip, holder, attachment: lease.attachment.clone() }.into());
            }
        }
        mode.ipam.restore(lease).await?;
        taken.extend(lease.addresses.iter().map(|leased| (leased.ip, lease.mode.clone())));
        Ok(())
    }

    /// Gives the addresses of a lease of this mode back.
    pub(crate) async fn release(&self, mode: &str, attachment: &str) -> Result<Option<Lease>, IpamError> {
        match self.get(mode) {
            Some(mode) => mode.ipam.release(attachment).await,
            // A lease that could not be restored holds nothing.
            None => Ok(None),
        }
    }

    /// What every mode has, the preferred one first; modes that hold nothing are left out.
    pub(crate) fn snapshots(&self) -> Vec<(&Mode, IpamSnapshot)> {
        let all = self.all().map(|mode| (mode, mode.ipam.snapshot()));
        all.filter(|(mode, snapshot)| mode.name == self.preferred.name || !snapshot.is_empty()).collect()
    }

    /// Blocks and leases of all modes together, those of the preferred mode first.
    pub(crate) fn snapshot(&self) -> IpamSnapshot {
        let mut whole = IpamSnapshot::default();
        for (_, snapshot) in self.snapshots() {
            whole.blocks.extend(snapshot.blocks);
            for (attachment, lease) in snapshot.leases {
                // The router may hold one lease of each mode for a while.
                let key = if whole.leases.contains_key(&attachment) {
                    format!("{attachment} ({})", lease.mode)
                } else {
                    attachment
                };
                whole.leases.insert(key, lease);
            }
        }
        whole
    }

    /// Lets every mode but the preferred one drain, and ends those that have nothing left.
    pub(crate) async fn drain(&self) -> Result<(), IpamError> {
        for mode in self.draining() {
            let snapshot = mode.ipam.snapshot();
            if snapshot.is_empty() {
                continue;
            }
            mode.ipam.apply(&IpamDesired::default()).await?;
            if snapshot.leases.is_empty() {
                mode.ipam.retire().await?;
                tracing::info!(mode = mode.name, "the last lease of this IPAM mode is gone");
            }
        }
        Ok(())
    }

    /// Addresses that the draining modes have leased: no other mode may give them out.
    pub(crate) fn leased_while_draining(&self) -> Vec<IpAddr> {
        let leases = self.draining().flat_map(|mode| mode.ipam.snapshot().leases.into_values());
        leases.flat_map(|lease| lease.addresses).map(|leased| leased.ip).collect()
    }
}

/// Whether a lease is the node's own.
pub(crate) fn is_own(lease: &Lease) -> bool {
    matches!(lease.owner, Owner::Router | Owner::Health)
}

#[cfg(test)]
mod tests;
