//! The roles allow what the programs do, and nothing that they do not do.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    rbac::v1::{ClusterRole, Role},
};
use kinesin_cluster::{
    CiliumEndpoint, CiliumNode, EndpointPublication, EndpointPublisher, NodePublication, install_crds,
    publish_endpoints, publish_node, watch_cluster_nodes, watch_own_node,
};
use kinesin_operator::{Operator, Settings, Timing};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    helm::{object, rendered},
    rbac::{Gate, Rules},
    server,
};

const NODE_IP: &str = "10.0.0.1";

/// The rules of the roles of this name.
fn rules(name: &str) -> Result<Rules> {
    let objects = rendered("");
    let role: ClusterRole = serde_json::from_value(object(&objects, "ClusterRole", name).clone())?;
    let mut rules = Rules { cluster: role.rules.unwrap_or_default(), ..Rules::default() };
    for role in objects.iter().filter(|object| object["kind"] == "Role" && object["metadata"]["name"] == name) {
        let role: Role = serde_json::from_value(role.clone())?;
        let namespace = role.metadata.namespace.context("a namespace")?;
        rules.namespaced.insert(namespace, role.rules.unwrap_or_default());
    }
    Ok(rules)
}

async fn until<F: Future<Output = Result<bool>>>(what: &str, mut look: impl FnMut() -> F) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !look().await? {
        ensure!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn publication(pod: &str) -> Result<EndpointPublication> {
    Ok(EndpointPublication {
        namespace: "default".to_owned(),
        pod_name: pod.to_owned(),
        pod_uid: String::new(),
        id: 7,
        identity: 5,
        labels: Vec::new(),
        addresses: vec!["10.244.0.7".parse()?],
        node_ip: NODE_IP.parse()?,
        container_id: "c".to_owned(),
        attachment_id: "c:eth0".to_owned(),
        state: "ready".to_owned(),
    })
}

async fn create<K>(client: &Client, namespace: Option<&str>, value: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
    K: MaybeNamespaced,
{
    K::api(client, namespace).create(&PostParams::default(), &serde_json::from_value(value)?).await?;
    Ok(())
}

trait MaybeNamespaced: Sized {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self>;
}

impl MaybeNamespaced for Node {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl MaybeNamespaced for Pod {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client.clone(), namespace.unwrap_or("default"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let (server, admin, _) = server::start().await?;
    install_crds(&admin).await?;
    create::<Node>(&admin, None, json!({"metadata": {"name": "w1"}})).await?;
    let granted = rules("cilium")?.grants();
    let (gate, url) = Gate::open(rules("cilium")?, admin.clone()).await?;
    let client = kinesin_cluster::connect(None, Some(&url)).await?;

    // What agent/src/startup.rs and agent/src/publish.rs do, by the same functions.
    client.apiserver_version().await?;
    let own = watch_own_node(client.clone(), "w1");
    let nodes = watch_cluster_nodes(client.clone());
    until("own node", async || Ok(own.snapshot().items.contains_key("w1"))).await?;
    until("list of nodes", async || Ok(nodes.snapshot().synced)).await?;
    publish_node(&client, &NodePublication { name: "w1".to_owned(), ..Default::default() }).await?;
    until("watch of nodes", async || Ok(nodes.snapshot().items.contains_key("w1"))).await?;
    let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    Api::<Node>::all(admin.clone()).patch("w1", &PatchParams::default(), &labels).await?;
    until("watch of the own node", async || Ok(own.snapshot().items["w1"].labels.contains_key("a"))).await?;
    let mut publisher = EndpointPublisher::new(client.clone(), NODE_IP.parse()?);
    publisher.publish(&[publication("a")?]).await?;
    // Somebody touches it, so that the deletion has to look again.
    Api::<CiliumEndpoint>::namespaced(admin.clone(), "default").patch("a", &PatchParams::default(), &labels).await?;
    publisher.publish(&[]).await?;

    let seen = gate.seen();
    assert!(seen.refused.is_empty(), "the role lacks what the agent needs: {:?}", seen.refused);
    let unused: Vec<_> = granted.difference(&seen.used()).cloned().collect();
    assert!(unused.is_empty(), "the role grants what the agent never asks for: {unused:?}");
    server.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let (server, admin, _) = server::start().await?;
    let granted = rules("cilium-operator")?.grants();
    let (gate, url) = Gate::open(rules("cilium-operator")?, admin.clone()).await?;
    let client = kinesin_cluster::connect(None, Some(&url)).await?;
    let settings = Settings {
        namespace: "kube-system".to_owned(),
        identity: "one".to_owned(),
        timing: Timing {
            lease: Duration::from_secs(2),
            renew: Duration::from_millis(1200),
            retry: Duration::from_millis(100),
        },
        nodes_interval: Some(Duration::from_millis(50)),
        endpoints_interval: Some(Duration::from_millis(50)),
        grace: Duration::from_millis(100),
        install_crds: true,
        health_address: "127.0.0.1:0".to_owned(),
        metrics_address: None,
    };
    let operator = Operator::start(client, settings).await?;

    let crds = kinesin_cluster::crds();
    let definitions: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(admin.clone());
    until("definitions", async || {
        Ok(definitions.list(&kube::api::ListParams::default()).await?.items.len() == crds.len())
    })
    .await?;
    // Leftovers of a node and of a pod that are not there.
    until("orphans", async || {
        let node = NodePublication { name: "gone".to_owned(), ..Default::default() };
        Ok(publish_node(&admin, &node).await.is_ok()
            && publish_endpoints(&admin, NODE_IP.parse()?, &[publication("gone")?]).await.is_ok())
    })
    .await?;
    let nodes: Api<CiliumNode> = Api::all(admin.clone());
    let endpoints: Api<CiliumEndpoint> = Api::namespaced(admin.clone(), "default");
    until("collection", async || {
        Ok(nodes.get_opt("gone").await?.is_none() && endpoints.get_opt("gone").await?.is_none())
    })
    .await?;
    operator.shutdown().await;

    let seen = gate.seen();
    assert!(seen.refused.is_empty(), "the roles lack what the operator needs: {:?}", seen.refused);
    let unused: Vec<_> = granted.difference(&seen.used()).cloned().collect();
    assert!(unused.is_empty(), "the roles grant what the operator never asks for: {unused:?}");
    server.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_role_allows_is_refused_by_the_gate() -> Result<()> {
    let (server, admin, _) = server::start().await?;
    create::<Pod>(
        &admin,
        None,
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .await?;
    let (gate, url) = Gate::open(rules("cilium")?, admin.clone()).await?;
    let client = kinesin_cluster::connect(None, Some(&url)).await?;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let refused = pods.delete("a", &DeleteParams::default()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    assert_eq!(gate.seen().refused.len(), 1);
    server.shutdown().await;
    Ok(())
}
