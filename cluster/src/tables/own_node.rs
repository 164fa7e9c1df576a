//! The Node object of the node that asks.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use kube::{
    Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};

use super::{parse_cidrs, parse_ip, part, push_once};
use crate::{
    table::Table,
    watch::{Source, watch},
};

/// What a node's own Kubernetes Node object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// Name of the node.
    pub name: String,
    /// UID of the object; another one after the node was removed and added again.
    pub uid: String,
    /// Addresses of type InternalIP, in the object's order.
    pub internal_ips: Vec<IpAddr>,
    /// Ranges that Kubernetes gave the node, at most one of each family; empty until it did.
    pub pod_cidrs: Vec<IpNet>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Boot ID as the kubelet reports it; empty before its first report.
    pub boot_id: String,
}

/// Watches the Node `name`; the table has this one item, or none while the Node does not exist.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_own_node(client: Client, name: &str) -> Table<OwnNode> {
    let resource = ApiResource::erase::<Node>(&());
    watch(Source::new(client, &resource, Some(format!("metadata.name={name}"))), read)
}

impl OwnNode {
    /// What the table holds for an object.
    ///
    /// # Errors
    /// Why it cannot be used, with the field; the table holds that instead.
    pub fn of(object: &DynamicObject) -> Result<Self, String> {
        read(object)
    }
}

fn read(object: &DynamicObject) -> Result<OwnNode, String> {
    let spec: NodeSpec = part(object, "spec")?;
    let status: NodeStatus = part(object, "status")?;
    let mut internal_ips = Vec::new();
    for address in status.addresses.unwrap_or_default() {
        if address.type_ == "InternalIP" {
            push_once(&mut internal_ips, parse_ip("status.addresses", &address.address)?);
        }
    }
    // podCIDR is the first of podCIDRs; very old objects have only the former.
    let many = spec.pod_cidrs.unwrap_or_default();
    let pod_cidrs = parse_cidrs("spec.podCIDRs", many.iter().chain(spec.pod_cidr.iter()))?;
    Ok(OwnNode {
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        internal_ips,
        pod_cidrs,
        labels: object.labels().clone(),
        boot_id: status.node_info.map(|info| info.boot_id).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: serde_json::Value, status: serde_json::Value) -> Result<OwnNode, String> {
        let object = json!({
            "apiVersion": "v1", "kind": "Node", "spec": spec, "status": status,
            "metadata": {"name": "w1", "uid": "u1", "labels": {"a": "b"}},
        });
        read(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn both_families_are_read() {
        let status = json!({"addresses": [
            {"type": "Hostname", "address": "w1"},
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "ExternalIP", "address": "192.0.2.1"},
        ]});
        let spec = json!({"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]});
        let read = node(spec, status).expect("a node");
        assert_eq!(read.internal_ips, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        let cidrs: Vec<_> = read.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
        assert_eq!((read.name.as_str(), read.uid.as_str()), ("w1", "u1"));
    }

    #[test]
    fn bare_node_is_read_and_a_wrong_range_is_named() {
        let bare = node(json!(null), json!(null)).expect("a node");
        assert!(bare.internal_ips.is_empty() && bare.pod_cidrs.is_empty());
        let error = node(json!({"podCIDRs": ["10.244.1.0/40"]}), json!({})).expect_err("no CIDR");
        assert_eq!(error, "spec.podCIDRs: \"10.244.1.0/40\" is no CIDR");
        assert!(node(json!({"podCIDRs": 5}), json!({})).expect_err("no list").starts_with("spec: "));
    }
}
