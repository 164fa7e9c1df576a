//! Leases for endpoints: from the pools that a Pod names, waiting a moment for a block that is on its way.

use std::time::Duration;

use kinesin_core::{
    ipam::{AllocateRequest, IpamError, Lease, Owner},
    values::{Families, Family},
};

use super::{
    exhaustion::{self, Circumstances},
    pool::PoolChoice,
};
use crate::engine::{Engine, EngineError, State};

/// How long ADD waits for a block. Asking, the operator's answer and our seeing it take three writes and two watches, some
/// tens of milliseconds on a cluster that is well; a leader change, which takes longer, is not waited for. The plugin's
/// own limit on a request is 30 s. A pod that gives up here is tried again by its kubelet much later.
pub(crate) const BLOCK_WITHIN: Duration = Duration::from_secs(5);

impl Engine {
    /// Leases an address of each family of the node from the preferred mode; all or none.
    pub(crate) async fn lease_pools(
        &self,
        attachment: &str,
        owner: &Owner,
        pools: &PoolChoice,
    ) -> Result<Lease, IpamError> {
        let mode = self.backends.ipam.preferred();
        let families = self.config.families;
        let request = |families: Families, pool: Option<&str>| AllocateRequest {
            attachment: attachment.to_owned(),
            owner: owner.clone(),
            families,
            pool: pool.map(str::to_owned),
        };
        let outcome = if pools.ipv4 == pools.ipv6 {
            mode.ipam.allocate(&request(families, pools.of(Family::V4))).await
        } else {
            self.lease_by_family(attachment, families, |family| {
                let only = Families { v4: family == Family::V4, v6: family == Family::V6 };
                request(only, pools.of(family))
            })
            .await
        };
        if let Ok(lease) = &outcome {
            self.counters.leased(lease);
        }
        // Both change what the node needs.
        self.wakes.ipam.notify_one();
        outcome
    }

    /// One request per family, since each names a pool of its own; the first is undone when the second fails.
    async fn lease_by_family(
        &self,
        attachment: &str,
        families: Families,
        request: impl Fn(Family) -> AllocateRequest,
    ) -> Result<Lease, IpamError> {
        let ipam = &self.backends.ipam.preferred().ipam;
        let held = ipam.snapshot().leases.contains_key(attachment);
        let mut outcome = None;
        for family in families.iter() {
            let lease = ipam.allocate(&request(family)).await;
            let failed = lease.is_err();
            outcome = Some(lease);
            if failed {
                break;
            }
        }
        let outcome = outcome.unwrap_or_else(|| {
            let expected_from = "enable-ipv4 or enable-ipv6".to_owned();
            Err(IpamError::NotReady { family: Family::V4, expected_from })
        });
        if outcome.is_err() && !held {
            ipam.release(attachment).await?;
        }
        outcome
    }

    /// Whether a block that would end this lack of addresses is on its way.
    pub(crate) fn is_on_its_way(&self, error: &IpamError, state: &State) -> bool {
        let mode = self.backends.ipam.preferred();
        let demand = mode.ipam.demand();
        let around = Circumstances { node: &self.node_name, source: mode.source, demand: &demand, said: &state.said };
        exhaustion::is_on_its_way(error, around)
    }

    /// The error for the runtime, with everything that helps; a lack of addresses is noted.
    pub(crate) fn no_address(&self, error: IpamError, state: &State) -> EngineError {
        if exhaustion::subject(&error).is_none() || matches!(error, IpamError::NotReady { .. }) {
            return error.into();
        }
        let mode = self.backends.ipam.preferred();
        let demand = mode.ipam.demand();
        let around = Circumstances { node: &self.node_name, source: mode.source, demand: &demand, said: &state.said };
        let message = exhaustion::explain(&error, around);
        self.exhaustion.note(&error, &message);
        EngineError::NoAddress { message, refusal: error }
    }
}
