//! Deletion: grace, finalizers, propagation, preconditions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::update::may_go;
use super::{Api, ListOptions, Write};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::store::{Key, Refused};

/// What happens to the objects that a deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are collected afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// The finalizers by which the garbage collector is asked.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// See [`FOREGROUND`].
pub(crate) const ORPHAN: &str = "orphan";

/// What a delete request says.
#[derive(Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

/// What became of a deleted object.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone; this was its last state.
    Gone(Arc<Value>),
    /// It waits for its finalizers or its kubelet.
    Waits(Arc<Value>),
}

impl Api {
    /// Deletes an object, or marks it when something must be done first.
    pub(crate) fn delete(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        if let Some(stored) = self.stored_kind(kind) {
            return self.delete(&stored, namespace, name, options);
        }
        loop {
            let old = self.get(kind, namespace, name)?;
            check_preconditions(kind, name, &old, options)?;
            let next = marked(kind, &old, options);
            let goes = may_go(kind, &next);
            if options.dry_run {
                return Ok(if goes { Deleted::Gone(old) } else { Deleted::Waits(Arc::new(next)) });
            }
            let (key, read) = (Key::new(namespace, name), object::revision(&old));
            let answer = if goes {
                self.store.remove(&kind.storage, key, read, next).map(Deleted::Gone)
            } else if next == *old {
                Ok(Deleted::Waits(old))
            } else {
                self.store.replace(&kind.storage, key, read, next).map(Deleted::Waits)
            };
            match answer {
                Ok(deleted) => return Ok(deleted),
                Err(Refused::Missing) => return Err(ApiError::not_found(kind, name)),
                Err(Refused::Stale | Refused::Exists) => {}
            }
        }
    }

    /// Deletes every selected object; the answer is what was selected.
    pub(crate) fn delete_collection(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Value>>, ApiError> {
        let selected = self.list(kind, namespace, list)?.items;
        for object in &selected {
            match self.delete(kind, object::namespace(object), object::name(object), options) {
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(selected)
    }

    /// Takes one finalizer away; the object goes with the last one.
    pub(crate) fn drop_finalizer(&self, kind: &Kind, object: &Value, finalizer: &str) -> Result<(), ApiError> {
        self.change(
            kind,
            object::namespace(object),
            object::name(object),
            &mut Write::by("kinesin-apiserver"),
            |next| {
                let rest: Vec<Value> = object::finalizers(next).filter(|f| *f != finalizer).map(Value::from).collect();
                object::set(next, &["metadata", "finalizers"], rest);
            },
        )?;
        Ok(())
    }
}

fn check_preconditions(kind: &Kind, name: &str, old: &Value, options: &DeleteOptions) -> Result<(), ApiError> {
    let wanted = [
        ("UID", &options.uid, object::uid(old)),
        ("ResourceVersion", &options.resource_version, object::text(old, &["metadata", "resourceVersion"])),
    ];
    for (what, asked, is) in wanted {
        if let Some(asked) = asked
            && asked != is
        {
            let why = format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
            return Err(ApiError::conflict(kind, name, &why));
        }
    }
    Ok(())
}

/// The object with its marks of deletion.
fn marked(kind: &Kind, old: &Value, options: &DeleteOptions) -> Value {
    let mut next = old.clone();
    let mut finalizers: Vec<&str> = object::finalizers(old).collect();
    if let Some(propagation) = options.propagation {
        finalizers.retain(|f| *f != FOREGROUND && *f != ORPHAN);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => finalizers.push(FOREGROUND),
            Propagation::Orphan => finalizers.push(ORPHAN),
        }
        let finalizers: Vec<Value> = finalizers.into_iter().map(Value::from).collect();
        if finalizers.is_empty() {
            object::unset(&mut next, &["metadata", "finalizers"]);
        } else {
            object::set(&mut next, &["metadata", "finalizers"], finalizers);
        }
    }
    let grace = grace_seconds(kind, old, options);
    let before = object::int(old, &["metadata", "deletionGracePeriodSeconds"]);
    // A second delete may shorten the grace, never lengthen it.
    let grace = before.map_or(grace, |before| before.min(grace));
    if !object::is_deleting(old) || before.is_some_and(|before| grace < before) {
        let when = SystemTime::now() + Duration::from_secs(grace.unsigned_abs());
        object::set(&mut next, &["metadata", "deletionTimestamp"], object::timestamp(when));
    }
    object::set(&mut next, &["metadata", "deletionGracePeriodSeconds"], grace);
    if kind.is("namespaces") {
        object::set(&mut next, &["status", "phase"], "Terminating");
    }
    if !object::is_deleting(old)
        && let Some(generation) = object::int(old, &["metadata", "generation"])
    {
        object::set(&mut next, &["metadata", "generation"], generation + 1);
    }
    next
}

/// Only a pod that a kubelet has to stop gets a grace.
fn grace_seconds(kind: &Kind, pod: &Value, options: &DeleteOptions) -> i64 {
    if !kind.is("pods")
        || object::text(pod, &["spec", "nodeName"]).is_empty()
        || matches!(object::text(pod, &["status", "phase"]), "Succeeded" | "Failed")
    {
        return 0;
    }
    let own = object::int(pod, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
    // A negative grace means one second, as in Kubernetes.
    match options.grace.unwrap_or(own) {
        negative if negative < 0 => 1,
        grace => grace,
    }
}
