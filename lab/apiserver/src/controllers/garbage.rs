//! The garbage collector: objects whose owners are gone go too, deletions that wait for dependents
//! or orphan them are finished, and pods of nodes that are gone are not waited for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Controller;
use crate::kinds::Kind;
use crate::object;
use crate::ops::{Api, DeleteOptions, FOREGROUND, ORPHAN, Propagation, Write};

#[derive(Debug)]
pub(super) struct Garbage;

impl Controller for Garbage {
    /// Woken by what is deleted most; the rest waits for the regular look.
    const WATCHES: &'static [&'static str] =
        &["pods", "replicasets.apps", "deployments.apps", "daemonsets.apps", "services", "nodes", "namespaces"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let kinds = api.kinds();
        let mut all: Vec<(Arc<Kind>, Arc<Value>)> = Vec::new();
        for resource in api.store.resources() {
            if let Some(kind) = kinds.by_storage(&resource) {
                all.extend(api.all(&resource).into_iter().map(|object| (kind.clone(), object)));
            }
        }
        let living: BTreeSet<&str> = all.iter().map(|(_, object)| object::uid(object)).collect();
        for (kind, object) in &all {
            let owners = object::list(object, &["metadata", "ownerReferences"]);
            if !owners.is_empty()
                && !object::is_deleting(object)
                && owners.iter().all(|o| !living.contains(object::text(o, &["uid"])))
            {
                delete(api, kind, object, Propagation::Background);
            }
            if object::is_deleting(object) {
                finish(api, kind, object, &all);
            }
        }
        release_lost_pods(api);
        Some(Duration::from_secs(1))
    }
}

fn delete(api: &Api, kind: &Kind, object: &Value, propagation: Propagation) {
    let options = DeleteOptions {
        propagation: Some(propagation),
        // Another object of the same name must not be hit.
        uid: Some(object::uid(object).to_owned()),
        ..DeleteOptions::default()
    };
    if let Err(error) = api.delete(kind, object::namespace(object), object::name(object), &options)
        && error.code != 404
    {
        tracing::debug!(message = error.message, "an object without owner stays for now");
    }
}

/// Does what the finalizers of the collector ask for.
fn finish(api: &Api, kind: &Kind, owner: &Value, all: &[(Arc<Kind>, Arc<Value>)]) {
    let uid = object::uid(owner);
    let refers = |object: &Value| {
        object::list(object, &["metadata", "ownerReferences"]).iter().any(|o| object::text(o, &["uid"]) == uid)
    };
    let asks = |finalizer| object::finalizers(owner).any(|f| f == finalizer);
    let done = if asks(FOREGROUND) {
        let mut is_blocked = false;
        for (kind, dependent) in all.iter().filter(|(_, o)| refers(o)) {
            if !object::is_deleting(dependent) {
                delete(api, kind, dependent, Propagation::Foreground);
            }
            let blocks = object::list(dependent, &["metadata", "ownerReferences"])
                .iter()
                .any(|o| object::text(o, &["uid"]) == uid && object::flag(o, &["blockOwnerDeletion"]));
            is_blocked |=
                blocks && api.store.get(&kind.storage, object::namespace(dependent), object::name(dependent)).is_some();
        }
        (!is_blocked).then_some(FOREGROUND)
    } else if asks(ORPHAN) {
        for (kind, dependent) in all.iter().filter(|(_, o)| refers(o)) {
            let write = &mut Write::by("kube-controller-manager");
            let outcome = api.change(kind, object::namespace(dependent), object::name(dependent), write, |next| {
                let mut owners = object::list(next, &["metadata", "ownerReferences"]).to_vec();
                owners.retain(|o| object::text(o, &["uid"]) != uid);
                if owners.is_empty() {
                    object::unset(next, &["metadata", "ownerReferences"]);
                } else {
                    object::set(next, &["metadata", "ownerReferences"], owners);
                }
            });
            if outcome.is_err_and(|error| error.code != 404) {
                return;
            }
        }
        Some(ORPHAN)
    } else {
        None
    };
    if let Some(finalizer) = done
        && let Err(error) = api.drop_finalizer(kind, owner, finalizer)
        && error.code != 404
    {
        tracing::debug!(message = error.message, "a deletion is not finished yet");
    }
}

/// Pods that are going, on nodes that are gone: no kubelet will ever confirm.
fn release_lost_pods(api: &Api) {
    let kind = api.builtin("", "pods");
    for pod in api.all("pods") {
        let node = object::text(&pod, &["spec", "nodeName"]);
        if object::is_deleting(&pod) && !node.is_empty() && api.store.get("nodes", "", node).is_none() {
            let options =
                DeleteOptions { grace: Some(0), uid: Some(object::uid(&pod).to_owned()), ..DeleteOptions::default() };
            // Gone already is as good.
            let _ = api.delete(&kind, object::namespace(&pod), object::name(&pod), &options);
        }
    }
}
