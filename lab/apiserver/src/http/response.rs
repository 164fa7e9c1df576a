//! Bodies, headers, and the shapes in which objects are asked for.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::table;

/// The body of every answer.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(super) fn response(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed());
    if let Ok(code) = code.try_into() {
        *response.status_mut() = code;
    }
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(super) fn json_response(code: u16, value: &Value) -> Response<Body> {
    response(code, "application/json", value.to_string())
}

pub(super) fn text_response(code: u16, text: &'static str) -> Response<Body> {
    response(code, "text/plain; charset=utf-8", text)
}

pub(super) fn error_response(error: &ApiError) -> Response<Body> {
    let mut response = json_response(error.code, &error.to_status());
    if let Some(seconds) = error.details.as_ref().and_then(|d| d["retryAfterSeconds"].as_u64()) {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds remarks as `Warning` headers.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// The shape in which a client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// As they are.
    Full,
    /// As rows, for people.
    Table(table::Include),
    /// Their metadata alone.
    Metadata,
}

impl View {
    /// The first shape of an `Accept` header that this server knows.
    pub(super) fn asked(accept: &str, include: &str) -> Result<Self, ApiError> {
        let include = match include {
            "None" => table::Include::None,
            "Object" => table::Include::Object,
            _ => table::Include::Metadata,
        };
        let mut refused = Vec::new();
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let shape = parts.find_map(|p| p.strip_prefix("as="));
            match (media, shape) {
                ("application/json" | "application/*", Some("Table")) => return Ok(Self::Table(include)),
                ("application/json" | "application/*", Some("PartialObjectMetadata" | "PartialObjectMetadataList")) => {
                    return Ok(Self::Metadata);
                }
                ("" | "*/*" | "application/json" | "application/*", None) => return Ok(Self::Full),
                _ => refused.push(range.trim()),
            }
        }
        Err(ApiError::not_acceptable(format!(
            "none of the asked media types can be served ({}); ask for application/json",
            refused.join(", ")
        )))
    }

    /// One object in this shape; a watch sends the columns of its table once.
    pub(super) fn object(self, kind: &Kind, object: &Arc<Value>, with_columns: bool) -> Value {
        match self {
            Self::Full => object.as_ref().clone(),
            Self::Table(include) => {
                let mut table = table::render(kind, std::slice::from_ref(object), include, with_columns);
                table["metadata"] = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                table
            }
            Self::Metadata => metadata_only(object),
        }
    }

    /// A list in this shape.
    pub(super) fn list(self, kind: &Kind, objects: &[Arc<Value>], metadata: &Value) -> Vec<u8> {
        match self {
            Self::Full => {
                // Written item by item, to spare a second copy of every object.
                let api_version = Value::from(kind.api_version());
                let list_kind = Value::from(kind.list_kind.as_str());
                let head =
                    format!("{{\"kind\":{list_kind},\"apiVersion\":{api_version},\"metadata\":{metadata},\"items\":[");
                let mut out = head.into_bytes();
                for (i, object) in objects.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(object.to_string().as_bytes());
                }
                out.extend_from_slice(b"]}");
                out
            }
            Self::Table(include) => {
                let mut table = table::render(kind, objects, include, true);
                table["metadata"] = metadata.clone();
                table.to_string().into_bytes()
            }
            Self::Metadata => {
                let items: Vec<Value> = objects.iter().map(|o| metadata_only(o)).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
                    .to_string()
                    .into_bytes()
            }
        }
    }
}

/// An object reduced to its metadata.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
