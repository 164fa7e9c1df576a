//! Discovery: which groups, versions and resources there are, in the old form and the aggregated one.

use http::Response;
use serde_json::{Value, json};

use super::Server;
use super::request::Call;
use super::response::{Body, json_response, response};
use crate::error::ApiError;
use crate::kinds::{Kind, KindSet};

/// The media type of the aggregated form, as kubectl asks for it since 1.30.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups that serve reviews only, and what those are.
pub(super) const REVIEWS: [(&str, &str, &str); 5] = [
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview"),
];

fn wants_aggregated(call: &Call) -> bool {
    let accept: String = call.accept.chars().filter(|c| !c.is_whitespace()).collect();
    accept.split(',').any(|range| {
        range.contains("as=APIGroupDiscoveryList") && range.contains("v=v2") && !range.contains("v=v2beta1")
    })
}

pub(super) fn core_versions(server: &Server, call: &Call) -> Result<Response<Body>, ApiError> {
    if wants_aggregated(call) {
        let kinds = server.api.kinds();
        return Ok(aggregated(&kinds, vec![(String::new(), vec!["v1".to_owned()])]));
    }
    Ok(json_response(200, &json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})))
}

/// All groups but the core one.
fn all_groups(kinds: &KindSet) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<_> = kinds.groups().into_iter().filter(|(group, _)| !group.is_empty()).collect();
    for group in ["authentication.k8s.io", "authorization.k8s.io"] {
        groups.push((group.to_owned(), vec!["v1".to_owned()]));
    }
    groups
}

pub(super) fn groups(server: &Server, call: &Call) -> Result<Response<Body>, ApiError> {
    let kinds = server.api.kinds();
    let groups = all_groups(&kinds);
    if wants_aggregated(call) {
        return Ok(aggregated(&kinds, groups));
    }
    let list: Vec<Value> = groups.iter().map(|(group, versions)| group_object(group, versions)).collect();
    Ok(json_response(200, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})))
}

pub(super) fn group(server: &Server, name: &str) -> Result<Response<Body>, ApiError> {
    let groups = all_groups(&server.api.kinds());
    let (group, versions) = groups
        .iter()
        .find(|(group, _)| group == name)
        .ok_or_else(|| ApiError::no_such_path(&format!("/apis/{name}")))?;
    let mut object = group_object(group, versions);
    object["kind"] = "APIGroup".into();
    object["apiVersion"] = "v1".into();
    Ok(json_response(200, &object))
}

fn group_object(group: &str, versions: &[String]) -> Value {
    let named = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    json!({"name": group, "versions": versions.iter().map(named).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(named)})
}

pub(super) fn resources(server: &Server, group: &str, version: &str) -> Result<Response<Body>, ApiError> {
    let kinds = server.api.kinds();
    let mut list = Vec::new();
    for kind in kinds.of_version(group, version) {
        list.push(json!({"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories}));
        for (sub, of_group, of_version, of_kind, verbs) in subresources(kind) {
            let mut entry = json!({"name": format!("{}/{sub}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "kind": of_kind, "verbs": verbs});
            if of_group != kind.group || of_version != kind.version {
                entry["group"] = of_group.into();
                entry["version"] = of_version.into();
            }
            list.push(entry);
        }
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(g, ..)| *g == group && version == "v1") {
        list.push(json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": *plural == "localsubjectaccessreviews",
            "kind": kind, "verbs": ["create"]}));
    }
    if list.is_empty() {
        return Err(ApiError::no_such_path(&format!("/apis/{group}/{version}")));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json_response(
        200,
        &json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}),
    ))
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// Name, group, version, kind and verbs of each subresource.
fn subresources(kind: &Kind) -> Vec<(&str, String, String, String, Vec<&'static str>)> {
    let own = |sub, verbs: &[&'static str]| {
        (sub, kind.group.clone(), kind.version.clone(), kind.kind.clone(), verbs.to_vec())
    };
    let other = |sub, group: &str, of: &str, verbs: &[&'static str]| {
        (sub, group.to_owned(), "v1".to_owned(), of.to_owned(), verbs.to_vec())
    };
    let mut list = Vec::new();
    if kind.status {
        list.push(own("status", &["get", "patch", "update"]));
    }
    if kind.scale.is_some() {
        list.push(other("scale", "autoscaling", "Scale", &["get", "patch", "update"]));
    }
    for sub in kind.subresources {
        list.push(match *sub {
            "binding" => other(sub, "", "Binding", &["create"]),
            "eviction" => other(sub, "policy", "Eviction", &["create"]),
            "exec" => other(sub, "", "PodExecOptions", &["create", "get"]),
            "attach" => other(sub, "", "PodAttachOptions", &["create", "get"]),
            "finalize" => own(sub, &["update"]),
            _ => own(sub, &["get"]),
        });
    }
    list
}

fn aggregated(kinds: &KindSet, groups: Vec<(String, Vec<String>)>) -> Response<Body> {
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions.iter().map(|version| version_entry(kinds, group, version)).collect();
            let mut item = json!({"metadata": {"creationTimestamp": null}, "versions": versions});
            if !group.is_empty() {
                item["metadata"]["name"] = group.as_str().into();
            }
            item
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items});
    response(200, AGGREGATED, list.to_string())
}

fn version_entry(kinds: &KindSet, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in kinds.of_version(group, version) {
        let subs: Vec<Value> = subresources(kind)
            .into_iter()
            .map(|(sub, group, version, of, verbs)| {
                json!({"subresource": sub, "verbs": verbs,
                    "responseKind": {"group": group, "version": version, "kind": of}})
            })
            .collect();
        let mut entry = json!({"resource": kind.plural, "singularResource": kind.singular, "verbs": VERBS,
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind}});
        for (field, list) in [("shortNames", &kind.short_names), ("categories", &kind.categories)] {
            if !list.is_empty() {
                entry[field] = list.clone().into();
            }
        }
        if !subs.is_empty() {
            entry["subresources"] = subs.into();
        }
        resources.push(entry);
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(g, ..)| *g == group) {
        let scope = if *plural == "localsubjectaccessreviews" { "Namespaced" } else { "Cluster" };
        resources.push(json!({"resource": plural, "singularResource": kind.to_lowercase(), "verbs": ["create"],
            "scope": scope, "responseKind": {"group": group, "version": version, "kind": kind}}));
    }
    json!({"version": version, "freshness": "Current", "resources": resources})
}
