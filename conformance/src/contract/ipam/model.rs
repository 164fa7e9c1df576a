//! What an [`Ipam`](kinesin_core::ipam::Ipam) must hold after each step, and which behaviour it breaks otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use kinesin_core::{
    ipam::{Block, IpamDesired, IpamError, IpamSnapshot, Lease, LeasedAddress},
    values::{Families, Family},
};

use super::owed::Owed;

/// A breach of one behaviour.
#[derive(Debug, Clone)]
pub(super) struct Breach {
    pub(super) id: &'static str,
    pub(super) text: String,
}

/// Ends a history with a breach unless a condition holds.
macro_rules! demand {
    ($condition:expr, $id:literal, $($message:tt)+) => {
        if !$condition {
            return Err($crate::contract::ipam::model::Breach { id: $id, text: format!($($message)+) }.into());
        }
    };
}
pub(super) use demand;

/// Addresses of a small block that may be leased (IPAM-1).
pub(super) fn leasable(block: &Block) -> BTreeSet<IpAddr> {
    let network = block.cidr.trunc();
    let all: Vec<IpAddr> = match network {
        // Without network and broadcast address where there are more than two.
        IpNet::V4(network) => network.hosts().map(IpAddr::V4).collect(),
        IpNet::V6(network) => network.hosts().map(IpAddr::V6).collect(),
    };
    let host_bits = network.max_prefix_len() - network.prefix_len();
    all.into_iter().filter(|ip| network.addr().is_ipv4() || host_bits < 2 || *ip != network.network()).collect()
}

/// The last address of an IPv6 block, which a backend may use or leave.
fn optional(block: &Block, ip: IpAddr) -> bool {
    ip.is_ipv6() && ip == block.cidr.broadcast()
}

/// The state that was applied, and the leases that were given.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) desired: IpamDesired,
    pub(super) leases: BTreeMap<String, Lease>,
    /// Who waits, and which blocks were given back.
    pub(super) owed: Owed,
    /// Addresses that were leased at some time.
    used: BTreeSet<IpAddr>,
}

impl Model {
    /// The attachment that holds an address.
    pub(super) fn holder(&self, ip: IpAddr) -> Option<&Lease> {
        self.leases.values().find(|lease| lease.addresses.iter().any(|leased| leased.ip == ip))
    }

    /// Whether an address lies in a block of the applied state.
    pub(super) fn applied(&self, leased: &LeasedAddress) -> bool {
        self.desired.blocks.contains(&leased.block)
    }

    /// Judges the answer to a request, and takes a good lease over.
    pub(super) fn allocated(
        &mut self,
        pool: &str,
        who: &str,
        families: Families,
        answer: &Result<Lease, IpamError>,
    ) -> Result<(), Breach> {
        let held = self.leases.get(who);
        let missing: Vec<Family> =
            families.iter().filter(|family| held.is_none_or(|lease| lease.address(*family).is_none())).collect();
        match answer {
            Ok(lease) => {
                self.given(pool, who, held, &missing, lease)?;
                self.used.extend(lease.addresses.iter().map(|leased| leased.ip));
                self.leases.insert(who.to_owned(), lease.clone());
                Ok(())
            }
            Err(error) => {
                demand!(!missing.is_empty(), "IPAM-3", "{held:?} was asked for again: {error}");
                self.refused(pool, &missing, error)
            }
        }
    }

    fn given(
        &self,
        pool: &str,
        who: &str,
        held: Option<&Lease>,
        missing: &[Family],
        lease: &Lease,
    ) -> Result<(), Breach> {
        demand!(lease.attachment == who, "IPAM-3", "{who:?} got the lease of {:?}", lease.attachment);
        let old = held.map_or(&[][..], |held| &held.addresses);
        let kept = old.iter().all(|leased| lease.addresses.contains(leased));
        demand!(kept, "IPAM-3", "{held:?} became {lease:?}");
        if missing.is_empty() {
            demand!(Some(lease) == held, "IPAM-3", "{held:?} became {lease:?}");
        }
        let new: Vec<&LeasedAddress> = lease.addresses.iter().filter(|leased| !old.contains(leased)).collect();
        let families: Vec<Family> = new.iter().map(|leased| Family::of(&leased.ip)).collect();
        demand!(families == missing, "IPAM-4", "{missing:?} were missing, and {families:?} came");
        for LeasedAddress { ip, block } in new {
            if let Some(holder) = self.holder(*ip) {
                let holder = &holder.attachment;
                return Err(Breach { id: "IPAM-2", text: format!("{ip} of {holder:?} was leased to {who:?} too") });
            }
            demand!(!self.owed.given_back.contains(block), "IPAM-13", "{ip} is of {block:?}, which was given back");
            demand!(block.pool == pool, "IPAM-11", "{ip} of pool {:?} was leased from {pool:?}", block.pool);
            demand!(!self.desired.reserved.contains(ip), "IPAM-9", "{ip} is reserved and was leased");
            let draining =
                !self.desired.blocks.contains(block) && self.used.iter().any(|used| block.cidr.contains(used));
            demand!(!draining, "IPAM-8", "{ip} is of {}, which is no longer applied", block.cidr);
            let good = self.desired.blocks.contains(block) && leasable(block).contains(ip);
            demand!(good, "IPAM-1", "{ip} of {block:?} was leased, applied are {:?}", self.desired.blocks);
        }
        Ok(())
    }

    /// Judges a refusal: some missing family must have nothing left.
    fn refused(&self, pool: &str, missing: &[Family], error: &IpamError) -> Result<(), Breach> {
        let named = || self.desired.blocks.iter().filter(|block| block.pool == pool);
        let of_pool = || named().filter(|block| !self.owed.given_back.contains(*block));
        let of = |family: Family| of_pool().filter(move |block| Family::of_net(&block.cidr) == family);
        if of_pool().next().is_none() {
            let told = matches!(
                error,
                IpamError::UnknownPool { .. } | IpamError::NotReady { .. } | IpamError::PoolNotReady { .. }
            );
            // One whose blocks were all given back may also be called full.
            let told = told || (named().next().is_some() && matches!(error, IpamError::Exhausted { .. }));
            demand!(told, "IPAM-11", "pool {pool:?} has no blocks, and the answer is {error:?}");
            return Ok(());
        }
        let unknown = matches!(error, IpamError::UnknownPool { .. });
        demand!(!unknown, "IPAM-11", "pool {pool:?} has blocks, and the answer is {error}");
        if let IpamError::NotReady { family, .. } | IpamError::PoolNotReady { family, .. } = error {
            let right = missing.contains(family) && of(*family).next().is_none();
            demand!(right, "IPAM-7", "{family} has blocks, and the answer is {error}");
            return Ok(());
        }
        let none_left = |family: &Family| of(*family).all(|block| self.free(block).is_empty());
        if missing.iter().any(none_left) {
            let told = matches!(error, IpamError::Exhausted { .. });
            demand!(told, "IPAM-7", "a pool without a free address answered {error:?}");
            return Ok(());
        }
        let left = || missing.iter().flat_map(|family| of(*family)).filter(|block| !self.free(block).is_empty());
        let free: Vec<IpAddr> = left().flat_map(|block| self.free(block)).collect();
        let again = left().all(|block| self.owed.come_again.contains(block));
        demand!(!again, "IPAM-15", "{free:?} are of blocks that were given back and came again, and {error}");
        demand!(!free.iter().all(|ip| self.used.contains(ip)), "IPAM-5", "{free:?} were released, and {error}");
        Err(Breach { id: "IPAM-7", text: format!("{free:?} are free, and {error}") })
    }

    /// Addresses of an applied block that must be there to lease.
    fn free(&self, block: &Block) -> Vec<IpAddr> {
        let free = leasable(block).into_iter().filter(|ip| !optional(block, *ip));
        free.filter(|ip| !self.desired.reserved.contains(ip) && self.holder(*ip).is_none()).collect()
    }

    /// Judges what the implementation says that it holds; `id` is what a step in between must not have broken.
    pub(super) fn holds(&self, id: &'static str, snapshot: &IpamSnapshot) -> Result<(), Breach> {
        if snapshot.leases != self.leases {
            return Err(Breach {
                id,
                text: format!("{:?} were leased, and {:?} are held", self.leases, snapshot.leases),
            });
        }
        for (used, block) in snapshot.blocks.iter().zip(&self.desired.blocks) {
            demand!(used.block == *block, "IPAM-8", "{block:?} was applied, and {used:?} is used");
            if self.owed.given_back.contains(block) {
                demand!(used.draining, "IPAM-13", "{block:?} was given back, and gives leases: {used:?}");
            } else if self.owed.come_again.contains(block) {
                demand!(!used.draining, "IPAM-15", "{block:?} came again, and gives no leases: {used:?}");
            } else {
                demand!(!used.draining, "IPAM-8", "{block:?} was applied, and gives no leases: {used:?}");
            }
        }
        demand!(snapshot.blocks.len() >= self.desired.blocks.len(), "IPAM-8", "blocks are missing: {snapshot:?}");
        for used in &snapshot.blocks {
            let leased =
                self.leases.values().flat_map(|lease| &lease.addresses).filter(|a| a.block == used.block).count();
            demand!(
                used.leased == leased as u64,
                "IPAM-7",
                "{leased} are leased of {:?}, told are {used:?}",
                used.block
            );
            demand!(used.leased <= used.capacity, "IPAM-7", "more than everything is leased: {used:?}");
        }
        let rest = snapshot.blocks.iter().skip(self.desired.blocks.len());
        for used in rest {
            demand!(used.draining && used.leased > 0, "IPAM-8", "{used:?} is neither applied nor in use");
        }
        Ok(())
    }
}
