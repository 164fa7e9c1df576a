//! Replica sets: as many pods as asked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Controller, pods};
use crate::object;
use crate::ops::{Api, Write};
use crate::selectors::LabelSelector;

const COMPONENT: &str = "replicaset-controller";

#[derive(Debug)]
pub(super) struct ReplicaSets;

impl Controller for ReplicaSets {
    const WATCHES: &'static [&'static str] = &["replicasets.apps", "pods"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let mut again = None;
        for set in api.all("replicasets.apps") {
            let next = look_after(api, &set);
            again = [again, next].into_iter().flatten().min();
        }
        again
    }
}

fn look_after(api: &Api, set: &Value) -> Option<Duration> {
    if object::is_deleting(set) {
        return None;
    }
    adopt(api, set);
    let all = api.store.list("pods", Some(object::namespace(set))).0;
    let mut active: Vec<&Arc<Value>> = pods::of_owner(&all, set).filter(|p| pods::is_active(p)).collect();
    let wanted = usize::try_from(object::int(set, &["spec", "replicas"]).unwrap_or(1)).unwrap_or_default();
    let mut again = None;
    if active.len() < wanted {
        for _ in active.len()..wanted {
            if pods::create(api, set, &[], |_| {}, COMPONENT).is_err() {
                again = Some(Duration::from_secs(1));
                break;
            }
        }
    } else if active.len() > wanted {
        active.sort_by_key(|pod| dispensable_first(pod));
        for pod in &active[..active.len() - wanted] {
            pods::delete(api, set, pod, COMPONENT);
        }
    }
    let waits = write_status(api, set);
    [again, waits].into_iter().flatten().min()
}

/// Pods that match and belong to nobody become the set's.
fn adopt(api: &Api, set: &Value) {
    let selector = LabelSelector::from_object(&set["spec"]["selector"]);
    if selector.is_empty() {
        return;
    }
    let kind = api.builtin("", "pods");
    for pod in api.store.list("pods", Some(object::namespace(set))).0 {
        if object::controller_of(&pod).is_none() && pods::is_active(&pod) && selector.matches(&pod) {
            let write = &mut Write::by("kube-controller-manager");
            let outcome = api.change(&kind, object::namespace(&pod), object::name(&pod), write, |next| {
                if object::controller_of(next).is_none() {
                    let mut owners = object::list(next, &["metadata", "ownerReferences"]).to_vec();
                    owners.push(pods::owner_reference(set));
                    object::set(next, &["metadata", "ownerReferences"], owners);
                }
            });
            if let Err(error) = outcome {
                tracing::debug!(message = error.message, "a pod was not adopted");
            }
        }
    }
}

/// Sorts by who should go first: without a node, not running, not ready, then the youngest.
fn dispensable_first(pod: &Value) -> (bool, bool, bool, std::cmp::Reverse<String>) {
    (
        !object::text(pod, &["spec", "nodeName"]).is_empty(),
        object::text(pod, &["status", "phase"]) == "Running",
        pods::is_ready(pod),
        std::cmp::Reverse(object::text(pod, &["metadata", "creationTimestamp"]).to_owned()),
    )
}

fn write_status(api: &Api, set: &Value) -> Option<Duration> {
    let all = api.store.list("pods", Some(object::namespace(set))).0;
    let active: Vec<&Arc<Value>> = pods::of_owner(&all, set).filter(|p| pods::is_active(p)).collect();
    let min_ready = pods::min_ready(set);
    let availability: Vec<_> = active.iter().map(|p| pods::availability(p, min_ready)).collect();
    let template = LabelSelector::from_map(
        object::map(set, &["spec", "template", "metadata", "labels"]).unwrap_or(&serde_json::Map::new()),
    );
    pods::write_status(
        api,
        ("apps", "replicasets"),
        set,
        &[
            ("replicas", active.len().into()),
            ("fullyLabeledReplicas", pods::count(active.iter().filter(|p| template.matches(p)).count())),
            ("readyReplicas", pods::count(active.iter().filter(|p| pods::is_ready(p)).count())),
            ("availableReplicas", pods::count(availability.iter().filter(|a| a.is_ok()).count())),
            ("observedGeneration", set["metadata"]["generation"].clone()),
        ],
    );
    availability.into_iter().filter_map(|a| a.err().flatten()).min()
}
