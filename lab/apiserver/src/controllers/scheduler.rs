//! The scheduler: each pending pod goes to the node that takes it and has the least of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::events::emit;
use super::{Controller, nodes};
use crate::object;
use crate::ops::{Api, Write};

const NAME: &str = "default-scheduler";
/// Pods a node takes unless it says otherwise, as kubelet has it.
const PODS_PER_NODE: i64 = 110;

#[derive(Debug)]
pub(super) struct Scheduler;

impl Controller for Scheduler {
    const WATCHES: &'static [&'static str] = &["pods", "nodes"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let nodes = api.all("nodes");
        let mut pending: Vec<_> = api.all("pods").into_iter().filter(|p| is_pending(p)).collect();
        // Older pods first; within a second, those that other pods wait for by priority.
        pending.sort_by_key(|p| {
            let priority = object::int(p, &["spec", "priority"]).unwrap_or_default();
            (std::cmp::Reverse(priority), object::text(p, &["metadata", "creationTimestamp"]).to_owned())
        });
        for pod in pending {
            place(api, &pod, &nodes);
        }
        None
    }
}

fn is_pending(pod: &Value) -> bool {
    object::text(pod, &["spec", "nodeName"]).is_empty()
        && object::text(pod, &["spec", "schedulerName"]) == NAME
        && object::list(pod, &["spec", "schedulingGates"]).is_empty()
        && super::pods::is_active(pod)
}

fn place(api: &Api, pod: &Value, nodes: &[Arc<Value>]) {
    let running = api.all("pods");
    let mut refusals: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<(_, &Value)> = None;
    for node in nodes {
        let on_node = || running.iter().filter(|p| object::text(p, &["spec", "nodeName"]) == object::name(node));
        let total = on_node().count();
        let most = object::text(node, &["status", "allocatable", "pods"]).parse().unwrap_or(PODS_PER_NODE);
        let refusal = nodes::refusal(pod, node)
            .or_else(|| nodes::pods_refuse(pod, node, nodes, &running).map(str::to_owned))
            .or_else(|| {
                port_taken(pod, on_node())
                    .then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
            })
            .or_else(|| (i64::try_from(total).unwrap_or(i64::MAX) >= most).then(|| "Too many pods".to_owned()));
        if let Some(why) = refusal {
            *refusals.entry(why).or_default() += 1;
            continue;
        }
        let owner = object::controller_of(pod).map(|o| object::text(o, &["uid"]));
        let siblings = owner.map_or(0, |uid| on_node().filter(|p| object::is_controlled_by(p, uid)).count());
        let score = (soft_taints(pod, node), siblings, total, object::name(node).to_owned());
        if best.as_ref().is_none_or(|(least, _)| score < *least) {
            best = Some((score, node));
        }
    }
    match best {
        Some((_, node)) => assign(api, pod, object::name(node)),
        None => report(api, pod, nodes.len(), &refusals),
    }
}

fn soft_taints(pod: &Value, node: &Value) -> usize {
    let taints = object::list(node, &["spec", "taints"]);
    let counts = |t: &&Value| {
        object::text(t, &["effect"]) == "PreferNoSchedule"
            && !nodes::tolerates(pod, object::text(t, &["key"]), object::text(t, &["value"]), "PreferNoSchedule")
    };
    taints.iter().filter(counts).count()
}

fn port_taken<'a>(pod: &Value, mut others: impl Iterator<Item = &'a Arc<Value>>) -> bool {
    fn ports(pod: &Value) -> Vec<(i64, &str)> {
        object::list(pod, &["spec", "containers"])
            .iter()
            .flat_map(|c| object::list(c, &["ports"]))
            .filter_map(|p| Some((object::int(p, &["hostPort"]).filter(|n| *n > 0)?, object::text(p, &["protocol"]))))
            .collect()
    }
    let wanted = ports(pod);
    !wanted.is_empty()
        && others.any(|other| super::pods::is_active(other) && ports(other).iter().any(|p| wanted.contains(p)))
}

fn assign(api: &Api, pod: &Value, node: &str) {
    let (namespace, name) = (object::namespace(pod), object::name(pod));
    match api.bind(namespace, name, node, &mut Write::by("kube-scheduler")) {
        Ok(()) => {
            let message = format!("Successfully assigned {namespace}/{name} to {node}");
            emit(api, pod, "Normal", "Scheduled", &message, NAME);
        }
        // It went, or another binding was first; the next pass sees which.
        Err(error) => tracing::debug!(message = error.message, "a pod was not bound"),
    }
}

fn report(api: &Api, pod: &Value, nodes: usize, refusals: &BTreeMap<String, usize>) {
    let why: Vec<String> = refusals.iter().map(|(why, count)| format!("{count} {why}")).collect();
    let message = match why.is_empty() {
        true => "no nodes available to schedule pods".to_owned(),
        false => format!("0/{nodes} nodes are available: {}.", why.join(", ")),
    };
    let known = object::condition(pod, "PodScheduled");
    if known.is_some_and(|c| object::text(c, &["message"]) == message) {
        return;
    }
    let kind = api.builtin("", "pods");
    let write = &mut Write::status_by("kube-scheduler");
    let outcome = api.change(&kind, object::namespace(pod), object::name(pod), write, |next| {
        object::set_condition(next, "PodScheduled", "False", "Unschedulable", &message);
    });
    match outcome {
        Ok(_) => emit(api, pod, "Warning", "FailedScheduling", &message, NAME),
        Err(error) => tracing::debug!(message = error.message, "a pod's condition was not written"),
    }
}
