//! Which nodes a pod may run on: labels, affinity, taints, readiness.

use std::sync::Arc;

use serde_json::Value;

use crate::object;
use crate::selectors::LabelSelector;

/// Why a node does not take a pod, in the scheduler's words; `None` when it does.
pub(super) fn refusal(pod: &Value, node: &Value) -> Option<String> {
    if !selects(pod, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if object::flag(node, &["spec", "unschedulable"])
        && !tolerates(pod, "node.kubernetes.io/unschedulable", "", "NoSchedule")
    {
        return Some("node(s) were unschedulable".to_owned());
    }
    if let Some(taint) = object::list(node, &["spec", "taints"]).iter().find(|t| {
        let effect = object::text(t, &["effect"]);
        effect != "PreferNoSchedule" && !tolerates(pod, object::text(t, &["key"]), object::text(t, &["value"]), effect)
    }) {
        let (key, value) = (object::text(taint, &["key"]), object::text(taint, &["value"]));
        return Some(format!("node(s) had untolerated taint {{{key}: {value}}}"));
    }
    // Kubernetes' node controller turns these conditions into taints; here they are read directly.
    if !object::is_true(node, "Ready")
        && !is_bootstrap(pod)
        && !tolerates(pod, "node.kubernetes.io/not-ready", "", "NoSchedule")
    {
        return Some("node(s) had untolerated taint {node.kubernetes.io/not-ready: }".to_owned());
    }
    None
}

/// What makes a node ready runs before it is: pods of daemon sets in the node's own network.
fn is_bootstrap(pod: &Value) -> bool {
    object::flag(pod, &["spec", "hostNetwork"])
        && object::controller_of(pod).is_some_and(|owner| object::text(owner, &["kind"]) == "DaemonSet")
}

/// Whether the pod tolerates a taint.
pub(super) fn tolerates(pod: &Value, key: &str, value: &str, effect: &str) -> bool {
    object::list(pod, &["spec", "tolerations"]).iter().any(|t| {
        let (of, to) = (object::text(t, &["key"]), object::text(t, &["effect"]));
        let exists = object::text(t, &["operator"]) == "Exists";
        (to.is_empty() || to == effect)
            && (of == key || of.is_empty() && exists)
            && (exists || object::text(t, &["value"]) == value)
    })
}

/// Node selector and required node affinity.
pub(super) fn selects(pod: &Value, node: &Value) -> bool {
    if let Some(labels) = object::map(pod, &["spec", "nodeSelector"])
        && !LabelSelector::from_map(labels).matches(node)
    {
        return false;
    }
    let required = object::at(
        pod,
        &["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"],
    );
    let Some(terms) = required.and_then(Value::as_array) else { return true };
    terms.iter().any(|term| {
        let expressions = object::list(term, &["matchExpressions"]);
        let fields = object::list(term, &["matchFields"]);
        let name = serde_json::Map::from_iter([("metadata.name".to_owned(), Value::from(object::name(node)))]);
        // A term without any requirement matches nothing.
        !(expressions.is_empty() && fields.is_empty())
            && LabelSelector::from_expressions(expressions).matches(node)
            && LabelSelector::from_expressions(fields).matches_labels(Some(&name))
    })
}

/// Required affinity and anti-affinity to other pods, of the pod itself and of those that run.
pub(super) fn pods_refuse(
    pod: &Value,
    node: &Value,
    nodes: &[Arc<Value>],
    pods: &[Arc<Value>],
) -> Option<&'static str> {
    let domain = |node: &Value, key: &str| object::at(node, &["metadata", "labels", key]).cloned();
    let by_name = |name: &str| nodes.iter().find(|n| object::name(n) == name);
    let same_domain = |other: &Value, key: &str| {
        by_name(object::text(other, &["spec", "nodeName"]))
            .is_some_and(|of| domain(of, key).is_some() && domain(of, key) == domain(node, key))
    };
    let terms = |of: &Value, kind: &str| -> Vec<Value> {
        object::list(of, &["spec", "affinity", kind, "requiredDuringSchedulingIgnoredDuringExecution"]).to_vec()
    };
    let matches = |term: &Value, owner: &Value, other: &Value| {
        let spaces = object::list(term, &["namespaces"]);
        let in_space = if spaces.is_empty() {
            object::namespace(owner) == object::namespace(other)
        } else {
            spaces.iter().any(|s| s == object::namespace(other))
        };
        in_space && LabelSelector::from_object(&term["labelSelector"]).matches(other)
    };
    let running =
        || pods.iter().filter(|p| !object::text(p, &["spec", "nodeName"]).is_empty() && super::pods::is_active(p));
    for term in terms(pod, "podAntiAffinity") {
        let key = object::text(&term, &["topologyKey"]);
        if running().any(|other| matches(&term, pod, other) && same_domain(other, key)) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
    }
    for other in running() {
        for term in terms(other, "podAntiAffinity") {
            if matches(&term, other, pod) && same_domain(other, object::text(&term, &["topologyKey"])) {
                return Some("node(s) didn't satisfy existing pods anti-affinity rules");
            }
        }
    }
    for term in terms(pod, "podAffinity") {
        let key = object::text(&term, &["topologyKey"]);
        let is_first = matches(&term, pod, pod) && !running().any(|other| matches(&term, pod, other));
        if !is_first && !running().any(|other| matches(&term, pod, other) && same_domain(other, key)) {
            return Some("node(s) didn't match pod affinity rules");
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(spec: Value) -> Value {
        json!({"metadata": {"name": "n", "labels": {"zone": "a"}}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn a_node_takes_what_selects_and_tolerates_it() {
        let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
        for (description, pod, node, takes) in [
            ("plain", json!({}), node(json!({})), true),
            ("selector", json!({"spec": {"nodeSelector": {"zone": "a"}}}), node(json!({})), true),
            ("other selector", json!({"spec": {"nodeSelector": {"zone": "b"}}}), node(json!({})), false),
            ("taint", json!({}), node(taint("NoSchedule")), false),
            ("soft taint", json!({}), node(taint("PreferNoSchedule")), true),
            (
                "tolerated",
                json!({"spec": {"tolerations": [{"key": "k", "value": "v"}]}}),
                node(taint("NoExecute")),
                true,
            ),
            (
                "other value",
                json!({"spec": {"tolerations": [{"key": "k", "value": "w"}]}}),
                node(taint("NoSchedule")),
                false,
            ),
            (
                "tolerates all",
                json!({"spec": {"tolerations": [{"operator": "Exists"}]}}),
                node(taint("NoSchedule")),
                true,
            ),
            ("cordoned", json!({}), node(json!({"unschedulable": true})), false),
            (
                "by name",
                json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}]}}}}}),
                node(json!({})),
                false,
            ),
        ] {
            assert_eq!(refusal(&pod, &node).is_none(), takes, "{description}");
        }
    }

    #[test]
    fn only_daemons_of_the_node_network_start_before_the_node_is_ready() {
        let unready = json!({"metadata": {"name": "n"}});
        let daemon = json!({"metadata": {"ownerReferences": [{"kind": "DaemonSet", "controller": true}]}, "spec": {"hostNetwork": true}});
        assert!(refusal(&daemon, &unready).is_none());
        assert!(refusal(&json!({"spec": {"hostNetwork": true}}), &unready).is_some());
    }
}
