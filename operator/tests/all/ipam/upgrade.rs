//! What an operator starts with: older definitions, a configuration that is wrong.

use std::process::Command;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kinesin_cluster::crds;
use kinesin_operator::IpamSettings;
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use serde_json::json;

use crate::{
    common::{self, Cluster, eventually},
    ipam::scene::write,
};

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
