//! Pods and the pod templates of workloads.
//!
//! Source: `pkg/apis/core/v1/defaults.go` and `pkg/apis/core/validation` of Kubernetes 1.32.

use serde_json::{Value, json};

use crate::error::Cause;
use crate::{names, object};

pub(super) fn prepare_create(pod: &mut Value) {
    let class = qos_class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
    // What the admission plugins DefaultTolerationSeconds and ServiceAccount add.
    let mut tolerations = object::list(pod, &["spec", "tolerations"]).to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is_tolerated = tolerations.iter().any(|t| {
            let (of, effect) = (object::text(t, &["key"]), object::text(t, &["effect"]));
            (of == key || of.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        });
        if !is_tolerated {
            tolerations
                .push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        }
    }
    object::set(pod, &["spec", "tolerations"], tolerations);
    object::set_default(pod, &["spec", "serviceAccountName"], "default");
    let account = object::text(pod, &["spec", "serviceAccountName"]).to_owned();
    object::set_default(pod, &["spec", "serviceAccount"], account);
    object::set_default(pod, &["spec", "enableServiceLinks"], true);
    object::set_default(pod, &["spec", "preemptionPolicy"], "PreemptLowerPriority");
    object::set_default(pod, &["spec", "priority"], 0);
}

/// Defaults of a pod's specification, in a Pod or in a template.
pub(super) fn set_spec_defaults(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        object::set_default(spec, &[field], value);
    }
    let is_host_network = object::flag(spec, &["hostNetwork"]);
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            set_container_defaults(container, is_host_network);
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        for source in ["configMap", "secret", "projected", "downwardAPI"] {
            if volume.get(source).is_some_and(Value::is_object) {
                object::set_default(volume, &[source, "defaultMode"], 0o644);
            }
        }
        if volume.get("hostPath").is_some_and(Value::is_object) {
            object::set_default(volume, &["hostPath", "type"], "");
        }
    }
}

fn set_container_defaults(container: &mut Value, is_host_network: bool) {
    let image = object::text(container, &["image"]);
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag);
    let policy = if image.contains('@') || tag.is_some_and(|t| t != "latest") { "IfNotPresent" } else { "Always" };
    for (field, value) in [
        ("imagePullPolicy", json!(policy)),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("resources", json!({})),
    ] {
        object::set_default(container, &[field], value);
    }
    // Requests follow limits that are named alone.
    if let Some(Value::Object(limits)) = object::at(container, &["resources", "limits"]).cloned() {
        for (resource, amount) in limits {
            object::set_default(container, &["resources", "requests", &resource], amount);
        }
    }
    for port in container.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        object::set_default(port, &["protocol"], "TCP");
        if is_host_network && let Some(number) = object::int(port, &["containerPort"]) {
            object::set_default(port, &["hostPort"], number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) else { continue };
        for (field, value) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            object::set_default(probe, &[field], value);
        }
        if probe.get("httpGet").is_some_and(Value::is_object) {
            object::set_default(probe, &["httpGet", "path"], "/");
            object::set_default(probe, &["httpGet", "scheme"], "HTTP");
        }
    }
}

fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in object::list(spec, &["containers"]) {
        for resource in ["cpu", "memory"] {
            let limit = object::at(container, &["resources", "limits", resource]);
            let request = object::at(container, &["resources", "requests", resource]).or(limit);
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && limit == request;
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

pub(super) fn validate(old: Option<&Value>, pod: &Value) -> Vec<Cause> {
    let mut causes = validate_spec(&pod["spec"], "spec");
    let Some(old) = old else { return causes };
    if comparable(old) != comparable(pod) {
        causes.push(Cause::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`",
        ));
    }
    causes
}

/// A pod's specification without what may change.
fn comparable(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for field in [
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ] {
        object::unset(&mut spec, &[field]);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            object::unset(container, &["image"]);
        }
    }
    spec
}

/// Rules for a pod's specification, in a Pod or in a template.
pub(super) fn validate_spec(spec: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if object::list(spec, &["containers"]).is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = Vec::new();
    for list in ["containers", "initContainers"] {
        for (i, container) in object::list(spec, &[list]).iter().enumerate() {
            let here = format!("{path}.{list}[{i}]");
            let name = object::text(container, &["name"]);
            if name.is_empty() {
                causes.push(Cause::required(format!("{here}.name"), ""));
            } else if !names::is_label(name) {
                causes.push(Cause::invalid(
                    format!("{here}.name"),
                    &name.into(),
                    "a lowercase RFC 1123 label is needed",
                ));
            } else if seen.contains(&name) {
                causes.push(Cause {
                    field: format!("{here}.name"),
                    reason: "FieldValueDuplicate",
                    message: format!("Duplicate value: {name:?}"),
                });
            }
            seen.push(name);
            if object::text(container, &["image"]).is_empty() {
                causes.push(Cause::required(format!("{here}.image"), ""));
            }
            causes.extend(port_causes(container, &here));
        }
    }
    let policy = object::text(spec, &["restartPolicy"]);
    if !matches!(policy, "Always" | "OnFailure" | "Never") {
        let allowed = ["Always", "OnFailure", "Never"].map(str::to_owned);
        causes.push(Cause::not_supported(format!("{path}.restartPolicy"), &policy.into(), &allowed));
    }
    let volumes = object::list(spec, &["volumes"]);
    for list in ["containers", "initContainers"] {
        for (i, container) in object::list(spec, &[list]).iter().enumerate() {
            for (j, mount) in object::list(container, &["volumeMounts"]).iter().enumerate() {
                if volumes.iter().all(|v| v.get("name") != mount.get("name")) {
                    causes.push(Cause {
                        field: format!("{path}.{list}[{i}].volumeMounts[{j}].name"),
                        reason: "FieldValueNotFound",
                        message: format!("Not found: {}", mount["name"]),
                    });
                }
            }
        }
    }
    causes
}

fn port_causes(container: &Value, here: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (i, port) in object::list(container, &["ports"]).iter().enumerate() {
        let number = object::int(port, &["containerPort"]).unwrap_or_default();
        if !(1..=65535).contains(&number) {
            let field = format!("{here}.ports[{i}].containerPort");
            causes.push(Cause::invalid(field, &number.into(), "must be between 1 and 65535, inclusive"));
        }
    }
    causes
}
