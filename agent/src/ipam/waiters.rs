//! Owners whose ADD found no address, and whether they still want one: a node must not ask for addresses of pods that are
//! gone.
//!
//! Where the node's Pods are watched, the API server's word counts: a runtime deletes the sandbox of every ADD that failed,
//! whether its Pod is tried again or not. Elsewhere an owner is gone when all its sandboxes have been deleted and no other
//! has come for a while.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kinesin_core::ipam::{Owner, WAITING_EXPIRES};
use tokio::time::Instant;

use crate::engine::Engine;

/// After its last sandbox was deleted, a Pod that is still wanted gets the next one long before: a kubelet tries again
/// after ten to fifteen seconds (`backOffPeriod`, Kubernetes `pkg/kubelet/kubelet.go`).
const TRIED_AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// Everybody who found no address and is not known to have given up.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    owners: Mutex<BTreeMap<Owner, Tries>>,
}

/// What one owner has tried.
#[derive(Debug)]
struct Tries {
    /// Attachments that found nothing and were not deleted since.
    open: BTreeSet<String>,
    last: Instant,
    /// Since when none of them is left.
    deleted: Option<Instant>,
}

impl Waiters {
    fn owners(&self) -> MutexGuard<'_, BTreeMap<Owner, Tries>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attachment of the owner found no address.
    pub(crate) fn note(&self, owner: &Owner, attachment: &str, now: Instant) {
        let mut owners = self.owners();
        let fresh = || Tries { open: BTreeSet::new(), last: now, deleted: None };
        let tries = owners.entry(owner.clone()).or_insert_with(fresh);
        tries.open.insert(attachment.to_owned());
        (tries.last, tries.deleted) = (now, None);
    }

    /// The owner has what it wanted.
    pub(crate) fn served(&self, owner: &Owner) {
        self.owners().remove(owner);
    }

    /// Attachments were deleted.
    pub(crate) fn deleted(&self, is_deleted: impl Fn(&str) -> bool, now: Instant) {
        for tries in self.owners().values_mut().filter(|tries| tries.deleted.is_none()) {
            tries.open.retain(|attachment| !is_deleted(attachment));
            if tries.open.is_empty() {
                tries.deleted = Some(now);
            }
        }
    }

    /// Takes out whoever is gone; `is_wanted` is what is known of an owner, if anything is.
    pub(crate) fn take_gone(&self, is_wanted: impl Fn(&Owner) -> Option<bool>, now: Instant) -> Vec<Owner> {
        let mut owners = self.owners();
        let is_gone = |owner: &Owner, tries: &Tries| {
            let given_up = match (is_wanted(owner), tries.deleted) {
                (Some(wanted), _) => !wanted,
                // Nobody makes another sandbox of this id.
                (None, Some(_)) if matches!(owner, Owner::Container(_)) => true,
                (None, Some(deleted)) => now.duration_since(deleted) >= TRIED_AGAIN_WITHIN,
                (None, None) => false,
            };
            given_up || now.duration_since(tries.last) >= WAITING_EXPIRES
        };
        owners.extract_if(.., |owner, tries| is_gone(owner, tries)).map(|(owner, _)| owner).collect()
    }
}

impl Engine {
    /// Ends the wait of owners that are gone.
    pub(crate) fn forget_gone(&self) {
        let is_wanted = |owner: &Owner| match owner {
            Owner::Pod { namespace, name } => self.pods.is_wanted(namespace, name),
            _ => None,
        };
        for owner in self.exhaustion.waiters.take_gone(is_wanted, Instant::now()) {
            tracing::info!(%owner, "it does not wait for an address any more: it is gone");
            self.backends.ipam.preferred().ipam.forget_waiting(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Owner {
        Owner::Pod { namespace: "default".to_owned(), name: name.to_owned() }
    }

    fn names(owners: &[Owner]) -> Vec<String> {
        owners.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn where_pods_are_watched_their_word_counts_and_not_the_runtimes() {
        let (waiters, start) = (Waiters::default(), Instant::now());
        for name in ["wanted", "gone"] {
            waiters.note(&pod(name), &format!("{name}-1:eth0"), start);
        }
        waiters.deleted(|attachment| attachment == "wanted-1:eth0", start);
        let known = |owner: &Owner| Some(*owner == pod("wanted"));
        assert_eq!(names(&waiters.take_gone(known, start + TRIED_AGAIN_WITHIN)), ["default/gone"]);
        assert_eq!(names(&waiters.take_gone(known, start + TRIED_AGAIN_WITHIN)), Vec::<String>::new(), "once");
        assert_eq!(names(&waiters.take_gone(known, start + WAITING_EXPIRES)), ["default/wanted"]);
    }

    #[test]
    fn elsewhere_an_owner_is_gone_some_time_after_its_last_sandbox() {
        let (waiters, start) = (Waiters::default(), Instant::now());
        let gone = |after: Duration| names(&waiters.take_gone(|_| None, start + after));
        let later = TRIED_AGAIN_WITHIN / 2;
        waiters.note(&pod("a"), "a-1:eth0", start);
        waiters.deleted(|attachment| attachment.starts_with("a-1:"), start);
        // The next sandbox of the same Pod.
        waiters.note(&pod("a"), "a-2:eth0", start + later);
        assert!(gone(TRIED_AGAIN_WITHIN).is_empty(), "it was tried again");
        waiters.deleted(|attachment| attachment.starts_with("b"), start + later);
        waiters.deleted(|attachment| attachment.starts_with("a-2:"), start + later);
        // Said again, which is not news.
        waiters.deleted(|attachment| attachment.starts_with("a-2:"), start + later * 2);
        assert!(gone(TRIED_AGAIN_WITHIN).is_empty(), "not yet");
        assert_eq!(gone(later + TRIED_AGAIN_WITHIN), ["default/a"]);

        let container = Owner::Container("c1".to_owned());
        waiters.note(&container, "c1:eth0", start);
        assert!(gone(later).is_empty());
        waiters.deleted(|_| true, start);
        assert_eq!(gone(Duration::ZERO), ["c1"]);

        waiters.note(&pod("served"), "s:eth0", start);
        waiters.served(&pod("served"));
        assert!(gone(WAITING_EXPIRES).is_empty());
    }
}
