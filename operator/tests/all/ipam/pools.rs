//! Pools that pods choose.

use k8s_openapi::api::core::v1::{Node, Service};
use kinesin_cluster::CiliumPodIPPool;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    common::{Cluster, eventually},
    ipam::scene::write,
};

fn pools(cluster: &Cluster) -> Api<CiliumPodIPPool> {
    Api::all(cluster.client.clone())
}

/// A condition's parts that people read.
fn told(condition: &Value) -> (String, String, String) {
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_are_created_grow_and_get_back() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(
        directory.path(),
        &[
            ("ipam", "multi-pool"),
            ("auto-create-cilium-pod-ip-pools", "default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:28"),
            ("ipam-cidr-quarantine", "1s"),
        ],
    );
    let operator = cluster.operator_of(directory.path()).await;
    for name in ["w1", "w2"] {
        cluster.join(name, "multi-pool", json!({})).await;
        cluster.request(name, "default", 16).await;
    }
    for name in ["w1", "w2"] {
        eventually("two blocks of 14", async || cluster.allocated(name, "default").await.len() == 2).await;
    }
    assert_eq!(cluster.listed().await.len(), 4);
    // A pool that does not exist is named, and served as soon as it does.
    cluster.request("w1", "vac", 1).await;
    let missing = "failed to allocate ipv4 address for node \"w1\" from pool \"vac\": cannot allocate from non-existing pool: vac";
    eventually("refusal", async || cluster.operator_error("w1").await == missing).await;
    cluster.pool("vac", &["10.100.0.0/29"], 30).await;
    eventually("block of vac", async || cluster.allocated("w1", "vac").await == ["10.100.0.0/30"]).await;
    eventually("good news", async || cluster.operator_error("w1").await.is_empty()).await;
    cluster.request("w1", "vac", 4).await;
    eventually("growth", async || cluster.allocated("w1", "vac").await == ["10.100.0.0/30", "10.100.0.4/30"]).await;
    cluster.request("w2", "vac", 1).await;
    let full = "failed to allocate ipv4 address for node \"w2\" from pool \"vac\": all pod CIDR ranges are exhausted";
    eventually("refusal", async || cluster.operator_error("w2").await == full).await;
    // What one gives back, another gets.
    let allocated = json!([{"pool": "default", "cidrs": cluster.allocated("w1", "default").await}, {"pool": "vac", "cidrs": ["10.100.0.0/30"]}]);
    let requested = json!([{"pool": "vac", "needed": {"ipv4-addrs": 2}}]);
    cluster.patch("w1", json!({"spec": {"ipam": {"pools": {"allocated": allocated, "requested": requested}}}})).await;
    eventually("the other's block", async || cluster.allocated("w2", "vac").await == ["10.100.0.4/30"]).await;
    cluster.listed().await;
    // A pool on the ranges of another is told so.
    cluster.pool("late", &["172.20.1.0/24"], 28).await;
    eventually("verdict", async || cluster.pool_condition("late").await["reason"] == "Refused").await;
    let text = cluster.pool_condition("late").await["message"].as_str().unwrap_or_default().to_owned();
    assert!(text.contains("172.20.0.0/16 of pool \"default\""), "{text}");
    eventually("verdict", async || cluster.pool_condition("default").await["status"] == "True").await;
    cluster.end(vec![operator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_shrunk_pools_drain_and_say_so() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &[("ipam", "multi-pool"), ("ipam-cidr-quarantine", "1s")]);
    let operator = cluster.operator_of(directory.path()).await;
    cluster.pool("vac", &["10.100.0.0/29", "10.101.0.0/29"], 30).await;
    cluster.join("w1", "multi-pool", json!({})).await;
    cluster.request("w1", "vac", 6).await;
    let all = ["10.100.0.0/30", "10.100.0.4/30", "10.101.0.0/30"];
    eventually("blocks", async || cluster.allocated("w1", "vac").await == all).await;

    // Smaller: what is used of the other range stays, and both are told.
    let first = json!({"spec": {"ipv4": {"cidrs": ["10.100.0.0/29"], "maskSize": 30}}});
    pools(&cluster).patch("vac", &PatchParams::default(), &Patch::Merge(first)).await.expect("patched");
    eventually("word to the pool", async || cluster.pool_condition("vac").await["reason"] == "Draining").await;
    eventually("word to the node", async || cluster.condition("w1").await["reason"] == "Draining").await;
    let (status, _, message) = told(&cluster.condition("w1").await);
    assert_eq!(status, "True", "it lacks nothing");
    assert!(
        message.contains("10.101.0.0/30 of pool \"vac\" is in no range") && !message.contains("10.100."),
        "{message}"
    );
    assert_eq!(cluster.operator_error("w1").await, "");
    assert_eq!(cluster.allocated("w1", "vac").await, all, "nothing is taken from running pods");

    // Gone: the same for all of it, and who wants more is told that there is no such pool.
    pools(&cluster).delete("vac", &DeleteParams::default()).await.expect("deleted");
    eventually("word", async || told(&cluster.condition("w1").await).2.contains("10.100.0.4/30")).await;
    let (status, reason, message) = told(&cluster.condition("w1").await);
    assert_eq!((status.as_str(), reason.as_str()), ("True", "Draining"));
    assert!(
        message.contains("of a pool that does not exist any more") && message.contains("create the pool again"),
        "{message}"
    );
    assert_eq!(cluster.allocated("w1", "vac").await, all);
    cluster.request("w1", "vac", 7).await;
    eventually("refusal", async || cluster.operator_error("w1").await.ends_with("non-existing pool: vac")).await;
    eventually("both", async || told(&cluster.condition("w1").await).1 == "NoPool").await;
    assert!(told(&cluster.condition("w1").await).2.contains("of a pool that does not exist any more"));

    // What is given back is free for the next pool on these ranges.
    let empty = json!({"spec": {"ipam": {"pools": {"allocated": [], "requested": []}}}});
    cluster.patch("w1", empty).await;
    eventually("good news", async || told(&cluster.condition("w1").await).1 == "Available").await;
    cluster.pool("next", &["10.101.0.0/29", "10.100.0.0/29"], 29).await;
    cluster.join("w2", "multi-pool", json!({})).await;
    cluster.request("w2", "next", 12).await;
    eventually("the blocks", async || cluster.allocated("w2", "next").await.len() == 2).await;
    eventually("verdict", async || cluster.pool_condition("next").await["reason"] == "Served").await;
    cluster.end(vec![operator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pool_without_a_family_is_named_to_who_asks_for_it() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &[("ipam", "multi-pool"), ("enable-ipv6", "true")]);
    let operator = cluster.operator_of(directory.path()).await;
    cluster.pool("four", &["10.100.0.0/29"], 30).await;
    cluster.join("w1", "multi-pool", json!({})).await;
    let both = json!([{"pool": "four", "needed": {"ipv4-addrs": 1, "ipv6-addrs": 1}}]);
    cluster.patch("w1", json!({"spec": {"ipam": {"pools": {"requested": both}}}})).await;
    eventually("what it has", async || cluster.allocated("w1", "four").await == ["10.100.0.0/30"]).await;
    let lacks = "failed to allocate ipv6 address for node \"w1\" from pool \"four\": pool \"four\" has no IPv6 range that is served";
    eventually("refusal", async || cluster.operator_error("w1").await == lacks).await;
    assert!(told(&cluster.condition("w1").await).2.contains("add one to it"));
    let six = json!({"spec": {"ipv6": {"cidrs": ["fd00:100::/120"], "maskSize": 124}}});
    pools(&cluster).patch("four", &PatchParams::default(), &Patch::Merge(six)).await.expect("patched");
    eventually("both", async || cluster.allocated("w1", "four").await == ["10.100.0.0/30", "fd00:100::/124"]).await;
    eventually("good news", async || cluster.operator_error("w1").await.is_empty()).await;
    cluster.end(vec![operator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_nodes_and_services_are_spared_and_named() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &[("ipam", "multi-pool")]);
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let host = serde_json::from_value(json!({"metadata": {"name": "w1"}})).expect("a Node");
    nodes.create(&PostParams::default(), &host).await.expect("made");
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.50.0.9"}]}});
    nodes.patch_status("w1", &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
    let service = json!({
        "metadata": {"name": "kubernetes"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
    });
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "default");
    let service = serde_json::from_value(service).expect("a Service");
    services.create(&PostParams::default(), &service).await.expect("made");
    let operator = cluster.operator_of(directory.path()).await;
    cluster.pool("hosts", &["10.50.0.0/28"], 30).await;
    cluster.pool("services", &["10.96.0.0/29"], 30).await;
    cluster.join("w1", "multi-pool", json!({})).await;
    let requested = json!([
        {"pool": "hosts", "needed": {"ipv4-addrs": 8}}, {"pool": "services", "needed": {"ipv4-addrs": 4}},
    ]);
    cluster.patch("w1", json!({"spec": {"ipam": {"pools": {"requested": requested}}}})).await;
    // 10.50.0.8/30 has the node, and 10.96.0.0/30 the service `kubernetes`.
    let rest = ["10.50.0.0/30", "10.50.0.12/30", "10.50.0.4/30"];
    eventually("all but the node's", async || cluster.allocated("w1", "hosts").await == rest).await;
    eventually("all but the service's", async || cluster.allocated("w1", "services").await == ["10.96.0.4/30"]).await;
    eventually("refusal", async || cluster.operator_error("w1").await.matches("exhausted").count() == 2).await;
    for (pool, named) in
        [("hosts", "10.50.0.9/32 (node w1)"), ("services", "10.96.0.1/32 (Service default/kubernetes)")]
    {
        eventually("verdict", async || cluster.pool_condition(pool).await["reason"] == "Overlap").await;
        let (status, _, message) = told(&cluster.pool_condition(pool).await);
        assert!(status == "False" && message.contains(named) && message.contains("take other ranges"), "{message}");
    }
    cluster.end(vec![operator]).await;
}
