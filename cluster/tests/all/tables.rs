//! Tables against an API server that comes, goes and holds garbage.

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kinesin_cluster::{
    CiliumNode, CiliumPodIPPool, NodePublication, Snapshot, Table, install_crds, publish_node, watch_cluster_nodes,
    watch_local_pods, watch_own_node, watch_pod_ip_pools,
};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::common::{Cluster, LIMIT, eventually};

/// Waits for content that pleases, as a reader does: by the table's own wakes.
async fn until<T>(table: &mut Table<T>, what: &str, pleases: impl Fn(&Snapshot<T>) -> bool) -> Snapshot<T> {
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            let content = table.snapshot();
            if pleases(&content) {
                return content;
            }
            table.changed().await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what} within {LIMIT:?}; {:?}", table.health()))
}

fn named(name: &str) -> NodePublication {
    NodePublication { name: name.to_owned(), internal_ips: vec!["10.0.0.1".parse().unwrap()], ..Default::default() }
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).expect("an object")).await.expect("created");
}

#[tokio::test]
async fn nodes_are_added_changed_and_removed() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    let mut table = watch_cluster_nodes(cluster.client.clone());
    until(&mut table, "first answer", |content| content.synced && content.items.is_empty()).await;
    assert!(table.health().connected, "{:?}", table.health());
    publish_node(&cluster.client, &named("w1")).await.expect("published");
    publish_node(&cluster.client, &named("w2")).await.expect("published");
    until(&mut table, "two nodes", |content| content.items.len() == 2).await;
    let changed = NodePublication { router: vec!["fd00::7".parse().unwrap()], ..named("w1") };
    publish_node(&cluster.client, &changed).await.expect("published");
    until(&mut table, "change", |content| content.items["w1"].router == changed.router).await;
    let api: Api<CiliumNode> = Api::all(cluster.client.clone());
    api.delete("w1", &DeleteParams::default()).await.expect("deleted");
    until(&mut table, "removal", |content| content.items.keys().eq(["w2"])).await;
    cluster.down().await;
}

#[tokio::test]
async fn a_pool_that_waits_for_its_finalizer_is_told_apart_from_one_that_serves() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    let mut table = watch_pod_ip_pools(cluster.client.clone());
    until(&mut table, "first answer", |content| content.synced && content.items.is_empty()).await;
    let api: Api<CiliumPodIPPool> = Api::all(cluster.client.clone());
    for (name, finalizers) in [("stays", json!([])), ("goes", json!(["example.com/wait"]))] {
        let spec = json!({"ipv4": {"cidrs": ["10.9.0.0/24"], "maskSize": 28}});
        create(&api, json!({"metadata": {"name": name, "finalizers": finalizers}, "spec": spec})).await;
    }
    until(&mut table, "both", |content| content.items.values().filter(|pool| !pool.terminating).count() == 2).await;
    api.delete("goes", &DeleteParams::default()).await.expect("deletion is asked for");
    let content = until(&mut table, "an end", |content| content.items["goes"].terminating).await;
    assert!(!content.items["stays"].terminating);
    let done = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("goes", &PatchParams::default(), &done).await.expect("patched");
    until(&mut table, "removal", |content| content.items.keys().eq(["stays"])).await;
    cluster.down().await;
}

#[tokio::test]
async fn content_outlives_the_api_server_and_goes_on_after_it() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    publish_node(&cluster.client, &named("w1")).await.expect("published");
    let mut table = watch_cluster_nodes(cluster.client.clone());
    until(&mut table, "node", |content| content.items.len() == 1).await;
    cluster.down().await;
    // The watch that was open ends first, however it does; the next one is refused.
    eventually("failure in the health", async || {
        let health = table.health();
        (!health.connected && health.last_error?.contains("refused")).then_some(())
    })
    .await;
    assert_eq!(table.snapshot().items.len(), 1, "the content stays");
    cluster.up().await;
    // Nothing changes in the cluster, and the health is right all the same.
    eventually("health", async || table.health().connected.then_some(())).await;
    assert_eq!(table.snapshot().items.len(), 1);
    publish_node(&cluster.client, &named("w2")).await.expect("published");
    until(&mut table, "second node", |content| content.items.len() == 2).await;
    cluster.down().await;
}

#[tokio::test]
async fn table_waits_for_the_api_server_and_for_the_definition() {
    let mut cluster = Cluster::stopped().await;
    let mut table = watch_cluster_nodes(cluster.client.clone());
    eventually("failure", async || table.health().last_error).await;
    assert!(!table.snapshot().synced);
    cluster.up().await;
    eventually("word of the definition", async || {
        table.health().last_error.filter(|error| error.contains("404") && error.contains("CiliumNode"))
    })
    .await;
    assert!(!table.health().connected && !table.snapshot().synced);
    install_crds(&cluster.client).await.expect("definitions");
    publish_node(&cluster.client, &named("w1")).await.expect("published");
    until(&mut table, "node", |content| content.items.len() == 1).await;
    cluster.down().await;
}

#[tokio::test]
async fn entry_that_cannot_be_used_is_told_and_stops_nothing() {
    let mut cluster = Cluster::start().await;
    install_crds(&cluster.client).await.expect("definitions");
    publish_node(&cluster.client, &named("good")).await.expect("published");
    let resource = ApiResource::erase::<CiliumNode>(&());
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    let bad = |ip: &str| {
        json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": "bad"},
            "spec": {"addresses": [{"type": "InternalIP", "ip": ip}]},
        })
    };
    create(&api, bad("10.0.0.999")).await;
    let mut table = watch_cluster_nodes(cluster.client.clone());
    let content = until(&mut table, "list", |content| content.synced).await;
    assert!(content.items.keys().eq(["bad", "good"]) && content.rejected.is_empty());
    assert_eq!(content.items["bad"].problems, ["spec.addresses: \"10.0.0.999\" is no IP address"]);
    assert!(content.items["bad"].addresses.is_empty() && content.items["good"].problems.is_empty());
    let mend = Patch::Merge(json!({"spec": bad("10.0.0.9")["spec"]}));
    api.patch("bad", &PatchParams::default(), &mend).await.expect("patched");
    until(&mut table, "mended node", |content| content.items["bad"].problems.is_empty()).await;
    let spoil = Patch::Merge(json!({"spec": bad("")["spec"]}));
    api.patch("bad", &PatchParams::default(), &spoil).await.expect("patched");
    until(&mut table, "spoilt node", |content| content.items["bad"].problems.len() == 1).await;
    publish_node(&cluster.client, &named("other")).await.expect("published");
    until(&mut table, "node after it", |content| content.items.contains_key("other")).await;
    cluster.down().await;
}

#[tokio::test]
async fn type_of_another_schema_does_not_stop_the_list() {
    let mut cluster = Cluster::start().await;
    let mut crd = serde_json::to_value(&kinesin_cluster::crds()[1]).expect("JSON");
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = anything;
    let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    create(&crds, crd).await;
    let mut table = watch_cluster_nodes(cluster.client.clone());
    until(&mut table, "list", |content| content.synced).await;
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &ApiResource::erase::<CiliumNode>(&()));
    for (name, spec) in [("text", json!("x")), ("list", json!([1])), ("number", json!({"addresses": 7}))] {
        create(
            &api,
            json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name}, "spec": spec}),
        )
        .await;
    }
    publish_node(&cluster.client, &named("good")).await.expect("published");
    let content = until(&mut table, "four nodes", |content| content.items.len() + content.rejected.len() == 4).await;
    assert!(content.items.keys().eq(["good"]), "{content:?}");
    cluster.down().await;
}

#[tokio::test]
async fn own_node_and_local_pods_are_those_of_the_node() {
    let mut cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let mut own = watch_own_node(cluster.client.clone(), "w1");
    let mut pods = watch_local_pods(cluster.client.clone(), "w1");
    until(&mut own, "answer", |content| content.synced && content.items.is_empty()).await;
    for name in ["w1", "w2"] {
        create(&nodes, json!({"metadata": {"name": name}, "spec": {"podCIDRs": ["10.244.1.0/24", "fd00::/64"]}})).await;
    }
    let content = until(&mut own, "own node", |content| !content.items.is_empty()).await;
    assert!(content.items.keys().eq(["w1"]));
    assert_eq!(content.items["w1"].pod_cidrs.len(), 2);
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), "default");
    for (name, node) in [("a", "w1"), ("b", "w2")] {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
        create(&api, json!({"metadata": {"name": name}, "spec": spec})).await;
    }
    let content = until(&mut pods, "own pod", |content| !content.items.is_empty()).await;
    assert!(content.items.keys().eq(["default/a"]));
    let status = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    api.patch_status("a", &PatchParams::default(), &status).await.expect("patched");
    until(&mut pods, "ended pod", |content| content.items["default/a"].terminal).await;
    api.delete("a", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    until(&mut pods, "no pod", |content| content.items.is_empty()).await;
    cluster.down().await;
}
