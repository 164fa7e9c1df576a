//! Creation of objects.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Api, Write, events_group};
use crate::error::{ApiError, Cause};
use crate::kinds::Kind;
use crate::patch::managed;
use crate::store::{Key, Refused};
use crate::{names, object, strategy};

/// A generated name is tried so many times before the clash is reported.
const NAME_ATTEMPTS: usize = 8;

impl Api {
    /// Stores a new object and returns it as stored.
    pub(crate) fn create(
        &self,
        kind: &Kind,
        namespace: &str,
        mut object: Value,
        write: &mut Write,
    ) -> Result<Arc<Value>, ApiError> {
        if let Some(stored) = self.stored_kind(kind) {
            events_group::into_core(&mut object);
            return self.create(&stored, namespace, object, write);
        }
        check_type(kind, &mut object)?;
        self.check_metadata(kind, namespace, &mut object)?;
        if !object::text(&object, &["metadata", "resourceVersion"]).is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let name = object::name(&object).to_owned();
        let found = kind.schema.walk(&mut object);
        write.judge(kind, &name, found)?;

        for gone in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
            object::unset(&mut object, &["metadata", gone]);
        }
        object::set(&mut object, &["metadata", "uid"], uuid::Uuid::new_v4().to_string());
        object::set(&mut object, &["metadata", "creationTimestamp"], object::now());
        if kind.generation || kind.custom {
            object::set(&mut object, &["metadata", "generation"], 1);
        } else {
            object::unset(&mut object, &["metadata", "generation"]);
        }
        if kind.custom && kind.status {
            object::unset(&mut object, &["status"]);
        }
        strategy::prepare_create(self, kind, &mut object)?;
        strategy::set_defaults(kind, &mut object);

        let prefix = object::text(&object, &["metadata", "generateName"]).to_owned();
        let is_generated = name.is_empty() && !prefix.is_empty();
        for attempt in 1.. {
            let mut object = object.clone();
            if is_generated {
                // Kubernetes cuts the prefix so that name and suffix stay within a label.
                let cut = prefix.char_indices().nth(58).map_or(prefix.len(), |(i, _)| i);
                let name = format!("{}{}", &prefix[..cut], object::random_suffix(5));
                object::set(&mut object, &["metadata", "name"], name);
            }
            strategy::prepare_named(kind, &mut object);
            let name = object::name(&object).to_owned();
            let mut causes = names::check(kind, &object);
            causes.extend(strategy::validate(kind, None, &object));
            if !causes.is_empty() {
                return Err(ApiError::invalid(kind, &name, &causes));
            }
            match &write.applied {
                Some(fields) => {
                    let entry = managed::Entry::new(kind, &write.manager, "Apply", "", fields.clone());
                    managed::write(&mut object, &[entry]);
                }
                None => managed::record(kind, None, &mut object, &write.manager, ""),
            }
            if write.dry_run {
                return match self.store.get(&kind.storage, namespace, &name) {
                    Some(_) if !is_generated => Err(ApiError::already_exists(kind, &name)),
                    _ => Ok(Arc::new(object)),
                };
            }
            match self.store.insert(&kind.storage, Key::new(namespace, &name), object) {
                Ok(stored) => return Ok(stored),
                Err(_) if is_generated && attempt < NAME_ATTEMPTS => {}
                Err(Refused::Exists | Refused::Missing | Refused::Stale) => {
                    return Err(ApiError::already_exists(kind, &name));
                }
            }
        }
        Err(ApiError::internal("no free name was found"))
    }

    /// Checks that metadata fits the address of the request, and that the namespace takes objects.
    fn check_metadata(&self, kind: &Kind, namespace: &str, object: &mut Value) -> Result<(), ApiError> {
        if object.get("metadata").is_none_or(Value::is_null) {
            object["metadata"] = Value::Object(Map::new());
        }
        if !object["metadata"].is_object() {
            return Err(ApiError::bad_request("metadata must be an object"));
        }
        let name = object::name(object).to_owned();
        if !kind.namespaced {
            if !object::namespace(object).is_empty() {
                let cause = Cause::forbidden("metadata.namespace", "not allowed on this type");
                return Err(ApiError::invalid(kind, &name, &[cause]));
            }
            object::unset(object, &["metadata", "namespace"]);
            return Ok(());
        }
        let said = object::namespace(object);
        if !said.is_empty() && said != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        object::set(object, &["metadata", "namespace"], namespace);
        let namespaces = self.builtin("", "namespaces");
        let owner = self.get(&namespaces, "", namespace)?;
        if object::is_deleting(&owner) {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            return Err(ApiError::forbidden(kind, &name, &why));
        }
        Ok(())
    }
}

/// Checks `apiVersion` and `kind` against the address of the request, and fills them in.
pub(super) fn check_type(kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    let Value::Object(fields) = object else {
        return Err(ApiError::bad_request(format!(
            "the body must be one {} object, not {}",
            kind.kind,
            crate::error::type_name(object)
        )));
    };
    for (field, want) in [("apiVersion", kind.api_version()), ("kind", kind.kind.clone())] {
        match fields.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::String(said)) if *said == want || said.is_empty() => {}
            Some(said) => {
                return Err(ApiError::bad_request(format!(
                    "{field} in the data ({said}) does not match the expected {field} ({want})"
                )));
            }
        }
        fields.insert(field.to_owned(), want.into());
    }
    Ok(())
}
