//! Requests on resources: verbs on collections, objects and subresources.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::request::{Call, parse_body, read_body};
use super::response::{Body, View, json_response, response, warn};
use super::{Server, proxy, review, watch};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::ops::{Deleted, Patch};

/// The address of a resource below its group and version.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) kind: Arc<Kind>,
    /// `None` is all namespaces, or a kind without namespaces.
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Address {
    fn ns(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }
}

pub(super) async fn serve(
    server: &Server,
    request: &mut Request<Incoming>,
    call: Call,
    group: &str,
    version: &str,
    rest: &[String],
) -> Result<Response<Body>, ApiError> {
    if let Some(answer) = review::serve(request, &call, group, rest).await? {
        return Ok(answer);
    }
    let address = locate(server, group, version, rest).ok_or_else(|| ApiError::no_such_path(request.uri().path()))?;
    let method = request.method().clone();
    match (&address.name, address.subresource.as_deref()) {
        (None, _) => collection(server, request, &call, &address).await,
        (Some(name), None) => {
            let name = name.clone();
            one(server, request, &call, &address, &name).await
        }
        (Some(name), Some(subresource)) => {
            let (name, subresource) = (name.clone(), subresource.to_owned());
            match subresource.as_str() {
                "status" if address.kind.status => one(server, request, &call, &address, &name).await,
                "scale" if address.kind.scale.is_some() => scale(server, request, &call, &address, &name).await,
                known if address.kind.subresources.contains(&known) => match known {
                    "binding" if method == Method::POST => bind(server, request, &call, &address, &name).await,
                    "eviction" if method == Method::POST => evict(server, request, &call, &address, &name).await,
                    "finalize" if method == Method::PUT => one(server, request, &call, &address, &name).await,
                    "log" if method == Method::GET => proxy::log(server, &call, address.ns(), &name).await,
                    "exec" | "attach" => proxy::tunnel(server, request, &call, address.ns(), &name, known).await,
                    _ => Err(ApiError::method_not_allowed(method.as_str(), &subresource)),
                },
                _ => Err(ApiError::no_such_path(request.uri().path())),
            }
        }
    }
}

fn locate(server: &Server, group: &str, version: &str, rest: &[String]) -> Option<Address> {
    let kinds = server.api.kinds();
    // `namespaces/NAME/status` is about the namespace itself, `namespaces/NAME/pods` about what is in it.
    let (namespace, rest) = match rest {
        [first, namespace, rest @ ..] if first == "namespaces" && !rest.is_empty() => {
            let is_own = group.is_empty() && rest.len() == 1 && matches!(rest[0].as_str(), "status" | "finalize");
            if is_own { (None, rest_of(rest, first, namespace)) } else { (Some(namespace.clone()), rest.to_vec()) }
        }
        other => (None, other.to_vec()),
    };
    let mut parts = rest.into_iter();
    let plural = parts.next()?;
    let (name, subresource) = (parts.next(), parts.next());
    if parts.next().is_some() {
        return None;
    }
    let kind = kinds.get(group, version, &plural)?.clone();
    let fits = if kind.namespaced { namespace.is_some() || name.is_none() } else { namespace.is_none() };
    fits.then_some(Address { kind, namespace, name, subresource })
}

fn rest_of(rest: &[String], first: &str, namespace: &str) -> Vec<String> {
    let mut all = vec![first.to_owned(), namespace.to_owned()];
    all.extend_from_slice(rest);
    all
}

async fn collection(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    address: &Address,
) -> Result<Response<Body>, ApiError> {
    let (api, kind) = (&server.api, &address.kind);
    match *request.method() {
        Method::GET => {
            let view = View::asked(&call.accept, call.param("includeObject"))?;
            let options = call.list_options(kind)?;
            if call.flag("watch") {
                return watch::serve(server, call, kind, address.namespace.clone(), options, view);
            }
            if let Some(asked) = call.revision()? {
                let current = api.store.revision();
                if asked > current {
                    return Err(ApiError::from_future(asked, current));
                }
            }
            let mut listing = api.list(kind, address.namespace.as_deref(), &options)?;
            for item in &mut listing.items {
                *item = api.present(kind, item);
            }
            let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
            if !listing.next.is_empty() {
                metadata["continue"] = listing.next.into();
                if let Some(remaining) = listing.remaining {
                    metadata["remainingItemCount"] = remaining.into();
                }
            }
            Ok(response(200, "application/json", view.list(kind, &listing.items, &metadata)))
        }
        Method::POST => {
            if kind.namespaced && address.namespace.is_none() {
                return Err(ApiError::method_not_allowed("POST", "a collection over all namespaces; name one"));
            }
            let mut write = call.write("")?;
            let body = parse_body(&call.content_type, &read_body(request).await?)?;
            let stored = api.create(kind, address.ns(), body, &mut write)?;
            Ok(answer_object(server, call, kind, &stored, 201, &write.warnings)?)
        }
        Method::DELETE => {
            let options = call.list_options(kind)?;
            let body = parse_body(&call.content_type, &read_body(request).await?)?;
            let gone =
                api.delete_collection(kind, address.namespace.as_deref(), &options, &call.delete_options(&body)?)?;
            let metadata = json!({"resourceVersion": api.store.revision().to_string()});
            Ok(response(200, "application/json", View::Full.list(kind, &gone, &metadata)))
        }
        _ => Err(ApiError::method_not_allowed(request.method().as_str(), &kind.qualified())),
    }
}

async fn one(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    address: &Address,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let (api, kind, ns) = (&server.api, &address.kind, address.ns());
    let subresource = if address.subresource.as_deref() == Some("status") { "status" } else { "" };
    match *request.method() {
        Method::GET => {
            if call.flag("watch") {
                let mut options = call.list_options(kind)?;
                options.fields = crate::selectors::FieldSelector::parse(&format!("metadata.name={name}"), kind)?;
                let view = View::asked(&call.accept, call.param("includeObject"))?;
                return watch::serve(server, call, kind, address.namespace.clone(), options, view);
            }
            let object = api.get(kind, ns, name)?;
            answer_object(server, call, kind, &object, 200, &[])
        }
        Method::PUT => {
            let mut write = call.write(subresource)?;
            let body = parse_body(&call.content_type, &read_body(request).await?)?;
            let stored = api.update(kind, ns, name, body, &mut write)?;
            answer_object(server, call, kind, &stored, 200, &write.warnings)
        }
        Method::PATCH => {
            let mut write = call.write(subresource)?;
            let patch = parse_patch(&call.content_type, &read_body(request).await?)?;
            let (stored, is_new) = api.patch(kind, ns, name, &patch, &mut write)?;
            answer_object(server, call, kind, &stored, if is_new { 201 } else { 200 }, &write.warnings)
        }
        Method::DELETE if subresource.is_empty() => {
            let body = parse_body(&call.content_type, &read_body(request).await?)?;
            match api.delete(kind, ns, name, &call.delete_options(&body)?)? {
                Deleted::Waits(object) => answer_object(server, call, kind, &object, 200, &[]),
                Deleted::Gone(object) => {
                    let mut details = kind.details(name);
                    details["uid"] = object::uid(&object).into();
                    Ok(json_response(
                        200,
                        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                        "status": "Success", "details": details}),
                    ))
                }
            }
        }
        _ => Err(ApiError::method_not_allowed(request.method().as_str(), &format!("{} {name:?}", kind.qualified()))),
    }
}

fn parse_patch(content_type: &str, body: &[u8]) -> Result<Patch, ApiError> {
    let value = |kind| parse_body(kind, body);
    match content_type {
        "application/json-patch+json" => Ok(Patch::Json(value("application/json")?)),
        "application/merge-patch+json" => Ok(Patch::Merge(value("application/json")?)),
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(value("application/json")?)),
        "application/apply-patch+yaml" => Ok(Patch::Apply(value("application/yaml")?)),
        other => Err(ApiError::unsupported_media(format!(
            "the patch has content type {other:?}; accepted are application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        ))),
    }
}

fn answer_object(
    server: &Server,
    call: &Call,
    kind: &Kind,
    object: &Arc<Value>,
    code: u16,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    let view = View::asked(&call.accept, call.param("includeObject"))?;
    let mut response = json_response(code, &view.object(kind, &server.api.present(kind, object), true));
    warn(&mut response, warnings);
    Ok(response)
}

async fn scale(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    address: &Address,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let (api, kind, ns) = (&server.api, &address.kind, address.ns());
    let now = api.scale_of(kind, &*api.get(kind, ns, name)?)?;
    let next = match *request.method() {
        Method::GET => return Ok(json_response(200, &now)),
        Method::PUT => parse_body(&call.content_type, &read_body(request).await?)?,
        Method::PATCH => {
            let mut next = now;
            match parse_patch(&call.content_type, &read_body(request).await?)? {
                Patch::Json(operations) => {
                    crate::patch::json::patch(&mut next, &operations).map_err(ApiError::bad_request)?;
                }
                // A Scale has no lists, so the two merges are one.
                Patch::Merge(change) | Patch::Strategic(change) | Patch::Apply(change) => {
                    object::unset(&mut next, &["metadata", "resourceVersion"]);
                    crate::patch::merge::patch(&mut next, &change);
                }
            }
            next
        }
        _ => return Err(ApiError::method_not_allowed(request.method().as_str(), "scale")),
    };
    Ok(json_response(200, &api.set_scale(kind, ns, name, &next, &mut call.write("")?)?))
}

/// `pods/NAME/binding`: gives a pod to a node.
async fn bind(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    address: &Address,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let body = parse_body(&call.content_type, &read_body(request).await?)?;
    server.api.bind(address.ns(), name, object::text(&body, &["target", "name"]), &mut call.write("")?)?;
    Ok(json_response(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

/// `pods/NAME/eviction`: a delete that asks the disruption budgets first.
async fn evict(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    address: &Address,
    name: &str,
) -> Result<Response<Body>, ApiError> {
    let body = parse_body(&call.content_type, &read_body(request).await?)?;
    let mut options = call.delete_options(body.get("deleteOptions").unwrap_or(&Value::Null))?;
    options.dry_run |= call.param("dryRun") == "All";
    server.api.evict(address.ns(), name, &options)?;
    Ok(json_response(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}
