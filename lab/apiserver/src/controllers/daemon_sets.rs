//! Daemon sets: one pod on every node that takes it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Controller, nodes, pods};
use crate::object;
use crate::ops::Api;
use crate::ops::pods::share;

const COMPONENT: &str = "daemonset-controller";
const HASH: &str = "controller-revision-hash";

#[derive(Debug)]
pub(super) struct DaemonSets;

impl Controller for DaemonSets {
    const WATCHES: &'static [&'static str] = &["daemonsets.apps", "pods", "nodes"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let nodes = api.all("nodes");
        let mut again = None;
        for set in api.all("daemonsets.apps").iter().filter(|s| !object::is_deleting(s)) {
            again = [again, look_after(api, set, &nodes)].into_iter().flatten().min();
        }
        again
    }
}

/// The node a daemon pod is meant for, before and after it is bound.
fn node_of(pod: &Value) -> &str {
    let bound = object::text(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        return bound;
    }
    let terms = object::list(
        pod,
        &["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"],
    );
    terms
        .iter()
        .flat_map(|t| object::list(t, &["matchFields"]))
        .flat_map(|f| object::list(f, &["values"]))
        .find_map(Value::as_str)
        .unwrap_or_default()
}

/// Whether a daemon pod belongs on a node. Readiness and cordons do not matter to daemons.
fn belongs(template: &Value, node: &Value) -> bool {
    nodes::selects(template, node)
        && object::list(node, &["spec", "taints"]).iter().all(|t| {
            let (key, value, effect) =
                (object::text(t, &["key"]), object::text(t, &["value"]), object::text(t, &["effect"]));
            effect == "PreferNoSchedule"
                || key.starts_with("node.kubernetes.io/")
                || nodes::tolerates(template, key, value, effect)
        })
}

fn look_after(api: &Api, set: &Value, nodes: &[Arc<Value>]) -> Option<Duration> {
    let template = &set["spec"]["template"];
    let hash = object::short_hash(template);
    let all = api.store.list("pods", Some(object::namespace(set))).0;
    let own: Vec<&Arc<Value>> = pods::of_owner(&all, set).collect();
    let mut again = None;

    let wanted: Vec<&Arc<Value>> = nodes.iter().filter(|n| !object::is_deleting(n) && belongs(template, n)).collect();
    for pod in &own {
        let is_failed = matches!(object::text(pod, &["status", "phase"]), "Failed" | "Succeeded");
        let is_misplaced = wanted.iter().all(|n| object::name(n) != node_of(pod));
        if !object::is_deleting(pod) && (is_failed || is_misplaced) {
            pods::delete(api, set, pod, COMPONENT);
        }
    }
    for node in &wanted {
        let mut here: Vec<_> = own.iter().filter(|p| node_of(p) == object::name(node)).collect();
        // One that is still going keeps its place, as with real daemons: two would fight over ports.
        if here.is_empty() {
            if pods::create(api, set, &[(HASH, &hash)], |pod| pin(pod, object::name(node)), COMPONENT).is_err() {
                again = Some(Duration::from_secs(1));
            }
        } else if here.len() > 1 {
            here.sort_by_key(|p| object::text(p, &["metadata", "creationTimestamp"]).to_owned());
            for pod in here.iter().skip(1).filter(|p| !object::is_deleting(p)) {
                pods::delete(api, set, pod, COMPONENT);
            }
        }
    }
    if object::text(set, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
        roll(api, set, &own, &wanted, &hash);
    }
    let waits = report(api, set, nodes, &wanted, &hash);
    [again, waits].into_iter().flatten().min()
}

/// Ties a pod to a node, and lets it onto nodes in any state.
fn pin(pod: &mut Value, node: &str) {
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    let way =
        ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    // The template's own terms have been looked at when the node was chosen.
    object::set(pod, &way, json!([term]));
    let mut tolerations = object::list(pod, &["spec", "tolerations"]).to_vec();
    let mut conditions = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if object::flag(pod, &["spec", "hostNetwork"]) {
        conditions.push(("network-unavailable", "NoSchedule"));
    }
    for (condition, effect) in conditions {
        let key = format!("node.kubernetes.io/{condition}");
        if !nodes::tolerates(pod, &key, "", effect) {
            tolerations.push(json!({"key": key, "operator": "Exists", "effect": effect}));
        }
    }
    object::set(pod, &["spec", "tolerations"], tolerations);
}

/// Replaces pods of an old template, as many at a time as may be missing.
fn roll(api: &Api, set: &Value, own: &[&Arc<Value>], wanted: &[&Arc<Value>], hash: &str) {
    let count = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let most = share(&set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], count).max(1);
    let min_ready = pods::min_ready(set);
    let is_available = |pod: &Value| pods::availability(pod, min_ready).is_ok();
    let available = own.iter().filter(|p| is_available(p)).count();
    let mut room = most - (count - i64::try_from(available).unwrap_or_default()).max(0);
    let mut old: Vec<_> = own
        .iter()
        .filter(|p| !object::is_deleting(p) && object::text(p, &["metadata", "labels", HASH]) != hash)
        .collect();
    old.sort_by_key(|p| is_available(p));
    for pod in old {
        // One that does not work anyway costs nothing.
        if is_available(pod) {
            if room <= 0 {
                break;
            }
            room -= 1;
        }
        pods::delete(api, set, pod, COMPONENT);
    }
}

fn report(api: &Api, set: &Value, nodes: &[Arc<Value>], wanted: &[&Arc<Value>], hash: &str) -> Option<Duration> {
    let all = api.store.list("pods", Some(object::namespace(set))).0;
    let own: Vec<&Arc<Value>> = pods::of_owner(&all, set).filter(|p| pods::is_active(p)).collect();
    let min_ready = pods::min_ready(set);
    let is_wanted = |pod: &Value| wanted.iter().any(|n| object::name(n) == node_of(pod));
    let placed: Vec<_> = own.iter().filter(|p| is_wanted(p)).collect();
    let misplaced = own.iter().filter(|p| !is_wanted(p) && nodes.iter().any(|n| object::name(n) == node_of(p))).count();
    let availability: Vec<_> = placed.iter().map(|p| pods::availability(p, min_ready)).collect();
    let available = availability.iter().filter(|a| a.is_ok()).count();
    let updated = placed.iter().filter(|p| object::text(p, &["metadata", "labels", HASH]) == hash).count();
    pods::write_status(
        api,
        ("apps", "daemonsets"),
        set,
        &[
            ("desiredNumberScheduled", wanted.len().into()),
            ("currentNumberScheduled", placed.len().into()),
            ("numberMisscheduled", misplaced.into()),
            ("numberReady", placed.iter().filter(|p| pods::is_ready(p)).count().into()),
            ("updatedNumberScheduled", pods::count(updated)),
            ("numberAvailable", pods::count(available)),
            ("numberUnavailable", pods::count(wanted.len().saturating_sub(available))),
            ("observedGeneration", set["metadata"]["generation"].clone()),
        ],
    );
    availability.into_iter().filter_map(|a| a.err().flatten()).min()
}
