//! Replacement of objects, their status and their scale.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::check_type;
use super::{Api, Write, events_group};
use crate::error::{ApiError, Cause};
use crate::kinds::{Kind, ScalePaths};
use crate::patch::managed;
use crate::selectors::LabelSelector;
use crate::store::{Key, Refused};
use crate::{names, object, strategy};

/// Who keeps the book of field owners in a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Changed fields go to the writer.
    Track,
    /// Server-side apply has written it already.
    Given,
}

impl Api {
    /// Replaces an object that the client has read; without a resource version, whatever is there.
    pub(crate) fn update(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        mut object: Value,
        write: &mut Write,
    ) -> Result<Arc<Value>, ApiError> {
        if let Some(stored) = self.stored_kind(kind) {
            events_group::into_core(&mut object);
            return self.update(&stored, namespace, name, object, write);
        }
        check_type(kind, &mut object)?;
        check_address(kind, namespace, name, &object)?;
        let old = self.get(kind, namespace, name)?;
        let read = object::revision(&object);
        if read != 0 && read != object::revision(&old) {
            return Err(ApiError::stale(kind, name));
        }
        let uid = object::uid(&object);
        if !uid.is_empty() && uid != object::uid(&old) {
            let why =
                format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", object::uid(&old));
            return Err(ApiError::conflict(kind, name, &why));
        }
        self.store_next(kind, &old, object, write, Ownership::Track)
    }

    /// Changes an object by a function of its present state, as often as others come in between.
    pub(crate) fn change(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        write: &mut Write,
        step: impl Fn(&mut Value),
    ) -> Result<Arc<Value>, ApiError> {
        loop {
            let old = self.get(kind, namespace, name)?;
            let mut next = old.as_ref().clone();
            step(&mut next);
            match self.store_next(kind, &old, next, write, Ownership::Track) {
                Err(error) if error.reason == "Conflict" => {}
                answer => return answer,
            }
        }
    }

    /// Checks the next state of an object against its present one and stores it.
    pub(super) fn store_next(
        &self,
        kind: &Kind,
        old: &Arc<Value>,
        mut next: Value,
        write: &mut Write,
        ownership: Ownership,
    ) -> Result<Arc<Value>, ApiError> {
        let (namespace, name) = (object::namespace(old).to_owned(), object::name(old).to_owned());
        let found = kind.schema.walk(&mut next);
        write.judge(kind, &name, found)?;

        // What only the server writes stays as it is.
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "resourceVersion",
            "generateName",
            "name",
            "namespace",
        ] {
            object::carry(old, &mut next, &["metadata", field]);
        }
        object::unset(&mut next, &["metadata", "selfLink"]);
        if ownership == Ownership::Track {
            object::carry(old, &mut next, &["metadata", "managedFields"]);
        }
        if write.subresource == "status" {
            // A status write may carry labels and annotations along in Kubernetes too, for some
            // kinds only; here, none does.
            let status = next.get("status").cloned();
            let managed = object::at(&next, &["metadata", "managedFields"]).cloned();
            next = old.as_ref().clone();
            if let Some(managed) = managed {
                object::set(&mut next, &["metadata", "managedFields"], managed);
            }
            match status {
                Some(status) => object::set(&mut next, &["status"], status),
                None => {
                    object::unset(&mut next, &["status"]);
                }
            }
        } else if kind.status {
            object::carry(old, &mut next, &["status"]);
        }
        if is_deleting_with_new_finalizer(old, &next) {
            let cause = Cause::forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted",
            );
            return Err(ApiError::invalid(kind, &name, &[cause]));
        }
        strategy::prepare_update(self, kind, old, &mut next)?;
        strategy::set_defaults(kind, &mut next);

        let mut causes = names::check(kind, &next);
        causes.extend(strategy::validate(kind, Some(old), &next));
        if !causes.is_empty() {
            return Err(ApiError::invalid(kind, &name, &causes));
        }
        if (kind.generation || kind.custom) && write.subresource != "status" && differs_in_specification(old, &next) {
            let generation = object::int(old, &["metadata", "generation"]).unwrap_or_default() + 1;
            object::set(&mut next, &["metadata", "generation"], generation);
        }
        if ownership == Ownership::Track {
            managed::record(kind, Some(old), &mut next, &write.manager, write.subresource);
        }
        self.put(kind, old, &namespace, &name, next, write)
    }

    /// Stores, or removes when the last finalizer went.
    pub(super) fn put(
        &self,
        kind: &Kind,
        old: &Arc<Value>,
        namespace: &str,
        name: &str,
        next: Value,
        write: &Write,
    ) -> Result<Arc<Value>, ApiError> {
        if next == **old {
            return Ok(old.clone());
        }
        if write.dry_run {
            return Ok(Arc::new(next));
        }
        let (key, read) = (Key::new(namespace, name), object::revision(old));
        let answer = if may_go(kind, &next) {
            self.store.remove(&kind.storage, key, read, next)
        } else {
            self.store.replace(&kind.storage, key, read, next)
        };
        answer.map_err(|refused| match refused {
            Refused::Missing => ApiError::not_found(kind, name),
            Refused::Stale | Refused::Exists => ApiError::stale(kind, name),
        })
    }

    /// The scale of an object.
    pub(crate) fn scale_of(&self, kind: &Kind, object: &Value) -> Result<Value, ApiError> {
        let paths = scale_paths(kind)?;
        let number = |path: &[String]| object::int(object, &refs(path)).unwrap_or_default();
        let selector = match &paths.selector {
            Some(path) => object::text(object, &refs(path)).to_owned(),
            None => LabelSelector::from_object(&object["spec"]["selector"]).to_text(),
        };
        let mut scale = json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {"name": object::name(object), "uid": object::uid(object),
                "resourceVersion": object["metadata"]["resourceVersion"],
                "creationTimestamp": object["metadata"]["creationTimestamp"]},
            "spec": {"replicas": number(&paths.spec_replicas)},
            "status": {"replicas": number(&paths.status_replicas), "selector": selector},
        });
        object::carry(object, &mut scale, &["metadata", "namespace"]);
        Ok(scale)
    }

    /// Sets the wanted replicas of an object; the answer is its scale.
    pub(crate) fn set_scale(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        scale: &Value,
        write: &mut Write,
    ) -> Result<Value, ApiError> {
        let paths = scale_paths(kind)?;
        let old = self.get(kind, namespace, name)?;
        let read = object::revision(scale);
        if read != 0 && read != object::revision(&old) {
            return Err(ApiError::stale(kind, name));
        }
        let replicas = object::int(scale, &["spec", "replicas"]).unwrap_or_default();
        if replicas < 0 {
            let cause = Cause::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
            return Err(ApiError::invalid(kind, name, &[cause]));
        }
        let mut next = old.as_ref().clone();
        object::set(&mut next, &refs(&paths.spec_replicas), replicas);
        let stored = self.store_next(kind, &old, next, write, Ownership::Track)?;
        self.scale_of(kind, &stored)
    }
}

fn scale_paths(kind: &Kind) -> Result<&ScalePaths, ApiError> {
    kind.scale.as_ref().ok_or_else(|| ApiError::no_such_path(&format!("{}/scale", kind.qualified())))
}

fn refs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

/// Whether nothing keeps a deleted object any longer.
pub(super) fn may_go(kind: &Kind, object: &Value) -> bool {
    object::is_deleting(object)
        && object::finalizers(object).next().is_none()
        && object::int(object, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default() == 0
        && (!kind.is("namespaces") || object::list(object, &["spec", "finalizers"]).is_empty())
}

fn is_deleting_with_new_finalizer(old: &Value, next: &Value) -> bool {
    object::is_deleting(old) && object::finalizers(next).any(|f| object::finalizers(old).all(|had| had != f))
}

/// Whether anything but metadata and status differs.
fn differs_in_specification(old: &Value, next: &Value) -> bool {
    let (Value::Object(old), Value::Object(next)) = (old, next) else { return true };
    let counts = |key: &String| !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind");
    old.keys().chain(next.keys()).filter(|k| counts(k)).any(|key| old.get(key) != next.get(key))
}

fn check_address(kind: &Kind, namespace: &str, name: &str, object: &Value) -> Result<(), ApiError> {
    let said = object::name(object);
    if said.is_empty() && !object.get("metadata").is_some_and(Value::is_object) {
        return Err(ApiError::invalid(kind, name, &[Cause::required("metadata.name", "name must be provided")]));
    }
    if said != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    let said = object::namespace(object);
    if kind.namespaced && !said.is_empty() && said != namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({said}) does not match the namespace on the URL ({namespace})"
        )));
    }
    Ok(())
}
