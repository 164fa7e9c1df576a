//! Patching: reads, applies the patch, stores; again when another writer came in between.

use std::sync::Arc;

use serde_json::Value;

use super::update::Ownership;
use super::{Api, Write, events_group};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::patch::shape::Place;
use crate::patch::{apply, fields, json, merge, strategic};

/// A patch in one of its four languages.
#[derive(Debug, Clone)]
pub(crate) enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' strategic merge patch.
    Strategic(Value),
    /// Server-side apply.
    Apply(Value),
}

/// A patch without a resource version is tried anew this often when others write meanwhile.
const ATTEMPTS: usize = 16;

impl Api {
    /// Changes an object by a patch; true when server-side apply made it.
    pub(crate) fn patch(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        patch: &Patch,
        write: &mut Write,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        if let Patch::Apply(config) = patch {
            return self.apply(kind, namespace, name, config, write);
        }
        for _ in 0..ATTEMPTS {
            let stored_kind = self.stored_kind(kind);
            let stored = stored_kind.as_deref().unwrap_or(kind);
            let old = self.get(stored, namespace, name)?;
            let mut next = self.present(kind, &old).as_ref().clone();
            change_by(kind, patch, &mut next)?;
            super::create::check_type(kind, &mut next)?;
            if stored_kind.is_some() {
                events_group::into_core(&mut next);
            }
            if object::name(&next) != name {
                let why =
                    crate::error::Cause::invalid("metadata.name", &next["metadata"]["name"], "field is immutable");
                return Err(ApiError::invalid(kind, name, &[why]));
            }
            let asked = object::revision(&next);
            if asked != object::revision(&old) {
                return Err(ApiError::stale(kind, name));
            }
            match self.store_next(stored, &old, next, write, Ownership::Track) {
                Err(error) if error.reason == "Conflict" => {}
                answer => return answer.map(|object| (object, false)),
            }
        }
        Err(ApiError::stale(kind, name))
    }

    fn apply(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        config: &Value,
        write: &mut Write,
    ) -> Result<(Arc<Value>, bool), ApiError> {
        let mut config = config.clone();
        super::create::check_type(kind, &mut config)?;
        if write.manager.is_empty() {
            return Err(ApiError::bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if object::at(&config, &["metadata", "managedFields"]).is_some_and(|m| !m.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let said = object::name(&config);
        if !said.is_empty() && said != name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({said}) does not match the name on the URL ({name})"
            )));
        }
        object::set(&mut config, &["metadata", "name"], name);
        let mut named = config.clone();
        let found = kind.schema.walk_part(&mut named);
        write.judge(kind, name, found)?;
        for _ in 0..ATTEMPTS {
            let Some(old) = self.store.get(&kind.storage, namespace, name) else {
                if write.subresource == "status" {
                    return Err(ApiError::not_found(kind, name));
                }
                write.applied = Some(fields::of_object(&named, Place::root(kind)));
                return self.create(kind, namespace, named, write).map(|object| (object, true));
            };
            let asked = object::revision(&config);
            if asked != 0 && asked != object::revision(&old) {
                return Err(ApiError::stale(kind, name));
            }
            let next = apply::apply(kind, &old, &named, &write.manager, write.subresource, write.force)
                .map_err(|conflicts| ApiError::apply_conflict(&conflicts))?;
            match self.store_next(kind, &old, next, write, Ownership::Given) {
                Err(error) if error.reason == "Conflict" => {}
                answer => return answer.map(|object| (object, false)),
            }
        }
        Err(ApiError::stale(kind, name))
    }
}

fn change_by(kind: &Kind, patch: &Patch, object: &mut Value) -> Result<(), ApiError> {
    match patch {
        Patch::Json(operations) => json::patch(object, operations).map_err(|why| {
            let mut error = ApiError::bad_request(format!("the JSON patch cannot be applied: {why}"));
            error.code = 422;
            error.reason = "Invalid";
            error
        }),
        Patch::Merge(change) => {
            if !change.is_object() {
                return Err(ApiError::bad_request("a merge patch must be an object"));
            }
            merge::patch(object, change);
            Ok(())
        }
        Patch::Strategic(_) if kind.custom => Err(ApiError::unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
        )),
        Patch::Strategic(change) => strategic::patch(kind, object, change)
            .map_err(|why| ApiError::bad_request(format!("the strategic merge patch cannot be applied: {why}"))),
        Patch::Apply(_) => Ok(()),
    }
}
