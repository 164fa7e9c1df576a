//! The CiliumNode of the node that asks: what it was given, and what it said last.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kube::{
    Client, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde::Deserialize;

use super::{parse_cidr, part};
use crate::{
    crd::{CiliumNode, NodeSpec, StatusCondition},
    table::Table,
    watch::{Source, watch},
};

/// Annotation by which an agent says which IPAM mode it prefers: `kubernetes`, `cluster-pool` or `multi-pool`.
pub const IPAM_MODE: &str = "ipam.kinesin.io/mode";

/// What a node's own CiliumNode says of its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnCiliumNode {
    /// `spec.ipam.podCIDRs`, each once; entries that are no CIDR are left out.
    pub pod_cidrs: Vec<IpNet>,
    /// `spec.ipam.pools.allocated`: pool and CIDR, each pair once; entries that are no CIDR are left out.
    pub allocated: Vec<(String, IpNet)>,
    /// `spec.ipam.pools.requested`.
    pub requested: Vec<PoolNeed>,
    /// `status.ipam.pod-cidrs`: CIDR as written to its state.
    pub cidr_status: BTreeMap<String, String>,
    /// `status.ipam.operator-status.error`; empty when all is well.
    pub operator_error: String,
    /// `status.conditions`.
    pub conditions: Vec<StatusCondition>,
    /// Entries that somebody wrote into it and that cannot be used, each with its reason.
    pub problems: Vec<String>,
}

/// How many addresses of a pool a node asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolNeed {
    /// Name of the pool.
    pub pool: String,
    /// IPv4 addresses; 0 for none.
    pub ipv4: u64,
    /// IPv6 addresses; 0 for none.
    pub ipv6: u64,
}

/// Watches the CiliumNode `name`; the table has this one item, or none while it does not exist.
///
/// # Panics
/// Outside of a tokio runtime.
#[must_use]
pub fn watch_own_cilium_node(client: Client, name: &str) -> Table<OwnCiliumNode> {
    let resource = ApiResource::erase::<CiliumNode>(&());
    watch(Source::new(client, &resource, Some(format!("metadata.name={name}"))), read_own)
}

/// The status, read apart from the type of the object: a field of somebody else's must not hide what is ours.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    ipam: Option<Ipam>,
    conditions: Option<Vec<StatusCondition>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Ipam {
    pod_cidrs: Option<BTreeMap<String, CidrStatus>>,
    operator_status: Option<OperatorStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CidrStatus {
    status: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OperatorStatus {
    error: Option<String>,
}

pub(crate) fn read_own(object: &DynamicObject) -> Result<OwnCiliumNode, String> {
    let spec: NodeSpec = part(object, "spec")?;
    let status: Status = part(object, "status")?;
    let mut found = OwnCiliumNode::default();
    let ipam = spec.ipam.unwrap_or_default();
    for text in ipam.pod_cidrs.unwrap_or_default() {
        match parse_cidr("spec.ipam.podCIDRs", &text) {
            Ok(cidr) if !found.pod_cidrs.contains(&cidr) => found.pod_cidrs.push(cidr),
            Ok(_) => {}
            Err(problem) => found.problems.push(problem),
        }
    }
    let pools = ipam.pools.unwrap_or_default();
    for entry in pools.allocated.unwrap_or_default() {
        for text in entry.cidrs.unwrap_or_default() {
            match parse_cidr(&format!("spec.ipam.pools.allocated of pool {:?}", entry.pool), &text) {
                Ok(cidr) => {
                    let pair = (entry.pool.clone(), cidr);
                    if !found.allocated.contains(&pair) {
                        found.allocated.push(pair);
                    }
                }
                Err(problem) => found.problems.push(problem),
            }
        }
    }
    for entry in pools.requested.unwrap_or_default() {
        let needed = entry.needed.unwrap_or_default();
        let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
        let (ipv4, ipv6) = (count(needed.ipv4_addrs), count(needed.ipv6_addrs));
        found.requested.push(PoolNeed { pool: entry.pool, ipv4, ipv6 });
    }
    let ipam = status.ipam.unwrap_or_default();
    let states = ipam.pod_cidrs.unwrap_or_default().into_iter();
    found.cidr_status = states.map(|(cidr, state)| (cidr, state.status.unwrap_or_default())).collect();
    found.operator_error = ipam.operator_status.and_then(|status| status.error).unwrap_or_default();
    found.conditions = status.conditions.unwrap_or_default();
    if object.name_any().is_empty() {
        return Err("metadata.name is empty".to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value, status: serde_json::Value) -> OwnCiliumNode {
        let metadata = json!({"name": "w1"});
        let object = json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata, "spec": spec, "status": status});
        read_own(&serde_json::from_value(object).expect("an object")).expect("readable")
    }

    #[test]
    fn what_was_given_and_said_is_read() {
        let found = read(
            json!({"ipam": {
                "podCIDRs": ["10.0.0.0/29", "10.0.0.0/29"],
                "pools": {
                    "requested": [{"pool": "a", "needed": {"ipv4-addrs": 16}}],
                    "allocated": [{"pool": "a", "cidrs": ["10.1.0.0/28", "10.1.0.16/28"]}],
                },
            }}),
            json!({
                "ipam": {"pod-cidrs": {"10.0.0.0/29": {"status": "in-use"}}, "operator-status": {"error": "allocator full"}},
                "conditions": [{"type": "PodAddresses", "status": "False", "reason": "Collision"}],
            }),
        );
        assert_eq!((found.pod_cidrs.len(), found.allocated.len()), (1, 2));
        assert_eq!(found.requested, [PoolNeed { pool: "a".to_owned(), ipv4: 16, ipv6: 0 }]);
        assert_eq!(found.cidr_status["10.0.0.0/29"], "in-use");
        assert_eq!((found.operator_error.as_str(), found.conditions.len()), ("allocator full", 1));
    }

    #[test]
    fn nonsense_costs_only_its_own_entry() {
        let found = read(
            json!({"ipam": {
                "podCIDRs": ["10.0.0.0/29", "nonsense"],
                "pools": {"requested": [{"pool": "a", "needed": {"ipv4-addrs": -5}}], "allocated": [{"pool": "a", "cidrs": ["10.0.0.0/40", "10.1.0.0/28"]}]},
            }}),
            json!(null),
        );
        assert_eq!((found.pod_cidrs.len(), found.allocated.len(), found.problems.len()), (1, 1, 2));
        assert_eq!(found.requested[0].ipv4, 0);
        assert!(found.problems[1].contains("of pool \"a\""), "{:?}", found.problems);
    }
}
