//! Ranges that every node gets blocks of.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    common::{self, Cluster, eventually},
    ipam::scene::write,
};

const SEED: [(&str, &str); 3] = [
    ("ipam", "cluster-pool"),
    ("cluster-pool-ipv4-cidr", "172.20.42.0/28 172.20.84.0/28"),
    ("cluster-pool-ipv4-mask-size", "29"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn third_range_appears_by_a_change_of_the_config_and_heals_who_waits() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &SEED);
    let operator = cluster.operator_of(directory.path()).await;
    for number in 1..=4 {
        cluster.join(&format!("w{number}"), "cluster-pool", json!({})).await;
        eventually("block", async || cluster.pod_cidrs(&format!("w{number}")).await.len() == 1).await;
    }
    let blocks: Vec<String> = cluster.listed().await.iter().map(ToString::to_string).collect();
    assert_eq!(
        blocks,
        ["172.20.42.0/29", "172.20.42.8/29", "172.20.84.0/29", "172.20.84.8/29"],
        "in the order of the list"
    );
    cluster.join("w5", "cluster-pool", json!({})).await;
    eventually("refusal", async || cluster.operator_error("w5").await == "allocator full").await;
    let condition = cluster.condition("w5").await;
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("RangeFull")));
    assert!(
        condition["message"]
            .as_str()
            .is_some_and(|text| text.contains("172.20.42.0/28") && text.contains("add a CIDR"))
    );

    // What is refused changes nothing; then what is right is served.
    write(directory.path(), &[("cluster-pool-ipv4-mask-size", "many")]);
    let port = operator.metrics_address().expect("a port");
    let told = async |line: &str| {
        eventually(line, async || common::get(port, "/metrics").lines().any(|found| found == line)).await;
    };
    told("kinesin_operator_config_refused 1").await;
    assert_eq!(cluster.listed().await.len(), 4);
    let third = "172.20.42.0/28 172.20.84.0/28 10.0.0.0/28";
    write(directory.path(), &[("cluster-pool-ipv4-mask-size", "29"), ("cluster-pool-ipv4-cidr", third)]);
    eventually("block of the third range", async || cluster.pod_cidrs("w5").await == ["10.0.0.0/29"]).await;
    eventually("good news", async || cluster.operator_error("w5").await.is_empty()).await;
    eventually("condition", async || cluster.condition("w5").await["reason"] == "Available").await;
    assert_eq!(cluster.pod_cidrs("w1").await, ["172.20.42.0/29"], "nobody lost anything");
    told("kinesin_operator_ipam_claimed_blocks{mode=\"cluster-pool\",pool=\"\"} 5").await;
    told("kinesin_operator_config_refused 0").await;
    told("cilium_operator_ipam_nodes{category=\"in-deficit\"} 0").await;
    cluster.end(vec![operator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_runs_low_grows_and_gives_back() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &SEED);
    write(
        directory.path(),
        &[("enable-ipv6", "true"), ("cluster-pool-ipv6-cidr", "fd00::/112"), ("ipam-cidr-quarantine", "1s")],
    );
    let operator = cluster.operator_of(directory.path()).await;
    cluster.join("w1", "cluster-pool", json!({})).await;
    eventually("blocks", async || cluster.pod_cidrs("w1").await.len() == 2).await;
    let status = |states: Value| json!({"status": {"ipam": {"pod-cidrs": states}}});
    cluster
        .patch_status(
            "w1",
            status(json!({"172.20.42.0/29": {"status": "depleted"}, "fd00::/120": {"status": "in-use"}})),
        )
        .await;
    eventually("further block", async || cluster.pod_cidrs("w1").await.len() == 3).await;
    assert_eq!(cluster.pod_cidrs("w1").await[2], "172.20.42.8/29");
    // It has room now: no third, and the second goes when the agent says so.
    cluster.patch_status("w1", status(json!({"172.20.42.8/29": {"status": "in-use"}}))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.pod_cidrs("w1").await.len(), 3);
    cluster
        .patch_status(
            "w1",
            status(json!({
                "172.20.42.0/29": {"status": "in-use"}, "172.20.42.8/29": {"status": "released"},
            })),
        )
        .await;
    eventually("removal", async || cluster.pod_cidrs("w1").await.len() == 2).await;
    eventually("release", async || !cluster.claimed().await.contains("172.20.42.8/29")).await;
    // The last one stays, whatever the agent says.
    cluster.patch_status("w1", status(json!({"fd00::/120": {"status": "released"}}))).await;
    eventually("another in its place", async || cluster.pod_cidrs("w1").await.contains(&"fd00::100/120".to_owned()))
        .await;
    eventually("removal of it", async || !cluster.pod_cidrs("w1").await.contains(&"fd00::/120".to_owned())).await;
    cluster.end(vec![operator]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn range_that_is_taken_out_of_the_config_drains() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), &SEED);
    let operator = cluster.operator_of(directory.path()).await;
    cluster.join("w1", "cluster-pool", json!({})).await;
    eventually("block", async || cluster.pod_cidrs("w1").await == ["172.20.42.0/29"]).await;
    write(directory.path(), &[("cluster-pool-ipv4-cidr", "172.20.84.0/28")]);
    eventually("word", async || cluster.condition("w1").await["reason"] == "Draining").await;
    let condition = cluster.condition("w1").await;
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.contains("172.20.42.0/29") && message.contains("delete those pods"), "{message}");
    assert_eq!((&condition["status"], cluster.operator_error("w1").await.as_str()), (&json!("True"), ""));
    // The node keeps it, and gets what it needs more from what there is.
    let depleted = json!({"status": {"ipam": {"pod-cidrs": {"172.20.42.0/29": {"status": "depleted"}}}}});
    cluster.patch_status("w1", depleted).await;
    eventually("further block", async || cluster.pod_cidrs("w1").await == ["172.20.42.0/29", "172.20.84.0/29"]).await;
    let released = json!({"status": {"ipam": {"pod-cidrs": {
        "172.20.42.0/29": {"status": "released"}, "172.20.84.0/29": {"status": "in-use"},
    }}}});
    cluster.patch_status("w1", released).await;
    eventually("its end", async || cluster.pod_cidrs("w1").await == ["172.20.84.0/29"]).await;
    eventually("good news", async || cluster.condition("w1").await["reason"] == "Available").await;
    cluster.end(vec![operator]).await;
}
