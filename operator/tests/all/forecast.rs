//! What is foretold for a change of the mode, against what an operator then does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kinesin_cluster::{CiliumNode, CiliumPodIPPool};
use kinesin_core::{
    config::{Config, Sources},
    values::Family,
};
use kinesin_ipam_blocks::Mode;
use kinesin_operator::{
    IpamSettings,
    forecast::{self, Forecast, Needs, Wish},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::common::{Cluster, eventually};

fn settings(keys: &[(&str, &str)]) -> IpamSettings {
    let flags = keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let config = Config::load(&Sources { flags, ..Sources::default() }).expect("accepted");
    IpamSettings::of(&config).expect("usable")
}

fn wish(mode: Mode, needs: &[(&str, &str, u64)]) -> Wish {
    let mut of_nodes: BTreeMap<String, Needs> = BTreeMap::new();
    for (node, pool, count) in needs {
        of_nodes.entry((*node).to_owned()).or_default().insert(((*pool).to_owned(), Family::V4), *count);
    }
    Wish { mode, needs: of_nodes }
}

impl Cluster {
    /// A Node with its pod CIDR and address, and its CiliumNode in the mode `kubernetes`.
    async fn join_with_cidr(&self, name: &str, cidr: &str, address: &str) {
        let node: Node = from(json!({"metadata": {"name": name}, "spec": {"podCIDRs": [cidr], "podCIDR": cidr}}));
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.expect("a Node");
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
        let node: CiliumNode = from(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"name": name, "annotations": {"ipam.kinesin.io/mode": "kubernetes"}},
            "spec": {"ipam": {"podCIDRs": [cidr]}},
        }));
        let nodes: Api<CiliumNode> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.expect("a CiliumNode");
    }

    async fn foretell(&self, settings: &IpamSettings, wish: &Wish) -> Forecast {
        forecast::Cluster::read(self.client.clone()).await.expect("readable").forecast(settings, wish)
    }

    async fn blocks(&self, name: &str) -> Vec<String> {
        let nodes: Api<CiliumNode> = Api::all(self.client.clone());
        let node = serde_json::to_value(nodes.get(name).await.expect("a CiliumNode")).expect("JSON");
        let ipam = &node["spec"]["ipam"];
        let pools = ipam["pools"]["allocated"].as_array().into_iter().flatten().map(|entry| &entry["cidrs"]);
        let lists = pools.chain([&ipam["podCIDRs"]]);
        lists
            .flat_map(|list| list.as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    async fn three_nodes(&self) {
        self.install().await;
        for (name, number) in NAMES.into_iter().zip(0..) {
            self.join_with_cidr(name, &format!("10.244.{number}.0/24"), &format!("192.0.2.{number}")).await;
        }
    }
}

const NAMES: [&str; 3] = ["w1", "w2", "w3"];

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn fresh(forecast: &Forecast, node: &str) -> Vec<String> {
    forecast.nodes[node].fresh.iter().map(|block| block.cidr.to_string()).collect()
}

#[tokio::test]
async fn blocks_that_are_foretold_are_those_that_nodes_then_get() {
    let cluster = Cluster::new().await;
    cluster.three_nodes().await;
    let keys =
        [("ipam", "cluster-pool"), ("cluster-pool-ipv4-cidr", "10.9.0.0/24"), ("cluster-pool-ipv4-mask-size", "28")];
    let settings = settings(&keys);
    let foretold = cluster.foretell(&settings, &wish(Mode::ClusterPool, &[])).await;
    assert!(foretold.refused.is_empty() && foretold.on_nodes.is_empty() && foretold.overlaps.is_empty());
    for name in NAMES {
        assert_eq!(foretold.nodes[name].lacks, None);
        cluster.patch(name, json!({"metadata": {"annotations": {"ipam.kinesin.io/mode": "cluster-pool"}}})).await;
    }
    let operator = cluster.operator("one", "kube-system", settings).await;
    for name in NAMES {
        let expected = fresh(&foretold, name);
        assert_eq!(expected.len(), 1);
        eventually("the foretold block", async || cluster.blocks(name).await.contains(&expected[0])).await;
    }
    cluster.end(vec![operator]).await;
}

#[tokio::test]
async fn a_range_that_is_too_small_is_told_with_what_to_do() {
    let cluster = Cluster::new().await;
    cluster.three_nodes().await;
    let keys =
        [("ipam", "cluster-pool"), ("cluster-pool-ipv4-cidr", "10.9.0.0/27"), ("cluster-pool-ipv4-mask-size", "28")];
    let foretold = cluster.foretell(&settings(&keys), &wish(Mode::ClusterPool, &[])).await;
    let lacking: Vec<&String> = foretold.nodes.values().filter_map(|node| node.lacks.as_ref()).collect();
    assert_eq!(lacking.len(), 1, "two blocks for three nodes");
    assert!(lacking[0].contains("range is full") && lacking[0].contains("add a CIDR"), "{}", lacking[0]);
    cluster.end(vec![]).await;
}

#[tokio::test]
async fn nodes_grow_in_the_forecast_as_far_as_they_may() {
    let cluster = Cluster::new().await;
    cluster.three_nodes().await;
    let mut keys = vec![
        ("ipam", "cluster-pool"),
        ("cluster-pool-ipv4-cidr", "10.9.0.0/26"),
        ("cluster-pool-ipv4-mask-size", "28"),
    ];
    let wish = wish(Mode::ClusterPool, &[("w1", "", 20), ("w2", "", 5)]);
    let capacity = |foretold: &Forecast, node: &str| foretold.nodes[node].capacity[&(String::new(), Family::V4)];
    let foretold = cluster.foretell(&settings(&keys), &wish).await;
    assert_eq!((fresh(&foretold, "w1").len(), fresh(&foretold, "w2").len()), (2, 1));
    assert_eq!((capacity(&foretold, "w1"), capacity(&foretold, "w2")), (28, 14));
    keys.push(("backend.cluster_pool.grow", "false"));
    let foretold = cluster.foretell(&settings(&keys), &wish).await;
    assert_eq!(capacity(&foretold, "w1"), 14, "it keeps to one block");
    cluster.end(vec![]).await;
}

#[tokio::test]
async fn pools_that_are_missing_or_collide_are_told_and_those_to_be_made_count() {
    let cluster = Cluster::new().await;
    cluster.three_nodes().await;
    let wish = wish(Mode::MultiPool, &[("w1", "default", 8), ("w2", "other", 8)]);
    let foretold = cluster.foretell(&settings(&[("ipam", "multi-pool")]), &wish).await;
    assert!(foretold.nodes["w1"].lacks.as_ref().is_some_and(|lacks| lacks.contains("does not exist")));

    let pools: Api<CiliumPodIPPool> = Api::all(cluster.client.clone());
    let pool: CiliumPodIPPool = from(json!({
        "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool", "metadata": {"name": "other"},
        "spec": {"ipv4": {"cidrs": ["10.10.0.0/24"], "maskSize": 28}},
    }));
    pools.create(&PostParams::default(), &pool).await.expect("a pool");
    let auto = "default=ipv4-cidrs:10.11.0.0/24,10.10.0.0/28;ipv4-mask-size:28,other=ipv4-cidrs:10.12.0.0/24;ipv4-mask-size:28";
    let keys = [("ipam", "multi-pool"), ("auto-create-cilium-pod-ip-pools", auto)];
    let foretold = cluster.foretell(&settings(&keys), &wish).await;
    assert_eq!(fresh(&foretold, "w1"), ["10.11.0.0/28"]);
    assert_eq!(fresh(&foretold, "w2"), ["10.10.0.0/28"], "a pool that is there stays as it is");
    assert_eq!(foretold.kept_pools, ["other"]);
    let [refused] = &foretold.refused[..] else { panic!("one range collides: {:?}", foretold.refused) };
    assert!(refused.contains("10.10.0.0/28") && refused.contains("10.10.0.0/24"), "{refused}");
    cluster.end(vec![]).await;
}

#[tokio::test]
async fn ranges_of_nodes_and_blocks_of_others_are_told() {
    let cluster = Cluster::new().await;
    cluster.three_nodes().await;
    let keys = [
        ("ipam", "cluster-pool"),
        ("cluster-pool-ipv4-cidr", "192.0.2.0/24 10.244.0.0/16"),
        ("cluster-pool-ipv4-mask-size", "28"),
    ];
    let foretold = cluster.foretell(&settings(&keys), &wish(Mode::ClusterPool, &[])).await;
    let [on_nodes] = &foretold.on_nodes[..] else { panic!("one range: {:?}", foretold.on_nodes) };
    assert!(on_nodes.contains("192.0.2.0/24") && on_nodes.contains("node w1"), "{on_nodes}");
    assert!(foretold.overlaps.iter().any(|text| text.contains("pod CIDR of Node w1")), "{:?}", foretold.overlaps);
    for name in NAMES {
        let block: ipnet::IpNet = fresh(&foretold, name)[0].parse().expect("a CIDR");
        let taken: ipnet::IpNet = "10.244.0.0/22".parse().expect("a CIDR");
        assert!(!taken.contains(&block) || block.addr().to_string().starts_with("10.244.3."), "{block} is a Node's");
    }

    // Back to the Nodes' own ranges, of which somebody else has taken a part meanwhile.
    cluster.patch("w2", json!({"spec": {"ipam": {"podCIDRs": ["10.244.0.64/28"]}}})).await;
    let foretold = cluster.foretell(&settings(&[]), &wish(Mode::Kubernetes, &[])).await;
    let lacks = foretold.nodes["w1"].lacks.clone().expect("a collision");
    assert!(lacks.contains("10.244.0.0/24 collides with 10.244.0.64/28 of node w2"), "{lacks}");
    assert_eq!(foretold.nodes["w3"].lacks, None);
    cluster.end(vec![]).await;
}
