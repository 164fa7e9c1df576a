//! The agents: which Pod is a node's, how it is, and how it is started again.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, Preconditions},
};

use crate::cluster::{AGENT_SELECTOR, not_ready};

/// How long a kubelet may take to show a log.
const ANSWER: Duration = Duration::from_secs(3);
/// Lines of a log that are looked at.
const LOG_LINES: i64 = 40;
/// Lines of it that are told.
const TOLD: usize = 3;

/// An agent's Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Agent {
    pub(super) pod: String,
    pub(super) uid: String,
    /// Why it is not ready.
    pub(super) trouble: Option<String>,
}

/// The agents by node; of two Pods on one node the one that stays.
pub(super) fn by_node(pods: &[Pod]) -> BTreeMap<String, Agent> {
    let mut agents: BTreeMap<String, Agent> = BTreeMap::new();
    // Those that are being deleted first, so that the others come over them.
    let (ending, staying): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
    for (pod, is_ending) in ending.into_iter().map(|pod| (pod, true)).chain(staying.into_iter().map(|pod| (pod, false)))
    {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
        let trouble = if is_ending { Some(format!("{} is ending", pod.name_any())) } else { not_ready(pod) };
        agents.insert(node, Agent { pod: pod.name_any(), uid: pod.uid().unwrap_or_default(), trouble });
    }
    agents
}

/// Where agents are asked for and started again.
#[derive(Clone)]
pub(super) struct Agents {
    pods: Api<Pod>,
}

impl Agents {
    pub(super) fn new(client: Client, namespace: &str) -> Self {
        Self { pods: Api::namespaced(client, namespace) }
    }

    /// The agent of one node, if it has one now.
    pub(super) async fn on(&self, node: &str) -> Result<Option<Agent>, kube::Error> {
        let params = ListParams::default().labels(AGENT_SELECTOR).fields(&format!("spec.nodeName={node}"));
        let found = self.pods.list(&params).await?;
        Ok(by_node(&found.items).remove(node))
    }

    /// Deletes this very Pod; its DaemonSet makes another in its place. That it is gone already is as good.
    pub(super) async fn restart(&self, agent: &Agent) -> Result<(), kube::Error> {
        let this_one = Preconditions { uid: Some(agent.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
        match self.pods.delete(&agent.pod, &params).await {
            Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => Ok(()),
            other => other.map(drop),
        }
    }

    /// The last warnings and errors of its log, as far as it can be read.
    pub(super) async fn complaints(&self, agent: &Agent) -> String {
        let params = LogParams { tail_lines: Some(LOG_LINES), ..LogParams::default() };
        // A kubelet that does not answer must not hide what is known without it.
        let Ok(Ok(log)) = tokio::time::timeout(ANSWER, self.pods.logs(&agent.pod, &params)).await else {
            return String::new();
        };
        let bad: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")).collect();
        let told: Vec<String> = bad.iter().rev().take(TOLD).rev().map(|line| format!("\n  {}", line.trim())).collect();
        if told.is_empty() { String::new() } else { format!("; its log says:{}", told.concat()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_two_pods_on_a_node_the_one_that_stays_counts() {
        let pod = |name: &str, ready: &str, deleted: Option<&str>| {
            serde_json::from_value::<Pod>(json!({
                "metadata": {"name": name, "uid": name, "deletionTimestamp": deleted},
                "spec": {"nodeName": "w1", "containers": []},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .expect("a pod")
        };
        let old = pod("old", "True", Some("2026-01-01T00:00:00Z"));
        let agents = by_node(&[pod("new", "True", None), old.clone()]);
        assert_eq!(agents["w1"], Agent { pod: "new".to_owned(), uid: "new".to_owned(), trouble: None });
        let agents = by_node(&[old]);
        assert!(agents["w1"].trouble.as_ref().is_some_and(|trouble| trouble.contains("ending")));
        assert!(by_node(&[pod("new", "False", None)])["w1"].trouble.is_some());
    }
}
