//! The node's own leases, router and health, and how they move from one mode to another.
//!
//! They stay in a draining mode for as long as it has any other lease, since pods have the router's address as their
//! gateway. Then new ones are leased from the preferred mode, the new router address comes first on `cilium_host`, and the
//! old one stays beside it at least until the next pass, for answers that are on their way to it, and for as long as a
//! socket of the node uses it.

use std::net::IpAddr;

use kinesin_core::{
    ipam::{AllocateRequest, IpamError, IpamSnapshot, Lease, Owner},
    values::{Families, Family},
};

use super::{is_own, sockets};
use crate::engine::{Engine, HEALTH, ROUTER};

/// The node's own leases at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnLeases {
    /// Router addresses: one of each family in use, then those that wait for the last socket.
    pub(crate) router: Vec<IpAddr>,
    /// Addresses of the health endpoint, one of each family.
    pub(crate) health: Vec<IpAddr>,
    /// Every lease, to be saved.
    pub(crate) leases: Vec<Lease>,
    /// Leases that nothing will use once the datapath follows this: to be released then.
    pub(crate) left: Vec<Lease>,
    /// Router addresses that were replaced and are still there.
    pub(crate) waiting: Vec<IpAddr>,
}

/// Leases of one attachment, sorted out.
#[derive(Debug, Default)]
struct Held {
    /// Of the preferred mode, and of draining ones that have other leases still.
    stays: Vec<Lease>,
    /// Of draining modes that have nothing else.
    goes: Vec<Lease>,
}

impl Engine {
    /// The node's own leases, taken anew where they are missing; `last` are the router addresses of the last pass.
    pub(crate) async fn own_leases(&self, last: &[IpAddr]) -> Result<OwnLeases, IpamError> {
        let mut own = OwnLeases::default();
        let (router, old) = self.own_lease(ROUTER, Owner::Router).await?;
        own.router = first_of_each_family(&router);
        let has_moved = last.starts_with(&own.router);
        let mut waiting: Vec<Lease> = Vec::new();
        for lease in old {
            let used = !has_moved || lease.addresses.iter().any(|leased| sockets::uses(leased.ip).unwrap_or(true));
            if used { waiting.push(lease) } else { own.left.push(lease) }
        }
        own.waiting = waiting.iter().flat_map(|lease| &lease.addresses).map(|leased| leased.ip).collect();
        let others = router.iter().chain(&waiting).flat_map(|lease| &lease.addresses).map(|leased| leased.ip);
        let others: Vec<IpAddr> = others.filter(|ip| !own.router.contains(ip)).collect();
        own.router.extend(others);
        own.leases.extend(router);
        own.leases.extend(waiting);
        if self.config.health.endpoint {
            let (health, old) = self.own_lease(HEALTH, Owner::Health).await?;
            own.health = first_of_each_family(&health);
            own.leases.extend(health);
            own.left.extend(old);
        } else {
            own.left.extend(self.held(HEALTH).into_iter().map(|(lease, _)| lease));
        }
        Ok(own)
    }

    /// The leases that count, the preferred one first, and those that they replace.
    async fn own_lease(&self, attachment: &str, owner: Owner) -> Result<(Vec<Lease>, Vec<Lease>), IpamError> {
        let preferred = self.backends.ipam.preferred();
        let mut held = Held::default();
        for (lease, moves) in self.held(attachment) {
            if moves { held.goes.push(lease) } else { held.stays.push(lease) }
        }
        let covered = |leases: &[Lease], family| leases.iter().any(|lease| lease.address(family).is_some());
        let has = |leases: &[Lease]| self.config.families.iter().all(|family| covered(leases, family));
        if has(&held.stays) {
            return Ok((held.stays, held.goes));
        }
        let families = Families {
            v4: self.config.families.v4 && !covered(&held.stays, Family::V4),
            v6: self.config.families.v6 && !covered(&held.stays, Family::V6),
        };
        let request = AllocateRequest { attachment: attachment.to_owned(), owner, families, pool: None };
        match preferred.ipam.allocate(&request).await {
            Ok(lease) => {
                held.stays.retain(|other| other.mode != lease.mode);
                held.stays.insert(0, lease);
                Ok((held.stays, held.goes))
            }
            // The preferred mode has no room yet: what there is serves on.
            Err(error) => {
                let mut both = held.stays;
                both.extend(held.goes);
                if has(&both) { Ok((both, Vec::new())) } else { Err(error) }
            }
        }
    }

    /// Every lease of an attachment, the preferred mode's first, and whether it has to move.
    fn held(&self, attachment: &str) -> Vec<(Lease, bool)> {
        let preferred = &self.backends.ipam.preferred().name;
        let snapshots = self.backends.ipam.snapshots();
        let leases = snapshots.iter().filter_map(|(mode, snapshot)| {
            let lease = snapshot.leases.get(attachment)?.clone();
            Some((lease, mode.name != *preferred && !serves_others(snapshot)))
        });
        leases.collect()
    }
}

fn serves_others(snapshot: &IpamSnapshot) -> bool {
    snapshot.leases.values().any(|lease| !is_own(lease))
}

fn first_of_each_family(leases: &[Lease]) -> Vec<IpAddr> {
    Family::ALL.into_iter().filter_map(|family| leases.iter().find_map(|lease| lease.address(family))).collect()
}
