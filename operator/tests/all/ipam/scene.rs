//! What a test does to the cluster, and what it looks at.

use std::{collections::BTreeSet, fs, path::Path};

use ipnet::IpNet;
use kinesin_cluster::{CiliumNode, CiliumPodIPPool, PodCIDRClaims};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::common::Cluster;

/// Writes keys of the ConfigMap.
pub(crate) fn write(directory: &Path, keys: &[(&str, &str)]) {
    for (key, value) in keys {
        fs::write(directory.join(key), value).expect("a key");
    }
}

impl Cluster {
    pub(crate) fn nodes(&self) -> Api<CiliumNode> {
        Api::all(self.client.clone())
    }

    /// A CiliumNode as its agent makes it.
    pub(crate) async fn join(&self, name: &str, mode: &str, ipam: Value) {
        let node = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"name": name, "annotations": {"ipam.kinesin.io/mode": mode}},
            "spec": {"ipam": ipam},
        });
        let node = serde_json::from_value(node).expect("a CiliumNode");
        self.nodes().create(&PostParams::default(), &node).await.expect("created");
    }

    pub(crate) async fn node(&self, name: &str) -> Value {
        serde_json::to_value(self.nodes().get(name).await.expect("a CiliumNode")).expect("JSON")
    }

    /// What an agent writes; again if the operator wrote in between.
    pub(crate) async fn patch(&self, name: &str, patch: Value) {
        self.nodes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
    }

    pub(crate) async fn patch_status(&self, name: &str, patch: Value) {
        self.nodes().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
    }

    pub(crate) async fn pod_cidrs(&self, name: &str) -> Vec<String> {
        texts(&self.node(name).await["spec"]["ipam"]["podCIDRs"])
    }

    pub(crate) async fn allocated(&self, name: &str, pool: &str) -> Vec<String> {
        let node = self.node(name).await;
        let pools = node["spec"]["ipam"]["pools"]["allocated"].as_array().cloned().unwrap_or_default();
        pools.iter().find(|entry| entry["pool"] == pool).map(|entry| texts(&entry["cidrs"])).unwrap_or_default()
    }

    pub(crate) async fn operator_error(&self, name: &str) -> String {
        let node = self.node(name).await;
        node["status"]["ipam"]["operator-status"]["error"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) async fn condition(&self, name: &str) -> Value {
        let node = self.node(name).await;
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "PodAddresses").unwrap_or_default()
    }

    pub(crate) async fn request(&self, name: &str, pool: &str, addresses: u32) {
        let requested = json!([{"pool": pool, "needed": {"ipv4-addrs": addresses}}]);
        self.patch(name, json!({"spec": {"ipam": {"pools": {"requested": requested}}}})).await;
    }

    pub(crate) async fn pool(&self, name: &str, cidrs: &[&str], mask: u8) {
        let api: Api<CiliumPodIPPool> = Api::all(self.client.clone());
        let pool = json!({
            "apiVersion": "cilium.io/v2alpha1", "kind": "CiliumPodIPPool", "metadata": {"name": name},
            "spec": {"ipv4": {"cidrs": cidrs, "maskSize": mask}},
        });
        let pool = serde_json::from_value(pool).expect("a pool");
        api.create(&PostParams::default(), &pool).await.expect("created");
    }

    pub(crate) async fn pool_condition(&self, name: &str) -> Value {
        let api: Api<CiliumPodIPPool> = Api::all(self.client.clone());
        let pool = serde_json::to_value(api.get(name).await.expect("a pool")).expect("JSON");
        pool["status"]["conditions"][0].clone()
    }

    /// Every block that is listed; two that have an address in common fail the test.
    pub(crate) async fn listed(&self) -> Vec<IpNet> {
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

    pub(crate) async fn claimed(&self) -> BTreeSet<String> {
        let api: Api<PodCIDRClaims> = Api::all(self.client.clone());
        // Not there before the operator has installed the definition.
        let list = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
        list.into_iter().flat_map(|object| object.spec.claims).flat_map(|claims| claims.cidrs).collect()
    }
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
