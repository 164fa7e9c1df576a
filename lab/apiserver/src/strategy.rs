//! What is particular to a kind: initial status, defaults, immutable fields, rules beyond the schema.

mod crds;
mod pods;
mod services;
mod workloads;

use serde_json::{Value, json};

use crate::error::{ApiError, Cause};
use crate::kinds::Kind;
use crate::object;
use crate::ops::Api;

/// Sets what a new object starts with.
pub(crate) fn prepare_create(api: &Api, kind: &Kind, object: &mut Value) -> Result<(), ApiError> {
    match kind.storage.as_str() {
        "pods" => pods::prepare_create(object),
        "services" => services::prepare_create(api, kind, object)?,
        "namespaces" => {
            object::set(object, &["spec", "finalizers"], vec!["kubernetes"]);
            object["status"] = json!({"phase": "Active"});
        }
        "deployments.apps" | "replicasets.apps" => object["status"] = json!({}),
        "daemonsets.apps" => {
            object["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0});
        }
        "ingresses.networking.k8s.io" => object["status"] = json!({"loadBalancer": {}}),
        "customresourcedefinitions.apiextensions.k8s.io" => {
            // The instances go before their definition; its controller sees to that.
            object::set(object, &["metadata", "finalizers"], vec![crate::crds::CLEANUP]);
            object["status"] =
                json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
        }
        _ => {}
    }
    Ok(())
}

/// Sets what follows from the name, once it is known.
pub(crate) fn prepare_named(kind: &Kind, object: &mut Value) {
    if kind.is("namespaces") {
        let name = object::name(object).to_owned();
        object::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }
}

/// Carries over what an update may leave out.
pub(crate) fn prepare_update(api: &Api, kind: &Kind, old: &Value, next: &mut Value) -> Result<(), ApiError> {
    match kind.storage.as_str() {
        "services" => services::prepare_update(api, kind, old, next)?,
        "namespaces" => prepare_named(kind, next),
        "secrets" => object::set_default(next, &["type"], object::text(old, &["type"]).to_owned()),
        _ => {}
    }
    Ok(())
}

/// Fills in the defaults of a kind.
pub(crate) fn set_defaults(kind: &Kind, object: &mut Value) {
    match kind.storage.as_str() {
        "pods" => {
            object::set_default(object, &["spec"], json!({}));
            pods::set_spec_defaults(&mut object["spec"]);
        }
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" => workloads::set_defaults(kind, object),
        "services" => services::set_defaults(object),
        "secrets" => {
            move_string_data(object);
            object::set_default(object, &["type"], "Opaque");
        }
        "networkpolicies.networking.k8s.io" => {
            object::set_default(object, &["spec", "podSelector"], json!({}));
            let mut types = vec!["Ingress"];
            if object::at(object, &["spec", "egress"]).is_some() {
                types.push("Egress");
            }
            object::set_default(object, &["spec", "policyTypes"], types);
            set_rule_protocols(object);
        }
        "events" => {
            object::set_default(object, &["type"], "Normal");
            for field in ["firstTimestamp", "lastTimestamp"] {
                if object::at(object, &["eventTime"]).is_none() {
                    object::set_default(object, &[field], object::now());
                }
            }
        }
        "nodes" => object::set_default(object, &["spec"], json!({})),
        "customresourcedefinitions.apiextensions.k8s.io" => crds::set_defaults(object),
        _ => {}
    }
}

/// The rules that an object breaks.
pub(crate) fn validate(kind: &Kind, old: Option<&Value>, object: &Value) -> Vec<Cause> {
    let mut causes = match kind.storage.as_str() {
        "pods" => pods::validate(old, object),
        "deployments.apps" | "replicasets.apps" | "daemonsets.apps" => workloads::validate(old, object),
        "services" => services::validate(object),
        "customresourcedefinitions.apiextensions.k8s.io" => crds::validate(old, object),
        "configmaps" | "secrets" => validate_immutable(old, object),
        "nodes" => validate_node(old, object),
        "namespaces" | "events" => Vec::new(),
        _ => Vec::new(),
    };
    for (i, owner) in object::list(object, &["metadata", "ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &[field]).is_empty() {
                causes.push(Cause::required(format!("metadata.ownerReferences[{i}].{field}"), "must not be empty"));
            }
        }
    }
    let managing =
        object::list(object, &["metadata", "ownerReferences"]).iter().filter(|o| object::flag(o, &["controller"]));
    if managing.count() > 1 {
        let value = object["metadata"]["ownerReferences"].clone();
        causes.push(Cause::invalid(
            "metadata.ownerReferences",
            &value,
            "Only one reference can have Controller set to true",
        ));
    }
    causes
}

/// `stringData` of a secret is a way in only.
fn move_string_data(secret: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = object::unset(secret, &["stringData"]) else { return };
    for (key, value) in plain {
        let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
        object::set(secret, &["data", &key], encoded);
    }
}

fn set_rule_protocols(policy: &mut Value) {
    for direction in ["ingress", "egress"] {
        let Some(rules) = policy["spec"].get_mut(direction).and_then(Value::as_array_mut) else { continue };
        for port in rules.iter_mut().filter_map(|r| r.get_mut("ports")).filter_map(Value::as_array_mut).flatten() {
            object::set_default(port, &["protocol"], "TCP");
        }
    }
}

fn validate_immutable(old: Option<&Value>, object: &Value) -> Vec<Cause> {
    let Some(old) = old.filter(|old| object::flag(old, &["immutable"])) else { return Vec::new() };
    ["data", "binaryData", "immutable"]
        .into_iter()
        .filter(|field| old.get(field) != object.get(field))
        .map(|field| Cause::forbidden(field, "field is immutable when `immutable` is set"))
        .collect()
}

fn validate_node(old: Option<&Value>, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old {
        // A node's range is given once; pods hold addresses of it.
        for field in ["podCIDR", "podCIDRs"] {
            let (was, is) = (object::at(old, &["spec", field]), object::at(object, &["spec", field]));
            if was.is_some() && was != is {
                causes.push(Cause::forbidden(
                    format!("spec.{field}"),
                    "node updates may not change podCIDR except from \"\" to valid",
                ));
            }
        }
    }
    for (i, cidr) in object::list(object, &["spec", "podCIDRs"]).iter().enumerate() {
        if cidr.as_str().is_none_or(|c| c.parse::<ipnet::IpNet>().is_err()) {
            causes.push(Cause::invalid(format!("spec.podCIDRs[{i}]"), cidr, "must be a valid CIDR value"));
        }
    }
    for (i, taint) in object::list(object, &["spec", "taints"]).iter().enumerate() {
        let effect = object::text(taint, &["effect"]);
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let allowed = ["NoExecute", "NoSchedule", "PreferNoSchedule"].map(str::to_owned);
            causes.push(Cause::not_supported(format!("spec.taints[{i}].effect"), &effect.into(), &allowed));
        }
    }
    causes
}
