//! Errors: what a client gets as a Kubernetes `Status`, and why the server did not start.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kinds::Kind;

/// Why [`crate::ApiServer::start`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration names no listener.
    #[error("no listener given; bind at least one TCP socket and hand it over")]
    NoListener,
    /// A listener could not be handed to the runtime.
    #[error("cannot use a listener; it must be a bound, listening TCP socket")]
    Listener {
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The data directory could not be made or read.
    #[error("cannot use data directory {path:?}; give a writable directory or none for memory only")]
    DataDir {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// Another server holds the data directory.
    #[error("data directory {path:?} is in use by another server; stop that one or give another directory")]
    DataDirBusy {
        /// The directory.
        path: PathBuf,
    },
    /// The snapshot cannot be understood.
    #[error("the snapshot {path:?} is not readable: {reason}; remove the file to start with an empty cluster")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pod CIDR range cannot be divided among nodes.
    #[error(
        "pod CIDR {cidr} cannot be cut into /{node_prefix} for nodes; the node prefix must be longer than the range's, and no longer than the family allows"
    )]
    PodCidr {
        /// The range.
        cidr: String,
        /// The prefix length asked for each node.
        node_prefix: u8,
    },
}

/// One reason of an `Invalid` answer, or one warning about a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// Path of the field, such as `spec.containers[0].name`.
    pub(crate) field: String,
    /// The machine-readable word, such as `FieldValueRequired`.
    pub(crate) reason: &'static str,
    /// The text after the field.
    pub(crate) message: String,
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, hint: &str) -> Self {
        let message = if hint.is_empty() { "Required value".to_owned() } else { format!("Required value: {hint}") };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub(crate) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {}: {why}", shorten(value)),
        }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { field: field.into(), reason: "FieldValueForbidden", message: format!("Forbidden: {why}") }
    }

    pub(crate) fn not_supported(field: impl Into<String>, value: &Value, supported: &[String]) -> Self {
        Self {
            field: field.into(),
            reason: "FieldValueNotSupported",
            message: format!("Unsupported value: {}: supported values: {}", shorten(value), supported.join(", ")),
        }
    }

    pub(crate) fn wrong_type(field: impl Into<String>, value: &Value, want: &str) -> Self {
        let got = type_name(value);
        Self {
            field: field.into(),
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {}: must be of type {want}: got {got}", shorten(value)),
        }
    }
}

/// The JSON name of a value's type.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as it may stand in a message: JSON, cut at 200 characters.
fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// A refusal, ready to become a `Status` object.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let mut error = Self::new(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", kind.qualified()));
        error.details = Some(kind.details(name));
        error
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let mut error = Self::new(404, "NotFound", format!("{} {name:?} not found", kind.qualified()));
        error.details = Some(kind.details(name));
        error
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::new(404, "NotFound", format!("the server could not find the requested resource ({path})"))
    }

    pub(crate) fn method_not_allowed(method: &str, what: &str) -> Self {
        Self::new(405, "MethodNotAllowed", format!("{method} is not supported on {what}"))
    }

    pub(crate) fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub(crate) fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        let mut error = Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified()));
        error.details = Some(kind.details(name));
        error
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let mut error = Self::new(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified()),
        );
        error.details = Some(kind.details(name));
        error
    }

    /// The object moved on since the client read it.
    pub(crate) fn stale(kind: &Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Server-side apply met fields that other managers own.
    pub(crate) fn apply_conflict(conflicts: &[(String, String)]) -> Self {
        let count = conflicts.len();
        let list: Vec<String> =
            conflicts.iter().map(|(manager, field)| format!("conflict with {manager:?}: {field}")).collect();
        let plural = if count == 1 { "conflict" } else { "conflicts" };
        let mut error = Self::new(409, "Conflict", format!("Apply failed with {count} {plural}: {}", list.join("; ")));
        error.details = Some(json!({"causes": conflicts.iter().map(|(manager, field)| json!({
            "reason": "FieldManagerConflict", "message": format!("conflict with {manager:?}"), "field": field,
        })).collect::<Vec<_>>()}));
        error
    }

    /// The resource version lies before the window of kept changes.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    pub(crate) fn from_future(asked: u64, current: u64) -> Self {
        let mut error = Self::new(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
        error.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        error
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    pub(crate) fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(429, "TooManyRequests", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The object breaks rules of its kind; every broken rule is listed.
    pub(crate) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let list: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let text = if list.len() == 1 { list.join("") } else { format!("[{}]", list.join(", ")) };
        let title = if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut error = Self::new(422, "Invalid", format!("{title} {name:?} is invalid: {text}"));
        error.details = Some(json!({
            "name": name, "group": kind.group, "kind": kind.kind,
            "causes": causes.iter().map(|c| json!({
                "reason": c.reason, "message": c.message, "field": c.field,
            })).collect::<Vec<_>>(),
        }));
        error
    }

    /// The `Status` object of this refusal.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}
