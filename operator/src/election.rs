//! Leader election by a Lease, with the rules of client-go.
//!
//! Own code, about a hundred lines: of the crates there are, none is built for the `kube` of this workspace, and a
//! clock must not be trusted. Times in the Lease are for people; another's claim ends when *we* have seen no change of
//! it for its duration, by our own monotonic clock.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kinesin_cluster::{ApiFailure, ClusterError};
use kube::{Api, Client, ResourceExt, api::PostParams};
use tokio::time::Instant;

/// Name of the Lease, as Cilium has it: its operator and ours never lead at the same time.
pub(crate) const LEASE: &str = "cilium-operator-resource-lock";

/// The three durations of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long the others wait after the last sign of the leader.
    pub lease: Duration,
    /// A leader that could not renew for so long stops leading.
    pub renew: Duration,
    /// Pause between two tries.
    pub retry: Duration,
}

impl Timing {
    /// # Errors
    /// If two could lead at once, or nobody could renew in time.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.lease >= Duration::from_secs(1) && self.lease <= Duration::from_secs(3600),
            "the lease duration {:?} is not between 1s and 1h; change --leader-election-lease-duration",
            self.lease
        );
        ensure!(
            self.renew < self.lease,
            "the renew deadline {:?} leaves nothing of the lease duration {:?}; lower --leader-election-renew-deadline",
            self.renew,
            self.lease
        );
        ensure!(
            !self.retry.is_zero() && self.retry * 2 <= self.renew,
            "the retry period {:?} allows no second try before the renew deadline {:?}; lower \
             --leader-election-retry-period",
            self.retry,
            self.renew
        );
        Ok(())
    }
}

/// Who has the lease after a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    Us,
    /// Another replica, by its name.
    Other(String),
}

/// One replica's view of the Lease.
pub(crate) struct Elector {
    api: Api<Lease>,
    identity: String,
    timing: Timing,
    /// Resource version that was seen last, and when it was seen first.
    observed: Option<(String, Instant)>,
}

impl Elector {
    pub(crate) fn new(client: Client, namespace: &str, identity: &str, timing: Timing) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned(), timing, observed: None }
    }

    /// Takes the lease if it is free or expired, renews it if it is ours.
    pub(crate) async fn take(&mut self) -> Result<Holder, ClusterError> {
        let found = match self.within("get", self.api.get_opt(LEASE)).await? {
            Some(found) => found,
            None => {
                let fresh = Lease {
                    metadata: ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() },
                    spec: Some(self.claim(&LeaseSpec::default())),
                };
                return self.settle(self.within("create", self.api.create(&PostParams::default(), &fresh)).await);
            }
        };
        let spec = found.spec.clone().unwrap_or_default();
        let version = found.resource_version().unwrap_or_default();
        if self.observed.as_ref().is_none_or(|(seen, _)| *seen != version) {
            self.observed = Some((version, Instant::now()));
        }
        if let Some(other) =
            spec.holder_identity.as_ref().filter(|holder| !holder.is_empty() && **holder != self.identity)
        {
            let claimed = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let claimed = claimed.filter(|seconds| *seconds > 0).map_or(self.timing.lease, Duration::from_secs);
            if self.observed.as_ref().is_some_and(|(_, since)| since.elapsed() < claimed) {
                return Ok(Holder::Other(other.clone()));
            }
            tracing::info!(holder = other, "the lease has expired");
        }
        // The resource version is in the object: whoever writes first wins.
        let claim = Lease { spec: Some(self.claim(&spec)), ..found };
        self.settle(self.within("renew", self.api.replace(LEASE, &PostParams::default(), &claim)).await)
    }

    /// Gives the lease back, so that another need not wait for it to expire.
    pub(crate) async fn release(&mut self) -> Result<(), ClusterError> {
        let Some(found) = self.within("get", self.api.get_opt(LEASE)).await? else { return Ok(()) };
        let spec = found.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            return Ok(());
        }
        let now = Some(MicroTime(Timestamp::now()));
        let free = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: now.clone(),
            renew_time: now,
            ..spec
        };
        let free = Lease { spec: Some(free), ..found };
        self.within("release", self.api.replace(LEASE, &PostParams::default(), &free)).await.map(|_| ())
    }

    fn claim(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let seconds = self.timing.lease.as_millis().div_ceil(1000);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: before.acquire_time.clone().filter(|_| ours).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: match before.lease_transitions {
                Some(number) if !ours => Some(number.saturating_add(1)),
                number => Some(number.unwrap_or_default()),
            },
            ..before.clone()
        }
    }

    /// A lost race is no failure: somebody else has written, and the next try sees who.
    fn settle(&mut self, written: Result<Lease, ClusterError>) -> Result<Holder, ClusterError> {
        match written {
            Ok(lease) => {
                self.observed = lease.resource_version().map(|version| (version, Instant::now()));
                Ok(Holder::Us)
            }
            Err(ClusterError::Request { source, .. }) if source.code() == Some(409) => {
                Ok(Holder::Other("another that was faster".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// A request that takes longer than a leader may be silent is of no use.
    async fn within<T>(
        &self,
        verb: &str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        let action = format!("{verb} Lease {LEASE}");
        match tokio::time::timeout(self.timing.renew, answer).await {
            Ok(answered) => answered.map_err(|error| ClusterError::Request { action, source: ApiFailure::from(error) }),
            Err(_) => Err(ClusterError::TimedOut { action, limit: self.timing.renew }),
        }
    }
}
