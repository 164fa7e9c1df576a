//! Deployments, replica sets and daemon sets.
//!
//! Source: `pkg/apis/apps/v1/defaults.go` and `pkg/apis/apps/validation` of Kubernetes 1.32.

use serde_json::{Value, json};

use super::pods;
use crate::error::Cause;
use crate::kinds::Kind;
use crate::object;
use crate::selectors::LabelSelector;

pub(super) fn set_defaults(kind: &Kind, workload: &mut Value) {
    object::set_default(workload, &["spec"], json!({}));
    object::set_default(workload, &["spec", "template", "spec"], json!({}));
    pods::set_spec_defaults(&mut workload["spec"]["template"]["spec"]);
    match kind.kind.as_str() {
        "Deployment" => {
            object::set_default(workload, &["spec", "replicas"], 1);
            object::set_default(workload, &["spec", "revisionHistoryLimit"], 10);
            object::set_default(workload, &["spec", "progressDeadlineSeconds"], 600);
            object::set_default(workload, &["spec", "strategy", "type"], "RollingUpdate");
            if object::text(workload, &["spec", "strategy", "type"]) == "RollingUpdate" {
                for field in ["maxSurge", "maxUnavailable"] {
                    object::set_default(workload, &["spec", "strategy", "rollingUpdate", field], "25%");
                }
            }
        }
        "DaemonSet" => {
            object::set_default(workload, &["spec", "revisionHistoryLimit"], 10);
            object::set_default(workload, &["spec", "updateStrategy", "type"], "RollingUpdate");
            if object::text(workload, &["spec", "updateStrategy", "type"]) == "RollingUpdate" {
                object::set_default(workload, &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
                object::set_default(workload, &["spec", "updateStrategy", "rollingUpdate", "maxSurge"], 0);
            }
        }
        _ => object::set_default(workload, &["spec", "replicas"], 1),
    }
}

pub(super) fn validate(old: Option<&Value>, workload: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let selector = &workload["spec"]["selector"];
    let parsed = LabelSelector::from_object(selector);
    if parsed.is_empty() {
        causes.push(Cause::required("spec.selector", "empty selector is invalid for a workload"));
    } else if !parsed.matches(&workload["spec"]["template"]) {
        let labels = workload["spec"]["template"]["metadata"]["labels"].clone();
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &labels,
            "`selector` does not match template `labels`",
        ));
    }
    if let Some(old) = old
        && old["spec"]["selector"] != *selector
    {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    if let Some(replicas) = workload["spec"].get("replicas")
        && replicas.as_i64().is_none_or(|n| n < 0)
    {
        causes.push(Cause::invalid("spec.replicas", replicas, "must be greater than or equal to 0"));
    }
    let strategy = object::text(workload, &["spec", "strategy", "type"]);
    if !matches!(strategy, "" | "Recreate" | "RollingUpdate") {
        let allowed = ["Recreate", "RollingUpdate"].map(str::to_owned);
        causes.push(Cause::not_supported("spec.strategy.type", &strategy.into(), &allowed));
    }
    if strategy == "Recreate" && object::at(workload, &["spec", "strategy", "rollingUpdate"]).is_some() {
        causes.push(Cause::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        ));
    }
    if strategy == "RollingUpdate" {
        let rolling = &workload["spec"]["strategy"]["rollingUpdate"];
        let is_zero = |v: &Value| *v == json!(0) || *v == json!("0%");
        if is_zero(&rolling["maxSurge"]) && is_zero(&rolling["maxUnavailable"]) {
            causes.push(Cause::invalid(
                "spec.strategy.rollingUpdate.maxUnavailable",
                &rolling["maxUnavailable"],
                "may not be 0 when `maxSurge` is 0",
            ));
        }
    }
    let template = &workload["spec"]["template"]["spec"];
    causes.extend(pods::validate_spec(template, "spec.template.spec"));
    let policy = object::text(template, &["restartPolicy"]);
    if matches!(policy, "OnFailure" | "Never") {
        causes.push(Cause::not_supported("spec.template.spec.restartPolicy", &policy.into(), &["Always".to_owned()]));
    }
    causes
}
