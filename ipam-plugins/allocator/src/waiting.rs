//! Who found no address, and since when: what makes a node ask for more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kinesin_core::{
    ipam::{Owner, WAITING_EXPIRES},
    values::Family,
};

/// Owners that wait, per pool and family.
///
/// By owner and not by attachment, because a runtime tries again with a new sandbox each time.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pools: BTreeMap<(String, Family), BTreeMap<Owner, Instant>>,
}

impl Waiting {
    /// Notes that an owner found no address.
    pub(crate) fn note(&mut self, pool: &str, family: Family, owner: &Owner, now: Instant) {
        self.pools.entry((pool.to_owned(), family)).or_default().insert(owner.clone(), now);
    }

    /// Forgets an owner: it has what it asked for, asks anew, or is gone.
    pub(crate) fn forget(&mut self, owner: &Owner) {
        self.retain(|who, _| who != owner);
    }

    /// Forgets tries that are too old.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.retain(|_, tried| is_fresh(*tried, now));
    }

    /// Owners that wait for an address of this pool and family.
    pub(crate) fn count(&self, pool: &str, family: Family, now: Instant) -> u64 {
        let owners = self.pools.iter().filter(|((found, of), _)| found == pool && *of == family);
        // Lossless: a usize has at most 64 bits.
        owners.map(|(_, owners)| owners.values().filter(|tried| is_fresh(**tried, now)).count() as u64).sum()
    }

    /// Pools and families for which somebody waits.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, Family)> {
        self.pools.keys().map(|(pool, family)| (pool.as_str(), *family))
    }

    fn retain(&mut self, keep: impl Fn(&Owner, &Instant) -> bool) {
        self.pools.retain(|_, owners| {
            owners.retain(|owner, tried| keep(owner, tried));
            !owners.is_empty()
        });
    }
}

/// A monotonic clock never goes back, and a jump of the wall clock does not touch it.
fn is_fresh(tried: Instant, now: Instant) -> bool {
    now.checked_duration_since(tried).unwrap_or(Duration::ZERO) < WAITING_EXPIRES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Owner {
        Owner::Pod { namespace: "default".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn an_owner_counts_once_until_served_or_expired() {
        let mut waiting = Waiting::default();
        let start = Instant::now();
        for owner in ["a", "a", "b", "c"] {
            waiting.note("vac", Family::V4, &pod(owner), start);
        }
        waiting.note("vac", Family::V6, &pod("a"), start);
        assert_eq!((waiting.count("vac", Family::V4, start), waiting.count("vac", Family::V6, start)), (3, 1));
        assert_eq!(waiting.count("other", Family::V4, start), 0);
        waiting.forget(&pod("a"));
        assert_eq!((waiting.count("vac", Family::V4, start), waiting.count("vac", Family::V6, start)), (2, 0));
        let late = start + WAITING_EXPIRES;
        assert_eq!(waiting.count("vac", Family::V4, late), 0);
        waiting.expire(late);
        assert_eq!(waiting.keys().count(), 0);
    }
}
