//! What pods have beyond other objects: binding and eviction.

use serde_json::Value;

use super::{Api, DeleteOptions, Write};
use crate::error::ApiError;
use crate::object;
use crate::selectors::LabelSelector;

impl Api {
    /// Gives a pod to a node, once.
    pub(crate) fn bind(&self, namespace: &str, name: &str, node: &str, write: &mut Write) -> Result<(), ApiError> {
        let pods = self.builtin("", "pods");
        if node.is_empty() {
            return Err(ApiError::bad_request("a binding needs target.name, the name of the node"));
        }
        loop {
            let old = self.get(&pods, namespace, name)?;
            let has = object::text(&old, &["spec", "nodeName"]);
            if object::is_deleting(&old) {
                return Err(ApiError::conflict(
                    &pods,
                    name,
                    &format!("pod {name} is being deleted, cannot be assigned to a host"),
                ));
            }
            if !has.is_empty() {
                return Err(ApiError::conflict(
                    &pods,
                    name,
                    &format!("pod {name} is already assigned to node {has:?}"),
                ));
            }
            let mut next = old.as_ref().clone();
            object::set(&mut next, &["spec", "nodeName"], node);
            // Binding is the one way in which a pod's node changes, so it goes past the rule for updates.
            match self.store_bound(&pods, &old, next, write) {
                Err(error) if error.reason == "Conflict" => {}
                answer => return answer.map(|_| ()),
            }
        }
    }

    /// Deletes a pod unless a disruption budget forbids it.
    pub(crate) fn evict(&self, namespace: &str, name: &str, options: &DeleteOptions) -> Result<(), ApiError> {
        let pods = self.builtin("", "pods");
        let pod = self.get(&pods, namespace, name)?;
        let budgets = self.store.list("poddisruptionbudgets.policy", Some(namespace)).0;
        for budget in budgets.iter().filter(|b| LabelSelector::from_object(&b["spec"]["selector"]).matches(&pod)) {
            if disruptions_allowed(self, budget) < 1 && object::is_true(&pod, "Ready") {
                return Err(ApiError::too_many_requests(format!(
                    "Cannot evict pod as it would violate the pod's disruption budget {:?}.",
                    object::name(budget)
                )));
            }
        }
        self.delete(&pods, namespace, name, options).map(|_| ())
    }

    fn store_bound(
        &self,
        pods: &crate::kinds::Kind,
        old: &std::sync::Arc<Value>,
        mut next: Value,
        write: &mut Write,
    ) -> Result<(), ApiError> {
        crate::patch::managed::record(pods, Some(old), &mut next, &write.manager, "");
        object::set_condition(&mut next, "PodScheduled", "True", "", "");
        self.put(pods, old, object::namespace(old), object::name(old), next, write).map(|_| ())
    }
}

/// How many of a budget's pods may go now. Worked out at each eviction, so no controller is needed.
fn disruptions_allowed(api: &Api, budget: &Value) -> i64 {
    let selector = LabelSelector::from_object(&budget["spec"]["selector"]);
    let pods = api.store.list("pods", Some(object::namespace(budget))).0;
    let selected: Vec<_> = pods.iter().filter(|p| selector.matches(p)).collect();
    let all = i64::try_from(selected.len()).unwrap_or(i64::MAX);
    let healthy = i64::try_from(selected.iter().filter(|p| object::is_true(p, "Ready")).count()).unwrap_or_default();
    let least = match (budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")) {
        (Some(min), _) => share(min, all),
        (None, Some(max)) => all - share(max, all),
        (None, None) => all - 1,
    };
    healthy - least
}

/// A number, or a percentage of a whole, rounded up.
pub(crate) fn share(value: &Value, whole: i64) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            (whole * percent + 99).div_euclid(100)
        }
        other => other.as_i64().unwrap_or_default(),
    }
}
