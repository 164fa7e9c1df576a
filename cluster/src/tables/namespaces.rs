//! The namespaces: their annotations choose for the Pods in them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};

use crate::{
    table::Table,
    watch::{Source, watch},
};

/// What a namespace's object says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterNamespace {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Watches all namespaces; keys are their names.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_namespaces(client: Client) -> Table<ClusterNamespace> {
    watch(Source::new(client, &ApiResource::erase::<Namespace>(&()), None), |object: &DynamicObject| {
        Ok(ClusterNamespace { labels: object.labels().clone(), annotations: object.annotations().clone() })
    })
}
