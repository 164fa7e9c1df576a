//! What a request says: its path, query, headers and body.

use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::protobuf;
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::ops::{DeleteOptions, FieldValidation, ListOptions, Propagation, Write};
use crate::selectors::{FieldSelector, LabelSelector};

/// The largest body taken, as kube-apiserver has it.
pub(super) const BODY_LIMIT_BYTES: usize = 3 << 20;

/// The head of a request, taken apart.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) segments: Vec<String>,
    pub(super) query: Vec<(String, String)>,
    pub(super) accept: String,
    pub(super) content_type: String,
    user_agent: String,
}

impl Call {
    pub(super) fn parse(request: &Request<Incoming>) -> Result<Self, ApiError> {
        let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let mut segments = Vec::new();
        for segment in request.uri().path().split('/').filter(|s| !s.is_empty()) {
            segments.push(decode(segment).ok_or_else(|| {
                ApiError::bad_request(format!("the path segment {segment:?} is not valid percent-encoded UTF-8"))
            })?);
        }
        let query = request.uri().query().unwrap_or_default();
        Ok(Self {
            segments,
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            accept: header(ACCEPT),
            content_type: header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned(),
            user_agent: header(USER_AGENT),
        })
    }

    /// A query parameter; "" when absent.
    pub(super) fn param(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "true" | "1")
    }

    /// A number in the query.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.param(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad_request(format!("the query parameter {name}={text:?} must be a number"))),
        }
    }

    pub(super) fn list_options(&self, kind: &Kind) -> Result<ListOptions, ApiError> {
        let version = self.revision()?;
        let exact = match self.param("resourceVersionMatch") {
            "Exact" => Some(version.filter(|v| *v > 0).ok_or_else(|| {
                ApiError::bad_request("resourceVersionMatch=Exact needs a resourceVersion other than 0")
            })?),
            _ => None,
        };
        Ok(ListOptions {
            labels: LabelSelector::parse(self.param("labelSelector"))?,
            fields: FieldSelector::parse(self.param("fieldSelector"), kind)?,
            limit: self.number("limit")?.unwrap_or_default(),
            continue_token: self.param("continue").to_owned(),
            exact,
        })
    }

    /// The resource version in the query.
    pub(super) fn revision(&self) -> Result<Option<u64>, ApiError> {
        match self.param("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "Invalid value: {text:?}: resourceVersion must be a number given out by this server"
                ))
            }),
        }
    }

    pub(super) fn write(&self, subresource: &'static str) -> Result<Write, ApiError> {
        let validation = match self.param("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation={other:?} is not known; use Ignore, Warn or Strict"
                )));
            }
        };
        let mut write = Write::by(&self.manager());
        write.dry_run = self.dry_run()?;
        write.subresource = subresource;
        write.force = self.flag("force");
        write.validation = validation;
        Ok(write)
    }

    /// The named field manager, or the program of the user agent.
    fn manager(&self) -> String {
        match self.param("fieldManager") {
            "" => self.user_agent.split('/').next().unwrap_or_default().to_owned(),
            named => named.to_owned(),
        }
    }

    fn dry_run(&self) -> Result<bool, ApiError> {
        match self.param("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::bad_request(format!("dryRun={other:?} is not known; use All"))),
        }
    }

    pub(super) fn delete_options(&self, body: &Value) -> Result<DeleteOptions, ApiError> {
        let mut options = DeleteOptions { dry_run: self.dry_run()?, ..DeleteOptions::default() };
        if let Some(list) = body.get("dryRun").and_then(Value::as_array) {
            options.dry_run |= list.iter().any(|v| v == "All");
        }
        options.grace = match self.number("gracePeriodSeconds")? {
            Some(grace) => Some(grace),
            None => body.get("gracePeriodSeconds").and_then(Value::as_i64),
        };
        let from_body = body.get("propagationPolicy").and_then(Value::as_str).unwrap_or_default();
        let named = Some(self.param("propagationPolicy")).filter(|p| !p.is_empty()).unwrap_or(from_body);
        options.propagation = match named {
            "" => None,
            "Background" => Some(Propagation::Background),
            "Foreground" => Some(Propagation::Foreground),
            "Orphan" => Some(Propagation::Orphan),
            other => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy {other:?} is not known; use Background, Foreground or Orphan"
                )));
            }
        };
        if body.get("orphanDependents") == Some(&Value::Bool(true)) {
            options.propagation = Some(Propagation::Orphan);
        }
        let precondition = |field: &str| {
            body.get("preconditions").and_then(|p| p.get(field)).and_then(Value::as_str).map(str::to_owned)
        };
        options.uid = precondition("uid");
        options.resource_version = precondition("resourceVersion");
        Ok(options)
    }
}

fn decode(segment: &str) -> Option<String> {
    // A plus sign means itself in a path, and a space in a form.
    let escaped = segment.replace('+', "%2B");
    let (decoded, _) = form_urlencoded::parse(escaped.as_bytes()).next()?;
    (!decoded.contains('\u{fffd}') && !decoded.contains('/')).then(|| decoded.into_owned())
}

/// The whole body, up to the limit.
pub(super) async fn read_body(request: &mut Request<Incoming>) -> Result<Vec<u8>, ApiError> {
    let body = Limited::new(request.body_mut(), BODY_LIMIT_BYTES);
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT_BYTES)),
        Err(error) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// The body as a value: JSON, YAML or protobuf. An empty one is `null`.
pub(super) fn parse_body(content_type: &str, body: &[u8]) -> Result<Value, ApiError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    match content_type {
        "" | "*/*" | "application/json" | "application/x-www-form-urlencoded" => serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}"))),
        "application/yaml" | "application/apply-patch+yaml" => serde_yaml_ng::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid YAML: {error}"))),
        protobuf::MEDIA => protobuf::parse(body)
            .map_err(|why| ApiError::bad_request(format!("the body is not valid Kubernetes protobuf: {why}"))),
        json if json.ends_with("+json") => serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("the body is not valid JSON: {error}"))),
        other => Err(ApiError::unsupported_media(format!(
            "the body has content type {other:?}; this server takes application/json and application/yaml"
        ))),
    }
}
