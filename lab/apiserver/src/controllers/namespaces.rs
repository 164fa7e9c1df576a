//! Namespaces: the four that every cluster has, their default service accounts, and the clearing
//! of those that are deleted.

use std::time::Duration;

use serde_json::{Value, json};

use super::Controller;
use crate::object;
use crate::ops::{Api, DeleteOptions, Write};

/// Namespaces that every cluster has.
const FIRST: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

#[derive(Debug)]
pub(super) struct Namespaces;

impl Controller for Namespaces {
    const WATCHES: &'static [&'static str] = &["namespaces", "serviceaccounts"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let kind = api.builtin("", "namespaces");
        for name in FIRST {
            if api.store.get("namespaces", "", name).is_none() {
                let namespace = json!({"metadata": {"name": name}});
                if let Err(error) = api.create(&kind, "", namespace, &mut Write::by("kinesin-apiserver")) {
                    tracing::warn!(name, message = error.message, "a namespace could not be made");
                }
            }
        }
        let mut is_waiting = false;
        for namespace in api.all("namespaces") {
            if object::is_deleting(&namespace) {
                is_waiting |= !clear(api, &namespace);
            } else {
                make_account(api, object::name(&namespace));
            }
        }
        is_waiting.then_some(Duration::from_millis(50))
    }
}

fn make_account(api: &Api, namespace: &str) {
    if api.store.get("serviceaccounts", namespace, "default").is_none() {
        let kind = api.builtin("", "serviceaccounts");
        let account = json!({"metadata": {"name": "default"}});
        if let Err(error) = api.create(&kind, namespace, account, &mut Write::by("kube-controller-manager")) {
            tracing::debug!(namespace, message = error.message, "a default service account was not made");
        }
    }
}

/// Deletes what is in a namespace that goes; true when the namespace has gone itself.
fn clear(api: &Api, namespace: &Value) -> bool {
    let name = object::name(namespace);
    let kinds = api.kinds();
    let mut left = 0;
    for resource in api.store.resources() {
        let Some(kind) = kinds.by_storage(&resource).filter(|k| k.namespaced) else { continue };
        for object in api.store.list(&resource, Some(name)).0 {
            if !object::is_deleting(&object)
                && let Err(error) = api.delete(kind, name, object::name(&object), &DeleteOptions::default())
            {
                tracing::debug!(message = error.message, "an object of a deleted namespace stays for now");
            }
        }
        left += api.store.list(&resource, Some(name)).0.len();
    }
    if left > 0 {
        return false;
    }
    let kind = api.builtin("", "namespaces");
    let outcome = api.change(&kind, "", name, &mut Write::by("kube-controller-manager"), |next| {
        object::unset(next, &["spec", "finalizers"]);
    });
    outcome.is_ok() && api.store.get("namespaces", "", name).is_none()
}
