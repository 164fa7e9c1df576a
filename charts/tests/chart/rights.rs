//! The roles allow what the programs do, and nothing that they do not do.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    rbac::v1::{ClusterRole, Role},
};
use kinesin_cluster::{
    CiliumEndpoint, CiliumNode, CiliumPodIPPool, EndpointPublication, EndpointPublisher, IPAM_MODE, NodeIpamChange,
    NodePublication, PodCIDRClaims, crd::ClaimsSpec, install_crds, publish_endpoints, publish_node, update_node_ipam,
    watch_cluster_nodes, watch_local_pods, watch_namespaces, watch_own_cilium_node, watch_own_node, watch_pod_ip_pools,
};
use kinesin_core::config::{Config, Sources};
use kinesin_operator::{IpamSettings, Operator, Settings, Timing};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    helm::{config_map, object, rendered},
    rbac::{Gate, Rules},
    server,
};

const NODE_IP: &str = "10.0.0.1";

/// The rules of the ClusterRole of this name, and of every Role that is bound to the account of the same name.
fn rules(name: &str) -> Result<Rules> {
    let objects = rendered("");
    let role: ClusterRole = serde_json::from_value(object(&objects, "ClusterRole", name).clone())?;
    let mut rules = Rules { cluster: role.rules.unwrap_or_default(), ..Rules::default() };
    for binding in objects.iter().filter(|object| object["kind"] == "RoleBinding") {
        if binding["subjects"][0]["name"] == name {
            let role = object(&objects, "Role", binding["roleRef"]["name"].as_str().context("a role")?);
            let role: Role = serde_json::from_value(role.clone())?;
            let namespace = role.metadata.namespace.context("a namespace")?;
            ensure!(binding["metadata"]["namespace"] == *namespace, "a role of {namespace} is bound elsewhere");
            rules.namespaced.entry(namespace).or_default().extend(role.rules.unwrap_or_default());
        }
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

impl MaybeNamespaced for Namespace {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl MaybeNamespaced for CiliumNode {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl MaybeNamespaced for CiliumPodIPPool {
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

    // What startup.rs, publish.rs and ipam/publish.rs of the agent do, by the same functions.
    client.apiserver_version().await?;
    let own = watch_own_node(client.clone(), "w1");
    let nodes = watch_cluster_nodes(client.clone());
    let own_cilium = watch_own_cilium_node(client.clone(), "w1");
    let pods = watch_local_pods(client.clone(), "w1");
    let namespaces = watch_namespaces(client.clone());
    let named = watch_pod_ip_pools(client.clone());
    until("own node", async || Ok(own.snapshot().items.contains_key("w1"))).await?;
    until("lists", async || {
        let pools = pods.snapshot().synced && namespaces.snapshot().synced && named.snapshot().synced;
        Ok(nodes.snapshot().synced && own_cilium.snapshot().synced && pools)
    })
    .await?;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "w1", "containers": [{"name": "c", "image": "i"}]}});
    create::<Pod>(&admin, None, pod).await?;
    create::<Namespace>(&admin, None, json!({"metadata": {"name": "team"}})).await?;
    let ranges = json!({"ipv4": {"cidrs": ["172.30.0.0/24"], "maskSize": 28}});
    create::<CiliumPodIPPool>(&admin, None, json!({"metadata": {"name": "team"}, "spec": ranges})).await?;
    until("watch of pools", async || Ok(named.snapshot().items.contains_key("team"))).await?;
    until("watch of pods", async || Ok(pods.snapshot().items.contains_key("default/p"))).await?;
    until("watch of namespaces", async || Ok(namespaces.snapshot().items.contains_key("team"))).await?;
    publish_node(&client, &NodePublication { name: "w1".to_owned(), ..Default::default() }).await?;
    until("watch of nodes", async || Ok(nodes.snapshot().items.contains_key("w1"))).await?;
    let block = "10.244.7.0/24".parse()?;
    let writes = update_node_ipam(&client, "w1", "2026-01-01T00:00:00Z", |_| NodeIpamChange {
        add_pod_cidrs: vec![block],
        cidr_status: Some(BTreeMap::from([("10.244.7.0/24".to_owned(), "in-use".to_owned())])),
        ..NodeIpamChange::default()
    });
    assert_eq!(writes.await?, 2, "one of the lists, one of the status");
    until("watch of the own CiliumNode", async || {
        Ok(own_cilium.snapshot().items.get("w1").is_some_and(|node| node.pod_cidrs.contains(&block)))
    })
    .await?;
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

/// Nodes of both modes at once: ranges for cluster-pool are served in any mode if they are set.
const POOLS: &str = "
ipam:
  mode: multi-pool
  operator:
    clusterPoolIPv4PodCIDRList: [10.9.0.0/16]
    clusterPoolIPv4MaskSize: 24
    autoCreateCiliumPodIPPools: {default: {ipv4: {cidrs: [172.20.0.0/16], maskSize: 28}}}
";

/// Has a running operator give blocks of either mode, refuse one, and judge a pool.
async fn give_blocks(admin: &Client) -> Result<()> {
    // Claims of a range that overlaps, as if the range had been a wider one: the operator has to look into them.
    let claims: Api<PodCIDRClaims> = Api::all(admin.clone());
    let spec = ClaimsSpec { range: "10.8.0.0/14".to_owned(), ..ClaimsSpec::default() };
    let wider = PodCIDRClaims::new("v4-10-8-0-0-14", spec);
    until("claims", async || Ok(claims.create(&PostParams::default(), &wider).await.is_ok())).await?;

    let nodes: Api<CiliumNode> = Api::all(admin.clone());
    let need = |pool: &str| json!({"pool": pool, "needed": {"ipv4-addrs": 8}});
    // A pool that is missing is what the third one is told of.
    let requested = json!([need("default"), need("missing")]);
    // The second one finds the claims of the first.
    for (name, mode, ipam, block) in [
        ("w1", "cluster-pool", json!({}), "10.9.0.0/24"),
        ("w2", "cluster-pool", json!({}), "10.9.1.0/24"),
        ("w3", "multi-pool", json!({"pools": {"requested": requested}}), "172.20.0.0/28"),
    ] {
        create::<Node>(admin, None, json!({"metadata": {"name": name}})).await?;
        let metadata = json!({"name": name, "annotations": {IPAM_MODE: mode}});
        let node =
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": metadata, "spec": {"ipam": ipam}});
        create::<CiliumNode>(admin, None, node).await?;
        until(name, async || {
            let node = serde_json::to_value(nodes.get(name).await?)?;
            Ok(node["spec"]["ipam"].to_string().contains(block))
        })
        .await?;
    }
    until("refusal", async || {
        let node = serde_json::to_value(nodes.get("w3").await?)?;
        Ok(node["status"]["conditions"][0]["reason"] == "NoPool")
    })
    .await?;
    let pools: Api<CiliumPodIPPool> = Api::all(admin.clone());
    until("verdict on the pool", async || {
        let pool = serde_json::to_value(pools.get("default").await?)?;
        Ok(pool["status"]["conditions"][0]["type"] == "Accepted")
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_may_do_what_it_does_and_nothing_else() -> Result<()> {
    let (server, admin, _) = server::start().await?;
    let granted = rules("cilium-operator")?.grants();
    let (gate, url) = Gate::open(rules("cilium-operator")?, admin.clone()).await?;
    let client = kinesin_cluster::connect(None, Some(&url)).await?;
    // The mounted ConfigMap.
    let directory = tempfile::tempdir()?;
    for (key, value) in config_map(&rendered(POOLS)) {
        fs::write(directory.path().join(key), value)?;
    }
    let sources = Sources { config_dir: Some(directory.path().to_owned()), ..Sources::default() };
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
        ipam: IpamSettings::of(&Config::load(&sources)?)?,
        config_dir: sources.config_dir,
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
    give_blocks(&admin).await?;
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
