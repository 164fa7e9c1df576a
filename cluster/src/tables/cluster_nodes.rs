//! The CiliumNode objects: what each node says about itself.

use std::net::IpAddr;

use ipnet::IpNet;
use kube::{
    Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};

use super::{parse_cidr, parse_ip, part, push_once};
use crate::{
    crd::{CILIUM_INTERNAL_IP, CiliumNode, INTERNAL_IP, NodeSpec},
    table::Table,
    watch::{Source, watch},
};

/// Annotation of a CiliumNode: by what the node wants to be reached, `native`, `vxlan:PORT` or `geneve:PORT`.
pub const CARRIER_PREFERRED: &str = "routing.kinesin.io/prefers";
/// Annotation of a CiliumNode: everything that the node accepts, separated by commas.
pub const CARRIERS_ACCEPTED: &str = "routing.kinesin.io/accepts";
/// Annotation of a CiliumNode: the MTU of the node's uplink in bytes, as its agent uses it.
pub const UPLINK_MTU: &str = "routing.kinesin.io/mtu";

/// What a node's CiliumNode object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// Name of the node.
    pub name: String,
    /// Addresses by which the node is reached (InternalIP).
    pub addresses: Vec<IpAddr>,
    /// Addresses of `cilium_host` (CiliumInternalIP).
    pub router: Vec<IpAddr>,
    /// Addresses of the health endpoint.
    pub health: Vec<IpAddr>,
    /// Ranges of the node's pods: `spec.ipam.podCIDRs`, then what pools allocated, each once.
    pub pod_cidrs: Vec<IpNet>,
    /// By what it wants to be reached, such as `vxlan:8472`; empty if it says nothing.
    pub carrier: String,
    /// What it accepts, separated by commas; empty if it says nothing.
    pub accepts: String,
    /// MTU of its uplink in bytes, as it was written; empty if it says nothing.
    pub mtu: String,
    /// When the object was created, in seconds since 1970 (UTC); absent if it does not say.
    pub created_unix_seconds: Option<i64>,
    /// Boot ID; another one after a restart of the machine.
    pub boot_id: String,
    /// Entries that cannot be used, each with its field; the node is known without them.
    pub problems: Vec<String>,
}

/// Watches the CiliumNodes of all nodes, the own one among them.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_cluster_nodes(client: Client) -> Table<ClusterNode> {
    watch(Source::new(client, &ApiResource::erase::<CiliumNode>(&()), None), read)
}

impl ClusterNode {
    /// What the table holds for an object.
    ///
    /// # Errors
    /// Why it cannot be used, with the field; the table holds that instead.
    pub fn of(object: &DynamicObject) -> Result<Self, String> {
        read(object)
    }
}

fn read(object: &DynamicObject) -> Result<ClusterNode, String> {
    let spec: NodeSpec = part(object, "spec")?;
    let (mut addresses, mut router, mut health, mut pod_cidrs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // A slip of somebody who edits the object must not cut off the whole node.
    let mut problems = Vec::new();
    let mut take = |list: &mut Vec<IpAddr>, field: &str, text: &str| match parse_ip(field, text) {
        Ok(ip) => push_once(list, ip),
        Err(problem) => problems.push(problem),
    };
    for address in spec.addresses.unwrap_or_default() {
        let list = match address.r#type.as_str() {
            INTERNAL_IP => &mut addresses,
            CILIUM_INTERNAL_IP => &mut router,
            // Hostname and ExternalIP do not carry pods; a host name is no address anyway.
            _ => continue,
        };
        take(list, "spec.addresses", &address.ip);
    }
    let said = spec.health.unwrap_or_default();
    for text in [said.ipv4, said.ipv6].into_iter().flatten().filter(|text| !text.is_empty()) {
        take(&mut health, "spec.health", &text);
    }
    let ipam = spec.ipam.unwrap_or_default();
    let allocated = ipam.pools.and_then(|pools| pools.allocated).unwrap_or_default();
    let of_pools = allocated.into_iter().flat_map(|pool| pool.cidrs.unwrap_or_default());
    for text in ipam.pod_cidrs.unwrap_or_default().into_iter().chain(of_pools) {
        match parse_cidr("spec.ipam", &text) {
            Ok(cidr) => push_once(&mut pod_cidrs, cidr),
            Err(problem) => problems.push(problem),
        }
    }
    Ok(ClusterNode {
        name: object.name_any(),
        addresses,
        router,
        health,
        pod_cidrs,
        carrier: annotation(object, CARRIER_PREFERRED),
        accepts: annotation(object, CARRIERS_ACCEPTED),
        mtu: annotation(object, UPLINK_MTU),
        created_unix_seconds: object.creation_timestamp().map(|time| time.0.as_second()),
        boot_id: spec.bootid.unwrap_or_default(),
        problems,
    })
}

fn annotation(object: &DynamicObject, key: &str) -> String {
    object.annotations().get(key).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: serde_json::Value) -> Result<ClusterNode, String> {
        let object =
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "w1"}, "spec": spec});
        read(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn addresses_go_to_their_kind_and_pools_join_the_ranges() {
        let read = node(json!({
            "addresses": [
                {"type": "InternalIP", "ip": "10.0.0.1"}, {"type": "CiliumInternalIP", "ip": "10.244.0.7"},
                {"type": "InternalIP", "ip": "fd00::1"}, {"type": "Hostname", "ip": "w1"},
            ],
            "health": {"ipv4": "10.244.0.9", "ipv6": ""},
            "ipam": {
                "podCIDRs": ["10.244.0.0/24"],
                "pools": {"allocated": [{"pool": "a", "cidrs": ["10.9.0.0/26", "10.244.0.0/24"]}]},
            },
            "bootid": "b",
        }))
        .expect("a node");
        assert_eq!(read.addresses.len(), 2);
        assert_eq!(read.router, ["10.244.0.7".parse::<IpAddr>().unwrap()]);
        assert_eq!(read.health, ["10.244.0.9".parse::<IpAddr>().unwrap()]);
        let cidrs: Vec<_> = read.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["10.244.0.0/24", "10.9.0.0/26"]);
        assert_eq!(read.boot_id, "b");
    }

    #[test]
    fn an_objects_age_is_told_in_whole_seconds() {
        let read = |metadata| {
            let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata, "spec": {}});
            read(&serde_json::from_value(object).expect("an object")).expect("a node").created_unix_seconds
        };
        assert_eq!(read(json!({"name": "w1", "creationTimestamp": "2023-11-14T22:13:20Z"})), Some(1_700_000_000));
        assert_eq!(read(json!({"name": "w1"})), None);
    }

    #[test]
    fn entry_that_cannot_be_used_costs_only_itself() {
        let read = node(json!({
            "addresses": [{"type": "InternalIP", "ip": "x"}, {"type": "InternalIP", "ip": "10.0.0.1"}],
            "health": {"ipv4": "y"},
            "ipam": {"podCIDRs": ["10.0.0.0", "10.244.0.0/24"]},
        }))
        .expect("a node");
        assert_eq!((read.addresses.len(), read.health.len(), read.pod_cidrs.len()), (1, 0, 1));
        assert_eq!(read.problems.len(), 3, "{:?}", read.problems);
        for word in ["spec.addresses: \"x\"", "spec.health: \"y\"", "spec.ipam: \"10.0.0.0\""] {
            assert!(read.problems.iter().any(|problem| problem.contains(word)), "{word}: {:?}", read.problems);
        }
    }

    #[test]
    fn garbage_is_a_reason_and_unknown_fields_are_none() {
        assert!(node(json!({"addresses": "x"})).is_err());
        assert!(node(json!({"eni": {"vpc-id": "v"}, "tomorrow": [1]})).is_ok());
    }
}
