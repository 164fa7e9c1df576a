//! Publishes what a node does with its addresses: reads its CiliumNode, decides, writes what changed.
//!
//! The lists in it have two writers, agent and operator. Each write carries the resource version of what was read, so that
//! neither undoes what the other wrote in between; after a conflict it is decided anew on what is there then.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};

use crate::{
    AGENT_MANAGER,
    crd::{CiliumNode, StatusCondition},
    error::ClusterError,
    request::within,
    tables::{OwnCiliumNode, PoolNeed, parse_cidr, read_own},
};

/// A decision is tried this often on fresh content; the operator writes to one node far less often.
const ATTEMPTS: u32 = 10;
/// Longest pause after the first conflict; it doubles. Random, so that two writers do not meet each time.
const PAUSE: Duration = Duration::from_millis(4);

/// What is to be different in a CiliumNode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeIpamChange {
    /// Entries that `spec.ipam.podCIDRs` gets.
    pub add_pod_cidrs: Vec<IpNet>,
    /// Entries that it loses.
    pub remove_pod_cidrs: Vec<IpNet>,
    /// Pool and CIDR that `spec.ipam.pools.allocated` gets.
    pub add_allocated: Vec<(String, IpNet)>,
    /// Pool and CIDR that it loses.
    pub remove_allocated: Vec<(String, IpNet)>,
    /// `spec.ipam.pools.requested` as it shall be; absent to leave it.
    pub requested: Option<Vec<PoolNeed>>,
    /// `status.ipam.pod-cidrs` as it shall be; absent to leave it.
    pub cidr_status: Option<BTreeMap<String, String>>,
    /// A condition to set, its time left out; absent to leave all as they are.
    pub condition: Option<StatusCondition>,
}

impl NodeIpamChange {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn touches_spec(&self) -> bool {
        let status_only =
            Self { cidr_status: self.cidr_status.clone(), condition: self.condition.clone(), ..Self::default() };
        *self != status_only
    }

    fn touches_status(&self) -> bool {
        self.cidr_status.is_some() || self.condition.is_some()
    }
}

/// Brings a CiliumNode to what `decide` says of its present content; the answer is how many writes it took.
///
/// `now` is the time of a condition that changes, RFC 3339.
///
/// # Errors
/// `Request` or `TimedOut`; with status 404 the object is not there yet, with 409 others wrote each time in between.
pub async fn update_node_ipam(
    client: &Client,
    name: &str,
    now: &str,
    decide: impl Fn(&OwnCiliumNode) -> NodeIpamChange,
) -> Result<usize, ClusterError> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::erase::<CiliumNode>(&()));
    let read = format!("read CiliumNode {name}");
    let params = PatchParams { field_manager: Some(AGENT_MANAGER.to_owned()), ..PatchParams::default() };
    let mut writes = 0;
    let mut last = Ok(0);
    for attempt in 0..ATTEMPTS {
        let mut object = within(&read, api.get(name)).await?;
        let change = decide(&content(&object));
        if change.is_empty() {
            return Ok(writes);
        }
        let outcome: Result<(), ClusterError> = async {
            if change.touches_spec() {
                let patch = guarded(&object, spec_patch(&object, &change));
                let action = format!("update addresses of CiliumNode {name}");
                object = within(&action, api.patch(name, &params, &Patch::Merge(&patch))).await?;
                writes += 1;
            }
            if change.touches_status() {
                let patch = guarded(&object, status_patch(&object, &change, now));
                let action = format!("update address status of CiliumNode {name}");
                within(&action, api.patch_status(name, &params, &Patch::Merge(&patch))).await?;
                writes += 1;
            }
            Ok(())
        }
        .await;
        match outcome {
            Ok(()) => return Ok(writes),
            Err(error) if is_conflict(&error) => {
                last = Err(error);
                let longest = PAUSE.saturating_mul(1 << attempt);
                tokio::time::sleep(rand::random_range(Duration::ZERO..=longest)).await;
            }
            Err(error) => return Err(error),
        }
    }
    last
}

/// What is there; an object that cannot be read at all counts as empty, so that it can be set right.
fn content(object: &DynamicObject) -> OwnCiliumNode {
    read_own(object).unwrap_or_else(|reason| OwnCiliumNode { problems: vec![reason], ..OwnCiliumNode::default() })
}

fn is_conflict(error: &ClusterError) -> bool {
    matches!(error, ClusterError::Request { source, .. } if source.code() == Some(409))
}

fn guarded(object: &DynamicObject, mut patch: Value) -> Value {
    patch["metadata"] = json!({"resourceVersion": object.metadata.resource_version});
    patch
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn is_one_of(text: &str, cidrs: &[IpNet]) -> bool {
    parse_cidr("", text).is_ok_and(|cidr| cidrs.contains(&cidr))
}

/// Entries that nobody understands stay where they are: they are not the agent's to remove.
fn spec_patch(object: &DynamicObject, change: &NodeIpamChange) -> Value {
    let ipam = &object.data["spec"]["ipam"];
    let mut patch = Map::new();
    if !change.add_pod_cidrs.is_empty() || !change.remove_pod_cidrs.is_empty() {
        let mut list = texts(&ipam["podCIDRs"]);
        list.retain(|text| !is_one_of(text, &change.remove_pod_cidrs));
        list.extend(change.add_pod_cidrs.iter().map(ToString::to_string));
        patch.insert("podCIDRs".to_owned(), json!(list));
    }
    let mut pools = Map::new();
    if !change.add_allocated.is_empty() || !change.remove_allocated.is_empty() {
        pools.insert("allocated".to_owned(), allocated(&ipam["pools"]["allocated"], change));
    }
    if let Some(requested) = &change.requested {
        let list: Vec<Value> = requested.iter().map(request).collect();
        pools.insert("requested".to_owned(), if list.is_empty() { Value::Null } else { json!(list) });
    }
    if !pools.is_empty() {
        patch.insert("pools".to_owned(), Value::Object(pools));
    }
    json!({"spec": {"ipam": patch}})
}

fn request(need: &PoolNeed) -> Value {
    let mut needed = Map::new();
    for (field, number) in [("ipv4-addrs", need.ipv4), ("ipv6-addrs", need.ipv6)] {
        if number > 0 {
            needed.insert(field.to_owned(), json!(number));
        }
    }
    json!({"pool": need.pool, "needed": needed})
}

/// Sorted by pool; within one IPv4 first, then as text, which is Cilium's order (reference 5.4).
fn allocated(present: &Value, change: &NodeIpamChange) -> Value {
    let mut pools: BTreeMap<String, BTreeSet<(bool, String)>> = BTreeMap::new();
    for entry in present.as_array().into_iter().flatten() {
        let pool = entry["pool"].as_str().unwrap_or_default();
        let gone: Vec<IpNet> =
            change.remove_allocated.iter().filter(|(of, _)| of == pool).map(|(_, cidr)| *cidr).collect();
        for text in texts(&entry["cidrs"]).into_iter().filter(|text| !is_one_of(text, &gone)) {
            pools.entry(pool.to_owned()).or_default().insert((text.contains(':'), text));
        }
    }
    for (pool, cidr) in &change.add_allocated {
        pools.entry(pool.clone()).or_default().insert((cidr.addr().is_ipv6(), cidr.to_string()));
    }
    let list: Vec<Value> = pools
        .into_iter()
        .map(
            |(pool, cidrs)| json!({"pool": pool, "cidrs": cidrs.into_iter().map(|(_, text)| text).collect::<Vec<_>>()}),
        )
        .collect();
    if list.is_empty() { Value::Null } else { json!(list) }
}

fn status_patch(object: &DynamicObject, change: &NodeIpamChange, now: &str) -> Value {
    let mut status = Map::new();
    if let Some(states) = &change.cidr_status {
        let mut map = Map::new();
        // A merge patch takes away what it names as null.
        for key in object.data["status"]["ipam"]["pod-cidrs"].as_object().into_iter().flat_map(Map::keys) {
            map.insert(key.clone(), Value::Null);
        }
        for (cidr, state) in states {
            map.insert(cidr.clone(), json!({"status": state}));
        }
        status.insert("ipam".to_owned(), json!({"pod-cidrs": map}));
    }
    if let Some(condition) = &change.condition {
        let present = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let (ours, mut list): (Vec<Value>, Vec<Value>) =
            present.into_iter().partition(|found| found["type"] == *condition.r#type);
        // The time is that of the last change of status, not of its words.
        let unchanged = ours.iter().find(|found| found["status"] == *condition.status);
        let since = unchanged.and_then(|found| found["lastTransitionTime"].as_str()).unwrap_or(now).to_owned();
        list.push(json!({
            "type": condition.r#type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": since,
        }));
        status.insert("conditions".to_owned(), json!(list));
    }
    json!({"status": status})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(spec: Value, status: Value) -> DynamicObject {
        let metadata = json!({"name": "w1", "resourceVersion": "7"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("an object")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn only_what_is_named_changes_and_foreign_entries_stay() {
        let found = object(json!({"ipam": {"podCIDRs": ["10.0.0.0/29", "nonsense", "10.1.0.0/24"]}}), json!(null));
        let change = NodeIpamChange {
            add_pod_cidrs: vec![net("10.2.0.0/24")],
            remove_pod_cidrs: vec![net("10.1.0.0/24"), net("10.9.0.0/24")],
            ..NodeIpamChange::default()
        };
        let patch = guarded(&found, spec_patch(&found, &change));
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "spec": {"ipam": {"podCIDRs": ["10.0.0.0/29", "nonsense", "10.2.0.0/24"]}},
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn pools_are_in_ciliums_order_and_an_empty_one_goes() {
        let found = object(
            json!({"ipam": {"pools": {"allocated": [
                {"pool": "vac", "cidrs": ["fd00::/120", "10.100.0.8/29", "10.100.0.24/29"]},
                {"pool": "gone", "cidrs": ["10.3.0.0/29"]},
            ]}}}),
            json!(null),
        );
        let change = NodeIpamChange {
            add_allocated: vec![("default".to_owned(), net("10.4.0.0/28"))],
            remove_allocated: vec![("gone".to_owned(), net("10.3.0.0/29"))],
            requested: Some(vec![PoolNeed { pool: "vac".to_owned(), ipv4: 7, ipv6: 0 }]),
            ..NodeIpamChange::default()
        };
        let expected = json!({"spec": {"ipam": {"pools": {
            "allocated": [
                {"pool": "default", "cidrs": ["10.4.0.0/28"]},
                {"pool": "vac", "cidrs": ["10.100.0.24/29", "10.100.0.8/29", "fd00::/120"]},
            ],
            "requested": [{"pool": "vac", "needed": {"ipv4-addrs": 7}}],
        }}}});
        assert_eq!(spec_patch(&found, &change), expected);
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change_and_the_others() {
        let found = object(
            json!(null),
            json!({"conditions": [
                {"type": "A", "status": "False", "lastTransitionTime": "then"}, {"type": "B", "status": "True"},
            ], "ipam": {"pod-cidrs": {"10.0.0.0/29": {"status": "in-use"}}}}),
        );
        let condition = |status: &str| StatusCondition {
            r#type: "A".to_owned(),
            status: status.to_owned(),
            reason: "R".to_owned(),
            ..StatusCondition::default()
        };
        let of = |status| {
            let change = NodeIpamChange { condition: Some(condition(status)), ..NodeIpamChange::default() };
            status_patch(&found, &change, "now")["status"]["conditions"].clone()
        };
        assert_eq!(of("False")[1]["lastTransitionTime"], "then");
        assert_eq!(of("True")[1]["lastTransitionTime"], "now");
        assert_eq!(of("True")[0]["type"], "B");
        let change = NodeIpamChange { cidr_status: Some(BTreeMap::new()), ..NodeIpamChange::default() };
        assert_eq!(status_patch(&found, &change, "now")["status"]["ipam"]["pod-cidrs"], json!({"10.0.0.0/29": null}));
    }
}
