//! Blocks for nodes: operators against an API server in this process. Agents are played by hand.

mod common;

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use common::{Cluster, eventually};
use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinesin_cluster::{CiliumNode, CiliumPodIPPool, PodCIDRClaims, crds};
use kinesin_operator::IpamSettings;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

fn write(directory: &Path, keys: &[(&str, &str)]) {
    for (key, value) in keys {
        fs::write(directory.join(key), value).expect("a key");
    }
}

impl Cluster {
    fn nodes(&self) -> Api<CiliumNode> {
        Api::all(self.client.clone())
    }

    /// A CiliumNode as its agent makes it.
    async fn join(&self, name: &str, mode: &str, ipam: Value) {
        let node = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"name": name, "annotations": {"ipam.kinesin.io/mode": mode}},
            "spec": {"ipam": ipam},
        });
        let node = serde_json::from_value(node).expect("a CiliumNode");
        self.nodes().create(&PostParams::default(), &node).await.expect("created");
    }

    async fn node(&self, name: &str) -> Value {
        serde_json::to_value(self.nodes().get(name).await.expect("a CiliumNode")).expect("JSON")
    }

    /// What an agent writes; again if the operator wrote in between.
    async fn patch(&self, name: &str, patch: Value) {
        self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
    }

    async fn patch_status(&self, name: &str, patch: Value) {
        self.nodes().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
    }

    async fn pod_cidrs(&self, name: &str) -> Vec<String> {
        texts(&self.node(name).await["spec"]["ipam"]["podCIDRs"])
    }

    async fn allocated(&self, name: &str, pool: &str) -> Vec<String> {
        let node = self.node(name).await;
        let pools = node["spec"]["ipam"]["pools"]["allocated"].as_array().cloned().unwrap_or_default();
        pools.iter().find(|entry| entry["pool"] == pool).map(|entry| texts(&entry["cidrs"])).unwrap_or_default()
    }

    async fn operator_error(&self, name: &str) -> String {
        let node = self.node(name).await;
        node["status"]["ipam"]["operator-status"]["error"].as_str().unwrap_or_default().to_owned()
    }

    async fn condition(&self, name: &str) -> Value {
        let node = self.node(name).await;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "PodAddresses").unwrap_or_default()
    }

    async fn request(&self, name: &str, pool: &str, addresses: u32) {
        let requested = json!([{"pool": pool, "needed": {"ipv4-addrs": addresses}}]);
        self.patch(name, json!({"spec": {"ipam": {"pools": {"requested": requested}}}})).await;
    }

    async fn pool(&self, name: &str, cidrs: &[&str], mask: u8) {
        let api: Api<CiliumPodIPPool> = Api::all(self.client.clone());
        let pool = json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool", "metadata": {"name": name},
            "spec": {"ipv4": {"cidrs": cidrs, "maskSize": mask}},
        });
        let pool = serde_json::from_value(pool).expect("a pool");
        api.create(&PostParams::default(), &pool).await.expect("created");
    }

    async fn pool_condition(&self, name: &str) -> Value {
        let api: Api<CiliumPodIPPool> = Api::all(self.client.clone());
        let pool = serde_json::to_value(api.get(name).await.expect("a pool")).expect("JSON");
        pool["status"]["conditions"][0].clone()
    }

    /// Every block that is listed; two that have an address in common fail the test.
    async fn listed(&self) -> Vec<IpNet> {
        let mut all: Vec<(IpNet, String)> = Vec::new();
        for node in self.nodes().list(&ListParams::default()).await.expect("a list") {
            let name = node.metadata.name.clone().unwrap_or_default();
            let ipam = serde_json::to_value(&node).expect("JSON")["spec"]["ipam"].clone();
            let pools = ipam["pools"]["allocated"].as_array().cloned().unwrap_or_default();
            let of_pools = pools.iter().flat_map(|entry| texts(&entry["cidrs"]));
            for text in texts(&ipam["podCIDRs"]).into_iter().chain(of_pools) {
                let block: IpNet = text.parse().expect("a CIDR");
                for (other, holder) in &all {
                    let clash = other.contains(&block) || block.contains(other);
                    assert!(!clash, "{block} of {name} and {other} of {holder}");
                }
                all.push((block, name.clone()));
            }
        }
        all.into_iter().map(|(block, _)| block).collect()
    }

    async fn claimed(&self) -> BTreeSet<String> {
        let api: Api<PodCIDRClaims> = Api::all(self.client.clone());
        // Not there before the operator has installed the definition.
        let list = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        list.into_iter().flat_map(|object| object.spec.claims).flat_map(|claims| claims.cidrs).collect()
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_definitions_are_upgraded_without_loss() {
    let cluster = Cluster::new().await;
    let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    for mut crd in crds() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        if name.ends_with(".kinesin.io") {
            continue;
        }
        crd.metadata
            .labels
            .get_or_insert_default()
            .insert("io.cilium.k8s.crd.schema.version".to_owned(), "1.30.6".to_owned());
        // As Cilium 1.17 has it: no conditions.
        let mut raw = serde_json::to_value(&crd).expect("JSON");
        if let Some(schema) =
            raw["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
                .as_object_mut()
        {
            schema.remove("conditions");
        }
        let crd = serde_json::from_value(raw).expect("a definition");
        api.create(&PostParams::default(), &crd).await.expect("created");
    }
    eventually("definition", async || cluster.nodes().list(&ListParams::default()).await.is_ok()).await;
    cluster.join("w1", "cluster-pool", json!({"podCIDRs": ["10.0.7.0/24"]})).await;
    let mut ipam = IpamSettings::default();
    ipam.cluster_pool = common::cluster_pool("10.0.0.0/16", 24);
    let operator = cluster.operator("one", "kube-system", ipam).await;
    eventually("claim of what is there", async || cluster.claimed().await.contains("10.0.7.0/24")).await;
    assert_eq!(cluster.pod_cidrs("w1").await, ["10.0.7.0/24"]);
    cluster.end(vec![operator]).await;
}

#[test]
fn pools_that_cannot_be_parsed_end_the_operator_with_key_and_position() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:280";
    write(directory.path(), &[("ipam", "multi-pool"), ("auto-create-cilium-pod-ip-pools", text)]);
    let output = Command::new(env!("CARGO_BIN_EXE_kinesin-operator"))
        .arg("--k8s-api-server=http://127.0.0.1:1")
        .arg(format!("--config-dir={}", directory.path().display()))
        .output()
        .expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(log.contains("auto-create-cilium-pod-ip-pools: position 34: \"280\" of pool \"default\""), "{log}");
}
