//! Questions to the Kubernetes API, for machines without an agent.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::Context;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Serialize;

use crate::table::STATUS;

/// Names of Cilium's objects, which are ours too.
pub(crate) const AGENT: &str = "cilium";
pub(crate) const OPERATOR: &str = "cilium-operator";
pub(crate) const CONFIG_MAP: &str = "cilium-config";
pub(crate) const AGENT_SELECTOR: &str = "k8s-app=cilium";

/// How long an API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client by this kubeconfig, else by KUBECONFIG, else by `~/.kube/config`.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    const REMEDY: &str = "give --kubeconfig or set KUBECONFIG, or run this where an agent listens";
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => Kubeconfig::read().with_context(|| format!("there is no kubeconfig; {REMEDY}"))?,
    };
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(read, &options).await.context("the kubeconfig is not usable")?;
    config.connect_timeout = Some(TIMEOUT);
    config.read_timeout = Some(TIMEOUT);
    Client::try_from(config).context("the kubeconfig is not usable")
}

/// Data of the ConfigMap cilium-config.
pub(crate) async fn config_map(client: Client, namespace: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let api: Api<ConfigMap> = Api::namespaced(client, namespace);
    let found = api.get(CONFIG_MAP).await.with_context(|| format!("cannot get ConfigMap {namespace}/{CONFIG_MAP}"))?;
    Ok(found.data.unwrap_or_default())
}

/// Counts of one workload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Workload {
    /// Pods that there should be.
    pub(crate) desired: i32,
    /// Pods that are ready.
    pub(crate) ready: i32,
    /// Pods that are available.
    pub(crate) available: i32,
}

/// State of the whole cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ClusterStatus {
    /// DaemonSet `cilium`; absent if it is not installed.
    pub(crate) agent: Option<Workload>,
    /// Deployment `cilium-operator`; absent if it is not installed.
    pub(crate) operator: Option<Workload>,
    /// Agents that are not ready: pod on node, and why.
    pub(crate) agents_not_ready: Vec<String>,
    /// Running pods that have a pod address.
    pub(crate) pods_with_address: usize,
    /// Pods that want one: not on the host network and not finished.
    pub(crate) pods: usize,
}

impl ClusterStatus {
    /// Whether everything that should run is ready.
    pub(crate) fn is_healthy(&self) -> bool {
        let well = |found: &Option<Workload>| found.as_ref().is_some_and(|found| found.ready >= found.desired);
        well(&self.agent) && well(&self.operator) && self.agents_not_ready.is_empty()
    }
}

/// Asks for workloads and pods.
pub(crate) async fn status(client: Client, namespace: &str) -> anyhow::Result<ClusterStatus> {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let agents: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::all(client);
    let of_agents = ListParams::default().labels(AGENT_SELECTOR);
    let everything = ListParams::default();
    let (set, deployment, agents, pods) = tokio::try_join!(
        sets.get_opt(AGENT),
        deployments.get_opt(OPERATOR),
        agents.list(&of_agents),
        pods.list(&everything)
    )
    .context("the cluster does not answer")?;
    let (pods_with_address, pods) = count(&pods.items);
    Ok(ClusterStatus {
        agent: set.map(|set| {
            let status = set.status.unwrap_or_default();
            Workload {
                desired: status.desired_number_scheduled,
                ready: status.number_ready,
                available: status.number_available.unwrap_or_default(),
            }
        }),
        operator: deployment.map(|deployment| {
            let status = deployment.status.unwrap_or_default();
            Workload {
                desired: deployment.spec.replicas.unwrap_or(1),
                ready: status.ready_replicas.unwrap_or_default(),
                available: status.available_replicas.unwrap_or_default(),
            }
        }),
        agents_not_ready: agents.items.iter().filter_map(not_ready).collect(),
        pods_with_address,
        pods,
    })
}

/// Pods with an address, and pods that want one.
fn count(pods: &[Pod]) -> (usize, usize) {
    let wanting: Vec<_> = pods
        .iter()
        .filter(|pod| !pod.spec.as_ref().is_some_and(|spec| spec.host_network.unwrap_or_default()))
        .filter_map(|pod| pod.status.as_ref())
        .filter(|status| !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")))
        .collect();
    let have = wanting.iter().filter(|status| status.pod_ip.as_ref().is_some_and(|ip| !ip.is_empty())).count();
    (have, wanting.len())
}

pub(crate) fn not_ready(pod: &Pod) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return None;
    }
    let waiting = status
        .container_statuses
        .unwrap_or_default()
        .into_iter()
        .find_map(|container| container.state?.waiting?.reason)
        .or(status.phase)
        .unwrap_or_else(|| "unknown".to_owned());
    let name = pod.metadata.name.clone().unwrap_or_default();
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_else(|| "no node".to_owned());
    Some(format!("{name} on {node}: {waiting}"))
}

/// The lines for people.
pub(crate) fn render(status: &ClusterStatus) -> String {
    let mut text = String::new();
    let mut workload = |kind: &str, name: &str, found: &Option<Workload>| {
        let cells = match found {
            Some(Workload { desired, ready, available }) => {
                format!("Desired: {desired}, Ready: {ready}/{desired}, Available: {available}/{desired}")
            }
            None => "not installed".to_owned(),
        };
        let _ = writeln!(text, "{kind}\t{name}\t{cells}");
    };
    workload("DaemonSet", AGENT, &status.agent);
    workload("Deployment", OPERATOR, &status.operator);
    let _ = writeln!(text, "Cluster Pods:\t\t{}/{} have an address", status.pods_with_address, status.pods);
    for agent in &status.agents_not_ready {
        let _ = writeln!(text, "Not ready:\t\t{agent}");
    }
    STATUS.align(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> ClusterStatus {
        ClusterStatus {
            agent: Some(Workload { desired: 3, ready: 3, available: 3 }),
            operator: Some(Workload { desired: 1, ready: 1, available: 1 }),
            agents_not_ready: Vec::new(),
            pods_with_address: 6,
            pods: 7,
        }
    }

    #[test]
    fn cluster_is_well_when_everything_is_ready() {
        assert!(healthy().is_healthy());
        assert!(!ClusterStatus { operator: None, ..healthy() }.is_healthy());
        let starting = Workload { desired: 3, ready: 2, available: 2 };
        assert!(!ClusterStatus { agent: Some(starting), ..healthy() }.is_healthy());
    }

    #[test]
    fn lines_say_what_is_missing() {
        let status = ClusterStatus {
            operator: None,
            agents_not_ready: vec!["cilium-x on cilium-w1: CrashLoopBackOff".to_owned()],
            ..healthy()
        };
        let expected = "\
DaemonSet       cilium            Desired: 3, Ready: 3/3, Available: 3/3
Deployment      cilium-operator   not installed
Cluster Pods:                     6/7 have an address
Not ready:                        cilium-x on cilium-w1: CrashLoopBackOff
";
        assert_eq!(render(&status), expected);
    }

    #[test]
    fn pods_on_the_host_network_want_no_address() {
        let pod = |json: serde_json::Value| serde_json::from_value::<Pod>(json).expect("a pod");
        let pods = [
            pod(serde_json::json!({"spec": {"containers": []}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})),
            pod(serde_json::json!({"spec": {"containers": []}, "status": {"phase": "Pending"}})),
            pod(serde_json::json!({"spec": {"containers": []}, "status": {"phase": "Succeeded"}})),
            pod(serde_json::json!({"spec": {"containers": [], "hostNetwork": true}, "status": {"phase": "Running"}})),
        ];
        assert_eq!(count(&pods), (1, 2));
        assert_eq!(not_ready(&pods[1]).as_deref(), Some(" on no node: Pending"));
    }
}
