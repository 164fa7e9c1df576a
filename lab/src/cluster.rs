//! The lab seen through its API: applying objects, and waiting for what becomes of them.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{Node, Pod},
};
use kinesin_agent_api::types::StatusResponse;
use kinesin_core::causes::with_causes;
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, ApiCapabilities, ApiResource, Scope},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Lab, LabError, Progress};

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the parts of a cluster may take.
const PATIENCE: Duration = Duration::from_secs(60);
const MANAGER: &str = "kinesin-lab";

pub(crate) fn client(port: u16) -> Result<Client, LabError> {
    let uri = format!("http://127.0.0.1:{port}").parse();
    let uri = uri.map_err(|error| LabError::io("form the API server's address")(std::io::Error::other(error)))?;
    Client::try_from(Config::new(uri)).map_err(LabError::api("make a client"))
}

/// Takes a file of one or more YAML documents apart; JSON is YAML too, and a List stands for its items.
///
/// # Errors
/// [`LabError::Manifest`] for what is no Kubernetes object.
pub fn parse_manifest(origin: &str, text: &str) -> Result<Vec<Value>, LabError> {
    let refused = |reason: String| LabError::Manifest { origin: origin.to_owned(), reason };
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| refused(format!("it is no YAML: {error}")))?;
        match &value {
            Value::Null => {}
            Value::Object(fields) if is_list(fields) => {
                objects.extend(fields["items"].as_array().into_iter().flatten().cloned());
            }
            _ => objects.push(value),
        }
    }
    for object in &objects {
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            if object.pointer(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(refused(format!("an object has no {}", field[1..].replace('/', "."))));
            }
        }
    }
    Ok(objects)
}

fn is_list(fields: &serde_json::Map<String, Value>) -> bool {
    fields.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"))
        && fields.contains_key("items")
}

/// Applies objects in their order, as `kubectl apply --server-side` does; the answer names them.
///
/// # Errors
/// [`LabError::Api`] with the first object that is refused.
pub async fn apply(client: &Client, origin: &str, objects: Vec<Value>) -> Result<Vec<String>, LabError> {
    let mut kinds: HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)> = HashMap::new();
    let mut applied = Vec::new();
    for value in objects {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let what = format!("{}/{name}", kind.to_lowercase());
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let gvk = GroupVersionKind::gvk(group, version, &kind);
        if !kinds.contains_key(&gvk) {
            let found = discovery::pinned_kind(client, &gvk).await;
            kinds.insert(
                gvk.clone(),
                found.map_err(LabError::api(format!("find out about the kind of {what} of {origin}")))?,
            );
        }
        let Some((resource, capabilities)) = kinds.get(&gvk) else { continue };
        let api: Api<DynamicObject> = match capabilities.scope {
            Scope::Cluster => Api::all_with(client.clone(), resource),
            Scope::Namespaced => {
                let namespace = text("/metadata/namespace");
                let namespace = if namespace.is_empty() { "default" } else { &namespace };
                Api::namespaced_with(client.clone(), namespace, resource)
            }
        };
        let applying = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&value)).await;
        applying.map_err(LabError::api(format!("apply {what} of {origin}")))?;
        applied.push(what);
    }
    Ok(applied)
}

/// Until every node has registered.
pub(crate) async fn wait_for_nodes(client: &Client, names: &[String], progress: &dyn Progress) -> Result<(), LabError> {
    let api: Api<Node> = Api::all(client.clone());
    wait(progress, "not every node registered", "see `kinesin lab logs kubelet`", async || {
        let nodes = api.list(&ListParams::default()).await.map_err(LabError::api("list nodes"))?;
        let there = |name: &&String| nodes.items.iter().any(|node| node.metadata.name.as_ref() == Some(*name));
        let count = names.iter().filter(there).count();
        Ok(Seen { done: count == names.len(), state: format!("{count}/{} nodes", names.len()) })
    })
    .await
}

/// Until an agent is ready on every node, and the operator is, and every node takes pods.
pub(crate) async fn wait_for_system(client: &Client, nodes: usize, progress: &dyn Progress) -> Result<(), LabError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let objects: Api<Node> = Api::all(client.clone());
    let set: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    let kind = GroupVersionKind::gvk("cilium.io", "v2", "CiliumNode");
    let published: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "ciliumnodes"));
    wait(
        progress,
        "not every agent was ready",
        "see `kinesin lab logs agent` and `kinesin lab logs operator`",
        async || {
            let pods = api.list(&ListParams::default()).await.map_err(LabError::api("list the system's pods"))?.items;
            let of = |key: &str, value: &str| {
                pods.iter().filter(|pod| has_label(pod, key, value)).cloned().collect::<Vec<_>>()
            };
            let (agents, operators) = (of("k8s-app", "cilium"), of("io.cilium/app", "operator"));
            let ready = |pods: &[Pod]| {
                pods.iter().filter(|pod| is_ready(pod) && pod.metadata.deletion_timestamp.is_none()).count()
            };
            let (agents_ready, operators_ready) = (ready(&agents), ready(&operators));
            // What an agent has published, the others reach; before that they answer for their own node only.
            let published = published.list(&ListParams::default()).await.map_or(0, |found| found.items.len());
            // Until the controller has seen the current template, all pods may be of an older one.
            let set = set.get_opt("cilium").await.map_err(LabError::api("read the agents' daemon set"))?;
            let current = set.is_some_and(|set| {
                let seen = set.status.as_ref().and_then(|status| status.observed_generation);
                let updated = set.status.as_ref().and_then(|status| status.updated_number_scheduled);
                seen == set.metadata.generation && updated.is_some_and(|updated| usize::try_from(updated) == Ok(nodes))
            });
            // A kubelet says so a moment after its agent; pods that start before would all go to the nodes that were quicker.
            let objects = objects.list(&ListParams::default()).await.map_err(LabError::api("list nodes"))?.items;
            let nodes_ready = objects.iter().filter(|node| is_node_ready(node)).count();
            let old = agents.iter().chain(&operators).filter(|pod| pod.metadata.deletion_timestamp.is_some()).count();
            Ok(Seen {
                done: agents_ready == nodes
                    && operators_ready == 1
                    && published == nodes
                    && nodes_ready == nodes
                    && current
                    && old == 0,
                state: format!(
                    "{agents_ready}/{nodes} agents, {operators_ready}/1 operator, {published}/{nodes} published, \
                     {nodes_ready}/{nodes} nodes ready{}",
                    troubles(agents.iter().chain(&operators))
                ),
            })
        },
    )
    .await
}

/// Until every agent has the ways to all other nodes: being ready is about its own node only. With a router between nodes
/// it is enough that each agent knows of each node whether it can be reached, since direct routes do not lead there.
pub(crate) async fn wait_for_mesh(
    nodes: &[crate::Node],
    is_routed: bool,
    progress: &dyn Progress,
) -> Result<(), LabError> {
    let hint = "`kinesin lab exec NODE -- cilium status --verbose` names the nodes that are not reached";
    wait(progress, "not every node reached every other", hint, async || {
        let (mut reached, mut broken) = (0, 0);
        for node in nodes {
            let agent = kinesin_agent_api::Client::new(node.path("/run/cilium/cilium.sock")?).with_timeout(LOOK * 10);
            // An agent that restarts just now is asked again.
            if let Ok(status) = agent.get::<StatusResponse>("/healthz").await {
                reached += status.routing.peers + if is_routed { status.routing.unreachable.len() } else { 0 };
                broken += status.controllers.iter().filter(|controller| controller.consecutive_errors > 0).count();
            }
        }
        let ways = nodes.len() * (nodes.len() - 1);
        Ok(Seen {
            done: reached == ways && broken == 0,
            state: format!("{reached}/{ways} ways between nodes, {broken} failing controllers"),
        })
    })
    .await
}

/// Until every pod of a namespace is ready, and there is one.
pub(crate) async fn wait_for_pods(client: &Client, namespace: &str, progress: &dyn Progress) -> Result<(), LabError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let hint = "`kinesin lab kubectl describe pods` tells why";
    wait(progress, "not every pod was ready", hint, async || {
        let list = ListParams::default();
        let pods = api.list(&list).await.map_err(LabError::api("list pods"))?.items;
        // Controllers take a moment until they have made all pods.
        let sets = sets.list(&list).await.map_err(LabError::api("list daemon sets"))?.items;
        let deployments = deployments.list(&list).await.map_err(LabError::api("list deployments"))?.items;
        let wanted = sets
            .iter()
            .filter_map(|set| set.status.as_ref())
            .map(|status| status.desired_number_scheduled)
            .sum::<i32>()
            + deployments.iter().filter_map(|d| d.spec.replicas).sum::<i32>();
        let wanted = usize::try_from(wanted).unwrap_or_default();
        let seen = sets.iter().all(|set| set.status.as_ref().is_some_and(|status| status.desired_number_scheduled > 0));
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        Ok(Seen {
            done: seen && ready == pods.len() && ready >= wanted,
            state: format!("{ready}/{wanted} pods{}", troubles(pods.iter())),
        })
    })
    .await
}

struct Seen {
    done: bool,
    state: String,
}

async fn wait(
    progress: &dyn Progress,
    what: &str,
    hint: &str,
    mut look: impl AsyncFnMut() -> Result<Seen, LabError>,
) -> Result<(), LabError> {
    let until = Instant::now() + PATIENCE;
    let mut last = String::new();
    loop {
        let state = match look().await {
            Ok(seen) if seen.done => return Ok(()),
            Ok(seen) => seen.state,
            // The server may only be starting, or be restarting.
            Err(error) if error.retryable() && Instant::now() < until => with_causes(&error),
            Err(error) => return Err(error),
        };
        if state != last {
            progress.state(&state);
            last = state;
        }
        if Instant::now() >= until {
            return Err(LabError::Timeout {
                what: what.to_owned(),
                after: PATIENCE,
                state: last,
                hint: hint.to_owned(),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn has_label(pod: &Pod, key: &str, value: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)).is_some_and(|found| found == value)
}

fn is_node_ready(node: &Node) -> bool {
    let conditions = node.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What keeps containers from running, each reason once.
fn troubles<'a>(pods: impl Iterator<Item = &'a Pod>) -> String {
    let mut told: Vec<String> = Vec::new();
    for status in pods.filter_map(|pod| pod.status.as_ref()) {
        for container in status.container_statuses.iter().flatten() {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref()) else { continue };
            if reason != "ContainerCreating" && reason != "PodInitializing" && !told.iter().any(|other| other == reason)
            {
                told.push(reason.to_owned());
            }
        }
    }
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

/// A node in a list.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// Its name.
    pub name: String,
    /// Its addresses on the underlay.
    pub addresses: Vec<std::net::IpAddr>,
    /// `Up` or `Down`: whether its holder runs.
    pub node: &'static str,
    /// Whether Kubernetes calls it ready.
    pub ready: bool,
    /// State of its agent: `Ready`, `NotReady` or `Missing`.
    pub agent: &'static str,
    /// Number of pods on it, those in its own network included.
    pub pods: usize,
    /// Its pods' networks.
    pub pod_cidrs: Vec<String>,
}

impl Lab {
    /// Every node with what the cluster says of it.
    ///
    /// # Errors
    /// [`LabError::Api`] when the lab's API server does not answer.
    pub async fn node_rows(&self) -> Result<Vec<NodeRow>, LabError> {
        let client = self.client()?;
        let list = ListParams::default();
        let nodes = Api::<Node>::all(client.clone()).list(&list).await.map_err(LabError::api("list nodes"))?.items;
        let pods = Api::<Pod>::all(client).list(&list).await.map_err(LabError::api("list pods"))?.items;
        let row = |node: crate::Node| {
            let object = nodes.iter().find(|object| object.metadata.name.as_deref() == Some(node.name()));
            let on_node =
                |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node.name());
            let agent = pods.iter().filter(on_node).find(|pod| has_label(pod, "k8s-app", "cilium"));
            NodeRow {
                name: node.name().to_owned(),
                addresses: node.addresses().to_vec(),
                node: if node.holder().is_some() { "Up" } else { "Down" },
                ready: object.is_some_and(is_node_ready),
                agent: match agent {
                    Some(pod) if is_ready(pod) => "Ready",
                    Some(_) => "NotReady",
                    None => "Missing",
                },
                pods: pods.iter().filter(on_node).count(),
                pod_cidrs: object.and_then(|object| object.spec.as_ref()?.pod_cidrs.clone()).unwrap_or_default(),
            }
        };
        Ok(self.nodes().into_iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "# nothing\n---\napiVersion: v1\nkind: A\nmetadata: {name: a}\n---\n---\n{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [{\"apiVersion\": \"v1\", \"kind\": \"B\", \"metadata\": {\"name\": \"b\"}}]}\n";
        let objects = parse_manifest("x.yaml", text).expect("objects");
        assert_eq!(objects.iter().map(|object| object["kind"].as_str().unwrap_or("")).collect::<Vec<_>>(), ["A", "B"]);
    }

    #[test]
    fn what_is_no_object_is_refused_with_what_it_lacks() {
        for (text, word) in [
            ("a: [", "YAML"),
            ("just text", "apiVersion"),
            ("apiVersion: v1\nmetadata: {name: a}", "kind"),
            ("apiVersion: v1\nkind: A", "metadata.name"),
        ] {
            let told = parse_manifest("x.yaml", text).expect_err("refused").to_string();
            assert!(told.contains(word) && told.contains("x.yaml"), "{told}");
        }
    }
}
