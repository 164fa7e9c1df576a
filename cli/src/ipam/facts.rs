//! What the API server has of everything that a change of the mode is about.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod},
};
use kinesin_core::values::Family;
use kinesin_operator::forecast::Cluster;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectList},
};

use super::agents;
use crate::cluster::{AGENT_SELECTOR, CONFIG_MAP, OPERATOR};

/// Objects of one answer of the API server.
const PAGE: u32 = 500;
/// Annotation of a Pod or a namespace that names a pool for both families.
const POOL: &str = "ipam.cilium.io/ip-pool";

/// Everything, as it was read at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Namespace of the agents.
    pub(super) namespace: String,
    /// Data of `cilium-config`, and the version under which it was read.
    pub(super) config: BTreeMap<String, String>,
    pub(super) config_version: String,
    /// CiliumNodes, Nodes, pools, claims.
    pub(super) cluster: Cluster,
    /// The agents by node.
    pub(super) agents: BTreeMap<String, agents::Agent>,
    /// Whether there is a Deployment of the operator.
    pub(super) has_operator: bool,
    /// Pods that have an address, by node.
    pub(super) pods: BTreeMap<String, Vec<PodFacts>>,
    /// Addresses of the router and of the health endpoint, by node.
    pub(super) own: BTreeMap<String, Vec<IpAddr>>,
}

/// A Pod with addresses of the pod network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PodFacts {
    pub(super) ips: Vec<IpAddr>,
    /// The pool that it and its namespace name, by family; absent where they name none.
    pub(super) pools: BTreeMap<Family, String>,
}

impl Facts {
    /// Reads everything.
    pub(super) async fn read(client: Client, namespace: &str) -> anyhow::Result<Self> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let what = || format!("cannot get ConfigMap {namespace}/{CONFIG_MAP}");
        let map = maps.get(CONFIG_MAP).await.with_context(what)?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let deployment = deployments.get_opt(OPERATOR).await.context("cannot get the operator's Deployment")?;
        let agents = list(&Api::namespaced(client.clone(), namespace), AGENT_SELECTOR, "the agents' Pods").await?;
        let namespaces: Vec<Namespace> = list(&Api::all(client.clone()), "", "Namespaces").await?;
        let namespaces: BTreeMap<String, Namespace> =
            namespaces.into_iter().map(|object| (object.name_any(), object)).collect();
        let pods: Vec<Pod> = list(&Api::all(client.clone()), "", "Pods").await?;
        let nodes: Vec<kinesin_cluster::CiliumNode> = match list(&Api::all(client.clone()), "", "CiliumNodes").await {
            Ok(nodes) => nodes,
            // Without definitions there are none.
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            config: map.data.clone().unwrap_or_default(),
            config_version: map.resource_version().unwrap_or_default(),
            cluster: Cluster::read(client).await?,
            agents: agents::by_node(&agents),
            has_operator: deployment.is_some(),
            pods: pods_by_node(&pods, &namespaces),
            own: nodes.iter().map(|node| (node.name_any(), own_addresses(node))).collect(),
        })
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<kube::Error>(), Some(kube::Error::Api(refused)) if refused.code == 404)
}

/// Every object, page by page.
async fn list<K>(api: &Api<K>, labels: &str, what: &str) -> anyhow::Result<Vec<K>>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let mut params = ListParams::default().limit(PAGE);
    if !labels.is_empty() {
        params = params.labels(labels);
    }
    let mut items = Vec::new();
    loop {
        let page: ObjectList<K> = api.list(&params).await.with_context(|| format!("cannot list {what}"))?;
        items.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(items),
        }
    }
}

/// Pods that hold an address, on their nodes.
fn pods_by_node(pods: &[Pod], namespaces: &BTreeMap<String, Namespace>) -> BTreeMap<String, Vec<PodFacts>> {
    let mut found: BTreeMap<String, Vec<PodFacts>> = BTreeMap::new();
    for pod in pods {
        let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { continue };
        let is_over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let Some(node) = spec.node_name.clone().filter(|_| !is_over && spec.host_network != Some(true)) else {
            continue;
        };
        let ips: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        if ips.is_empty() {
            continue;
        }
        let namespace = pod.namespace().and_then(|name| namespaces.get(&name));
        let named = |family| pool(pod.annotations(), family).or_else(|| pool(namespace?.annotations(), family));
        let pools = Family::ALL.into_iter().filter_map(|family| Some((family, named(family)?))).collect();
        found.entry(node).or_default().push(PodFacts { ips, pools });
    }
    found
}

/// The word for one family before that for both, as the agent has it.
fn pool(annotations: &BTreeMap<String, String>, family: Family) -> Option<String> {
    let of_family = match family {
        Family::V4 => "ipam.cilium.io/ipv4-pool",
        Family::V6 => "ipam.cilium.io/ipv6-pool",
    };
    let found = annotations.get(of_family).filter(|name| !name.is_empty()).or_else(|| annotations.get(POOL));
    found.filter(|name| !name.is_empty()).cloned()
}

/// Addresses of `cilium_host` and of the health endpoint.
pub(super) fn own_addresses(node: &kinesin_cluster::CiliumNode) -> Vec<IpAddr> {
    let router = node.spec.addresses.iter().flatten();
    let router = router.filter(|address| address.r#type == kinesin_cluster::crd::CILIUM_INTERNAL_IP);
    let health = node.spec.health.iter().flat_map(|health| [&health.ipv4, &health.ipv6]).flatten();
    router.map(|address| &address.ip).chain(health).filter_map(|ip| ip.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_hold_an_address_are_counted_with_the_pool_that_they_would_get() {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": {"ipam.cilium.io/ip-pool": "of-namespace"}},
        }))
        .expect("a namespace");
        let namespaces = BTreeMap::from([("n".to_owned(), namespace)]);
        let pod = |name: &str, annotations: serde_json::Value, change: serde_json::Value| {
            let mut pod = json!({
                "metadata": {"name": name, "namespace": "n", "annotations": annotations},
                "spec": {"nodeName": "w1", "containers": []},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
            });
            for (path, value) in change.as_object().into_iter().flatten() {
                *pod.pointer_mut(path).expect("a field") = value.clone();
            }
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let own = json!({"ipam.cilium.io/ip-pool": "both", "ipam.cilium.io/ipv6-pool": "six"});
        let pods = [
            pod("a", json!({}), json!({})),
            pod("b", own, json!({})),
            pod("over", json!({}), json!({"/status/phase": "Succeeded"})),
            pod("without", json!({}), json!({"/status/podIPs": []})),
        ];
        let found = pods_by_node(&pods, &namespaces);
        let pools: Vec<Vec<&str>> =
            found["w1"].iter().map(|pod| pod.pools.values().map(String::as_str).collect()).collect();
        assert_eq!(pools, [["of-namespace", "of-namespace"], ["both", "six"]]);
    }
}
