//! OpenAPI v3, as far as kubectl reads it: schemas for `explain`, and the parameters by which it
//! learns that the server validates fields itself.
//!
//! The old v2 document is asked for as protobuf only, and kubectl goes on without it; it is absent.

use http::Response;
use serde_json::{Map, Value, json};

use super::Server;
use super::request::Call;
use super::response::{Body, json_response};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::schema::{Schema, definition_name, definitions};

pub(super) fn serve(server: &Server, call: &Call, rest: &[&str]) -> Result<Response<Body>, ApiError> {
    match rest {
        ["v3"] => Ok(json_response(200, &index(server))),
        ["v3", "api", version] => group_version(server, "", version),
        ["v3", "apis", group, version] => group_version(server, group, version),
        ["v2"] => Err(ApiError::not_acceptable(format!(
            "the OpenAPI v2 document is not served (asked as {:?}); use /openapi/v3",
            call.accept
        ))),
        _ => Err(ApiError::no_such_path(&format!("/openapi/{}", rest.join("/")))),
    }
}

fn index(server: &Server) -> Value {
    let kinds = server.api.kinds();
    let mut paths = Map::new();
    for (group, versions) in kinds.groups() {
        for version in versions {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            // The hash lets clients keep what they have read; kinds of a CRD come and go with revisions.
            let hash =
                if kinds.of_version(&group, &version).any(|k| k.custom) { server.api.store.revision() } else { 0 };
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
    }
    json!({"paths": paths})
}

fn group_version(server: &Server, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let kinds = server.api.kinds();
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in kinds.of_version(group, version) {
        let name = match &kind.schema {
            Schema::Builtin(kind, group) => {
                let name = definition_name(kind, group);
                collect(&name, &mut schemas);
                name
            }
            Schema::Structural(schema) => {
                let name = reversed(kind);
                let mut schema = schema.as_ref().clone();
                for (field, of) in [
                    ("apiVersion", json!({"type": "string"})),
                    ("kind", json!({"type": "string"})),
                    (
                        "metadata",
                        json!({"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}),
                    ),
                ] {
                    schema["properties"][field] = of;
                }
                schemas.insert(name.clone(), schema);
                collect("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", &mut schemas);
                name
            }
        };
        let gvk = json!({"group": group, "version": version, "kind": kind.kind});
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        }
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let reference = json!({"$ref": format!("#/components/schemas/{name}")});
        let collection = format!("{base}{scope}/{}", kind.plural);
        paths.insert(
            collection.clone(),
            json!({
                "get": operation("list", &gvk, &[], &reference),
                "post": operation("post", &gvk, &["dryRun", "fieldManager", "fieldValidation"], &reference),
            }),
        );
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({
                "get": operation("get", &gvk, &[], &reference),
                "put": operation("put", &gvk, &["dryRun", "fieldManager", "fieldValidation"], &reference),
                "patch": operation("patch", &gvk, &["dryRun", "fieldManager", "fieldValidation", "force"], &reference),
                "delete": operation("delete", &gvk, &["dryRun", "gracePeriodSeconds", "propagationPolicy"], &reference),
            }),
        );
    }
    if paths.is_empty() {
        return Err(ApiError::no_such_path(&format!("/openapi/v3/apis/{group}/{version}")));
    }
    Ok(json_response(
        200,
        &json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": super::VERSION.2},
            "paths": paths,
            "components": {"schemas": schemas},
        }),
    ))
}

fn operation(action: &str, gvk: &Value, parameters: &[&str], schema: &Value) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let mut operation = json!({
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk, "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
    });
    if action == "patch" {
        // Without the strategic kind in this list kubectl falls back to the merge keys it has built
        // in, which the schemas here do not carry.
        operation["requestBody"] = json!({"content": {
            "application/json-patch+json": {"schema": {"type": "object"}},
            "application/merge-patch+json": {"schema": {"type": "object"}},
            "application/apply-patch+yaml": {"schema": {"type": "object"}},
        }});
    }
    operation
}

/// The definition name of a custom kind: the group's labels reversed, version, kind.
fn reversed(kind: &Kind) -> String {
    let labels: Vec<&str> = kind.group.split('.').rev().collect();
    format!("{}.{}.{}", labels.join("."), kind.version, kind.kind)
}

/// Takes a built-in definition along, and all it refers to.
fn collect(name: &str, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(name) {
        return;
    }
    let Some(schema) = definitions().get(name) else { return };
    schemas.insert(name.to_owned(), schema.clone());
    collect_references(schema, schemas);
}

fn collect_references(schema: &Value, schemas: &mut Map<String, Value>) {
    match schema {
        Value::Object(fields) => {
            if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                collect(target.rsplit('/').next().unwrap_or_default(), schemas);
            }
            fields.values().for_each(|value| collect_references(value, schemas));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, schemas)),
        _ => {}
    }
}
