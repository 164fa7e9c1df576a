//! The Pods that are scheduled to one node.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde::Deserialize;

use super::{parse_ip, part, push_once};
use crate::{
    table::Table,
    watch::{Source, watch},
};

/// What a Pod's object says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID; another one after a Pod of this name was made again.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Addresses that the kubelet reported; late, and empty before the Pod runs.
    pub ips: Vec<IpAddr>,
    /// Whether it lives in the network namespace of its node.
    pub host_network: bool,
    /// Service account.
    pub service_account: String,
    /// Whether it has ended for good (`Succeeded` or `Failed`); its addresses are free again.
    pub terminal: bool,
    /// Whether its deletion was asked for.
    pub terminating: bool,
}

/// Watches the Pods of the node `node_name`; keys are `NAMESPACE/NAME`.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_local_pods(client: Client, node_name: &str) -> Table<LocalPod> {
    let resource = ApiResource::erase::<Pod>(&());
    watch(Source::new(client, &resource, Some(format!("spec.nodeName={node_name}"))), read)
}

/// The few fields that count; a Pod of a newer API with volumes unknown to us must not be refused for those.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    host_network: Option<bool>,
    service_account_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<Ip>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ip {
    ip: String,
}

impl LocalPod {
    /// What the table holds for an object.
    ///
    /// # Errors
    /// Why it cannot be used, with the field; the table holds that instead.
    pub fn of(object: &DynamicObject) -> Result<Self, String> {
        read(object)
    }

    /// Whether its kubelet may still make a sandbox for it.
    #[must_use]
    pub fn needs_addresses(&self) -> bool {
        !self.terminal && !self.terminating
    }
}

fn read(object: &DynamicObject) -> Result<LocalPod, String> {
    let spec: Spec = part(object, "spec")?;
    let status: Status = part(object, "status")?;
    let mut ips = Vec::new();
    let many = status.pod_ips.unwrap_or_default().into_iter().map(|entry| entry.ip);
    for text in many.chain(status.pod_ip).filter(|text| !text.is_empty()) {
        push_once(&mut ips, parse_ip("status.podIPs", &text)?);
    }
    Ok(LocalPod {
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        labels: object.labels().clone(),
        annotations: object.annotations().clone(),
        ips,
        host_network: spec.host_network.unwrap_or_default(),
        service_account: spec.service_account_name.unwrap_or_default(),
        terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating: object.metadata.deletion_timestamp.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value, status: serde_json::Value) -> Result<LocalPod, String> {
        let metadata = json!({"name": "a", "namespace": "default", "uid": "u"});
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status});
        read(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn addresses_of_both_families_come_once() {
        let status =
            json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
        let read = pod(json!({"serviceAccountName": "default", "nodeName": "w1"}), status).expect("a pod");
        assert_eq!(read.ips.len(), 2);
        assert_eq!(read.service_account, "default");
        assert!(!read.terminal && !read.host_network);
    }

    #[test]
    fn ended_pods_are_terminal_and_wrong_addresses_a_reason() {
        assert!(pod(json!({"hostNetwork": true}), json!({"phase": "Succeeded"})).expect("a pod").terminal);
        assert!(pod(json!({}), json!({"podIP": "10.0.0"})).is_err());
        assert!(!pod(json!({}), json!(null)).expect("a new pod").terminal);
    }
}
