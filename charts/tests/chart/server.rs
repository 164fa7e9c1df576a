//! The rendered objects on an API server, by server-side apply as helm 4 and kubectl do.

use std::net::TcpListener;

use anyhow::{Context as _, Result};
use kinesin_apiserver::{ApiServer, Config};
use kube::{
    Api, Client,
    api::{DynamicObject, GroupVersionKind, Patch, PatchParams, ValidationDirective},
    core::ResourceExt as _,
    discovery::{Scope, pinned_kind},
};
use serde_json::Value;

use crate::helm::{FIXTURES, fixture, object, rendered};

/// An API server with its controllers.
pub(crate) async fn start() -> Result<(ApiServer, Client, String)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let config = Config { listeners: vec![listener], controllers: true, ..Config::default() };
    let server = ApiServer::start(config).await?;
    let url = format!("http://{}", server.local_addrs()[0]);
    Ok((server, kinesin_cluster::connect(None, Some(&url)).await?, url))
}

/// Applies one object; the answer is its resource version.
async fn apply(client: &Client, object: &Value) -> Result<String> {
    let group_version = object["apiVersion"].as_str().context("apiVersion")?;
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    let kind = GroupVersionKind::gvk(group, version, object["kind"].as_str().context("kind")?);
    let (resource, capabilities) = pinned_kind(client, &kind).await?;
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        (Scope::Namespaced, None) => anyhow::bail!("{} {} has no namespace", kind.kind, object.name_any()),
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("helm") };
    let answer = api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await;
    let answer = answer.with_context(|| format!("{} {}", kind.kind, object.name_any()))?;
    answer.resource_version().context("a resource version")
}

async fn namespace(client: &Client, name: &str) -> Result<()> {
    let object = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    apply(client, &object).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_server_takes_what_is_rendered_and_a_second_time_changes_nothing() -> Result<()> {
    for name in FIXTURES {
        let (server, client, _) = start().await?;
        namespace(&client, "net").await?;
        let objects = rendered(&fixture(name));
        for object in &objects {
            let first = apply(&client, object).await.with_context(|| (*name).to_owned())?;
            let kind = object["kind"].as_str().unwrap_or_default();
            // Controllers write into workloads meanwhile.
            if !matches!(kind, "DaemonSet" | "Deployment") {
                assert_eq!(apply(&client, object).await?, first, "{name}: {kind} changed by being applied again");
            }
        }
        server.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_gets_an_agent_and_the_operators_start() -> Result<()> {
    let (server, client, _) = start().await?;
    for name in ["w1", "w2", "w3"] {
        let node = serde_json::json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
            // A fresh node without a network.
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}});
        apply(&client, &node).await?;
    }
    let objects = rendered("operator: {replicas: 1}");
    for object in &objects {
        apply(&client, object).await?;
    }
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(client.clone(), "kube-system");
    let wanted = object(&objects, "DaemonSet", "cilium")["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let list = pods.list(&kube::api::ListParams::default()).await?.items;
        let placed = |label: &str, value: &str| {
            list.iter()
                .filter(|pod| pod.labels().get(label).is_some_and(|found| found == value))
                .filter_map(|pod| pod.spec.as_ref())
                .filter(|spec| spec.node_name.is_some() && spec.containers[0].image.as_deref() == wanted.as_str())
                .count()
        };
        if placed("k8s-app", "cilium") == 3 && placed("io.cilium/app", "operator") == 1 {
            break;
        }
        anyhow::ensure!(std::time::Instant::now() < deadline, "no agent on each node within 20 s: {list:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    server.shutdown().await;
    Ok(())
}
