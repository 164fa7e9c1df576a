//! More than one operator, and what people write by hand.

use std::{collections::BTreeSet, time::Duration};

use kinesin_operator::IpamSettings;
use kube::api::DeleteParams;
use serde_json::json;

use crate::common::{self, Cluster, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_that_both_lead_never_give_a_block_twice() {
    let cluster = Cluster::new().await;
    // Leases in two namespaces: neither knows of the other, as when a lease was lost unnoticed.
    let settings = || {
        let mut ipam = IpamSettings::default();
        ipam.cluster_pool = common::cluster_pool("10.0.0.0/26", 30);
        ipam.mode = "cluster-pool".parse().expect("a mode");
        ipam.quarantine = Duration::from_millis(500);
        ipam
    };
    let mut operators = vec![
        cluster.operator("one", "kube-system", settings()).await,
        cluster.operator("two", "default", settings()).await,
    ];
    for number in 0..14 {
        cluster.join(&format!("w{number}"), "cluster-pool", json!({})).await;
    }
    for number in 0..14 {
        eventually("block", async || cluster.pod_cidrs(&format!("w{number}")).await.len() == 1).await;
    }
    // One is killed, and another starts while nodes go and come; the state of the API is all it has.
    drop(operators.remove(0));
    for number in 0..7 {
        cluster.nodes().delete(&format!("w{number}"), &DeleteParams::default()).await.expect("deleted");
        cluster.join(&format!("x{number}"), "cluster-pool", json!({})).await;
    }
    operators.push(cluster.operator("three", "kube-public", settings()).await);
    for number in 0..7 {
        eventually("block", async || cluster.pod_cidrs(&format!("x{number}")).await.len() == 1).await;
    }
    let listed: BTreeSet<String> = cluster.listed().await.iter().map(ToString::to_string).collect();
    assert_eq!(listed.len(), 14);
    eventually("agreement", async || cluster.claimed().await == listed).await;
    cluster.end(operators).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collisions_are_reported_on_both_and_left_alone() {
    let cluster = Cluster::new().await;
    let mut ipam = IpamSettings::default();
    ipam.cluster_pool = common::cluster_pool("10.0.0.0/16", 24);
    ipam.mode = "cluster-pool".parse().expect("a mode");
    cluster.install().await;
    cluster.join("a", "cluster-pool", json!({"podCIDRs": ["10.0.7.0/24"]})).await;
    cluster.join("b", "cluster-pool", json!({"podCIDRs": ["10.0.7.128/25", "nonsense"]})).await;
    let operator = cluster.operator("one", "kube-system", ipam).await;
    for (name, other) in [("a", "node b"), ("b", "node a")] {
        eventually("report", async || cluster.condition(name).await["reason"] == "Collision").await;
        let text = cluster.operator_error(name).await;
        assert!(text.contains("10.0.7.0/24") && text.contains("10.0.7.128/25") && text.contains(other), "{text}");
    }
    assert!(cluster.operator_error("b").await.contains("\"nonsense\" is no CIDR"));
    assert_eq!(cluster.pod_cidrs("a").await, ["10.0.7.0/24"]);
    assert_eq!(cluster.pod_cidrs("b").await[..2], ["10.0.7.128/25", "nonsense"]);
    // Whoever cleans up ends it for both.
    cluster.patch("b", json!({"spec": {"ipam": {"podCIDRs": []}}})).await;
    for name in ["a", "b"] {
        eventually("good news", async || cluster.condition(name).await["reason"] == "Available").await;
    }
    eventually("block", async || cluster.pod_cidrs("b").await.len() == 1).await;
    cluster.listed().await;
    cluster.end(vec![operator]).await;
}
