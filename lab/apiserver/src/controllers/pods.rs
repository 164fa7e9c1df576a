//! What the workload controllers share about pods.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::events::emit;
use crate::error::ApiError;
use crate::object;
use crate::ops::{Api, DeleteOptions, Write};

/// The pods that an owner manages.
pub(super) fn of_owner<'a>(pods: &'a [Arc<Value>], owner: &'a Value) -> impl Iterator<Item = &'a Arc<Value>> {
    let (namespace, uid) = (object::namespace(owner), object::uid(owner));
    pods.iter().filter(move |pod| object::namespace(pod) == namespace && object::is_controlled_by(pod, uid))
}

/// Neither ended nor being deleted.
pub(super) fn is_active(pod: &Value) -> bool {
    !object::is_deleting(pod) && !matches!(object::text(pod, &["status", "phase"]), "Succeeded" | "Failed")
}

pub(super) fn is_ready(pod: &Value) -> bool {
    !object::is_deleting(pod) && object::is_true(pod, "Ready")
}

/// Ready for long enough; otherwise the time that is missing, if it is ready at all.
pub(super) fn availability(pod: &Value, min_ready: Duration) -> Result<(), Option<Duration>> {
    if !is_ready(pod) {
        return Err(None);
    }
    if min_ready.is_zero() {
        return Ok(());
    }
    let since = object::condition(pod, "Ready")
        .and_then(|c| object::parse_time(object::text(c, &["lastTransitionTime"])))
        .and_then(|t| SystemTime::now().duration_since(t).ok())
        .unwrap_or_default();
    if since >= min_ready { Ok(()) } else { Err(Some(min_ready - since)) }
}

/// The `minReadySeconds` of a workload.
pub(super) fn min_ready(workload: &Value) -> Duration {
    let seconds = object::int(workload, &["spec", "minReadySeconds"]).unwrap_or_default();
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// A reference by which an object says that another manages it.
pub(super) fn owner_reference(owner: &Value) -> Value {
    json!({"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": object::name(owner),
        "uid": object::uid(owner), "controller": true, "blockOwnerDeletion": true})
}

/// Makes a pod from a template.
pub(super) fn create(
    api: &Api,
    owner: &Value,
    extra_labels: &[(&str, &str)],
    change: impl FnOnce(&mut Value),
    component: &str,
) -> Result<Arc<Value>, ApiError> {
    let template = &owner["spec"]["template"];
    let mut pod = json!({
        "metadata": {"generateName": format!("{}-", object::name(owner)), "ownerReferences": [owner_reference(owner)]},
        "spec": template["spec"],
    });
    for field in ["labels", "annotations", "finalizers"] {
        object::carry(template, &mut pod, &["metadata", field]);
    }
    for (key, value) in extra_labels {
        object::set(&mut pod, &["metadata", "labels", key], *value);
    }
    change(&mut pod);
    let kind = api.builtin("", "pods");
    let made = api.create(&kind, object::namespace(owner), pod, &mut Write::by("kube-controller-manager"));
    match &made {
        Ok(pod) => {
            emit(api, owner, "Normal", "SuccessfulCreate", &format!("Created pod: {}", object::name(pod)), component)
        }
        Err(error) => {
            emit(api, owner, "Warning", "FailedCreate", &format!("Error creating: {}", error.message), component)
        }
    }
    made
}

/// Deletes a pod that its owner no longer wants.
pub(super) fn delete(api: &Api, owner: &Value, pod: &Value, component: &str) {
    let kind = api.builtin("", "pods");
    match api.delete(&kind, object::namespace(pod), object::name(pod), &DeleteOptions::default()) {
        Ok(_) => {
            let message = format!("Deleted pod: {}", object::name(pod));
            emit(api, owner, "Normal", "SuccessfulDelete", &message, component);
        }
        Err(error) => tracing::debug!(message = error.message, "a pod was not deleted"),
    }
}

/// Writes a workload's status when it differs.
pub(super) fn write_status(api: &Api, group_plural: (&str, &str), workload: &Value, status: &[(&str, Value)]) {
    let kind = api.builtin(group_plural.0, group_plural.1);
    let write = &mut Write::status_by("kube-controller-manager");
    let outcome = api.change(&kind, object::namespace(workload), object::name(workload), write, |next| {
        for (field, value) in status {
            if value.is_null() {
                object::unset(next, &["status", field]);
            } else {
                object::set(next, &["status", field], value.clone());
            }
        }
    });
    if let Err(error) = outcome {
        tracing::debug!(message = error.message, "a status was not written");
    }
}

/// A count as a status shows it: zero is left out, as Go does.
pub(super) fn count(number: usize) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}
