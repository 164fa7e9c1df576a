//! The pools that Pods may name: which ones there are.

use kube::{
    Client,
    api::{ApiResource, DynamicObject},
};

use crate::{
    crd::CiliumPodIPPool,
    table::Table,
    watch::{Source, watch},
};

/// What a CiliumPodIPPool's object says to a node. Its ranges are the operator's business.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodIPPool {
    /// Whether its deletion was asked for: it gives nothing any more, and goes with its last finalizer.
    pub terminating: bool,
}

/// Watches all CiliumPodIPPools; keys are their names.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_pod_ip_pools(client: Client) -> Table<PodIPPool> {
    watch(Source::new(client, &ApiResource::erase::<CiliumPodIPPool>(&()), None), |object: &DynamicObject| {
        Ok(PodIPPool { terminating: object.metadata.deletion_timestamp.is_some() })
    })
}
