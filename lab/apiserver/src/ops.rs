//! What can be done with objects: the one way in for HTTP requests and controllers alike.
//!
//! Each write reads the object, computes the next one and stores it only if nothing changed in
//! between. Nothing here waits, so a controller may call it as freely as a request.

mod create;
mod delete;
mod events_group;
mod patch;
pub(crate) mod pods;
mod read;
mod update;

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::error::ApiError;
use crate::kinds::{Kind, KindSet};
use crate::patch::fields::FieldSet;
use crate::schema::Findings;
use crate::store::Store;

pub(crate) use delete::{DeleteOptions, Deleted, FOREGROUND, ORPHAN, Propagation};
pub(crate) use patch::Patch;
pub(crate) use read::ListOptions;

/// How fields that a kind does not know are treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Drop the field and say so in a `Warning` header.
    #[default]
    Warn,
    /// Drop the field.
    Ignore,
}

/// What a write request says beside its object.
#[derive(Debug, Default)]
pub(crate) struct Write {
    /// Do everything but store.
    pub(crate) dry_run: bool,
    /// Who owns the fields that change.
    pub(crate) manager: String,
    /// "", "status" or "scale".
    pub(crate) subresource: &'static str,
    /// Server-side apply: take fields from other managers.
    pub(crate) force: bool,
    pub(crate) validation: FieldValidation,
    /// Remarks for the client, filled in on the way.
    pub(crate) warnings: Vec<String>,
    /// The fields of the configuration, where server-side apply makes the object.
    applied: Option<FieldSet>,
}

impl Write {
    /// A write by a controller of the server itself.
    pub(crate) fn by(manager: &str) -> Self {
        Self { manager: manager.to_owned(), ..Self::default() }
    }

    /// As [`Write::by`], to the status.
    pub(crate) fn status_by(manager: &str) -> Self {
        Self { subresource: "status", ..Self::by(manager) }
    }

    /// Turns what a schema walk found into a refusal or warnings.
    fn judge(&mut self, kind: &Kind, name: &str, found: Findings) -> Result<(), ApiError> {
        if !found.unknown.is_empty() {
            let list: Vec<String> = found.unknown.iter().map(|f| format!("unknown field {f:?}")).collect();
            match self.validation {
                FieldValidation::Strict => {
                    return Err(ApiError::bad_request(format!(
                        "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                        kind.kind,
                        kind.version,
                        kind.kind,
                        list.join(", ")
                    )));
                }
                FieldValidation::Warn => self.warnings.extend(list),
                FieldValidation::Ignore => {}
            }
        }
        if found.causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(kind, name, &found.causes)) }
    }
}

/// The objects of the cluster and the kinds they may have.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) store: Store,
    kinds: RwLock<Arc<KindSet>>,
}

impl Api {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, kinds: RwLock::new(Arc::new(KindSet::builtin())) }
    }

    /// The kinds served now.
    pub(crate) fn kinds(&self) -> Arc<KindSet> {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves another set of kinds from now on.
    pub(crate) fn set_kinds(&self, kinds: KindSet) {
        *self.kinds.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(kinds);
    }

    /// A built-in kind by its plural name and group.
    pub(crate) fn builtin(&self, group: &str, plural: &str) -> Arc<Kind> {
        #[expect(clippy::expect_used, reason = "callers name rows of the static table; a test lists them")]
        self.kinds().get(group, "v1", plural).cloned().expect("a built-in kind")
    }

    /// An object as clients of a kind's version see it.
    pub(crate) fn present(&self, kind: &Kind, object: &Arc<Value>) -> Arc<Value> {
        if kind.group == events_group::GROUP {
            return Arc::new(events_group::from_core(object));
        }
        let api_version = kind.api_version();
        if object.get("apiVersion").and_then(Value::as_str) == Some(&api_version) {
            return object.clone();
        }
        // Versions of a CRD share their schema, so a conversion changes the name of the version only.
        let mut shown = object.as_ref().clone();
        shown["apiVersion"] = api_version.into();
        Arc::new(shown)
    }

    /// The kind under which objects of a kind are stored and checked.
    fn stored_kind(&self, kind: &Kind) -> Option<Arc<Kind>> {
        (kind.group == events_group::GROUP).then(|| self.builtin("", "events"))
    }
}
