//! The operator: it is started again for a changed configuration, and waited for.
//!
//! It follows a mounted ConfigMap by itself, but a kubelet may take more than a minute to bring the change. What its Pods
//! were started for is an annotation of their template, so that a migration that goes on does not start them again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::migrate::MANAGER;
use crate::cluster::OPERATOR;

/// Annotation of the template of the operator's Pods.
const STARTED_FOR: &str = "ipam.kinesin.io/config";
const LOOK: Duration = Duration::from_millis(200);

/// Starts the operator again unless it was started for this configuration, and waits until its Pods are ready; whether it
/// was started again.
pub(super) async fn roll_out(
    client: &Client,
    namespace: &str,
    config: &BTreeMap<String, String>,
    limit: Duration,
) -> anyhow::Result<bool> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = api.get(OPERATOR).await.context("cannot get the operator's Deployment")?;
    let wanted = fingerprint(config);
    let annotations = deployment.spec.template.metadata.and_then(|meta| meta.annotations);
    let restarts = annotations.and_then(|all| all.get(STARTED_FOR).cloned()).as_ref() != Some(&wanted);
    if restarts {
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {STARTED_FOR: wanted}}}}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(OPERATOR, &params, &Patch::Merge(patch)).await.context("cannot start the operator again")?;
    }
    let begun = Instant::now();
    loop {
        // A request that fails while the API server is busy is tried again like any look.
        let found = api.get(OPERATOR).await.ok();
        let state = found.as_ref().map_or_else(|| "the API server does not answer".to_owned(), state);
        if state.is_empty() {
            return Ok(restarts);
        }
        ensure!(
            begun.elapsed() < limit,
            "the operator is not ready after {} s: {state}; look at `kubectl -n {namespace} describe deployment \
             {OPERATOR}`, then run this again",
            limit.as_secs()
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// What is missing until every replica is of the present template and ready; empty if nothing is.
fn state(deployment: &Deployment) -> String {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    if wanted == 0 {
        return "it is scaled to 0 replicas; scale it up".to_owned();
    }
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        return "its change is not seen yet".to_owned();
    }
    let count = |number: Option<i32>| number.unwrap_or_default();
    let (updated, ready, all) = (count(status.updated_replicas), count(status.ready_replicas), count(status.replicas));
    if updated == wanted && ready == wanted && all == wanted {
        String::new()
    } else {
        format!("{updated} of {wanted} replicas are started anew, {ready} are ready, {all} are there")
    }
}

/// The keys that decide what nodes get, as one number (FNV-1a, 64 bits).
fn fingerprint(config: &BTreeMap<String, String>) -> String {
    let is_ours = |key: &str| {
        let backends = ["ipam", "backend.", "backends.ipam", "cluster-pool-", "auto-create-", "enable-ipv"];
        backends.iter().any(|start| key.starts_with(start))
    };
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (key, value) in config.iter().filter(|(key, _)| is_ours(key)) {
        for byte in key.bytes().chain([b'=']).chain(value.trim().bytes()).chain([b'\n']) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_started_for_what_it_reads_of_ipam_only() {
        let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let one = fingerprint(&map(&[("ipam", "kubernetes"), ("debug", "true")]));
        assert_eq!(one, fingerprint(&map(&[("ipam", "kubernetes\n"), ("debug", "false")])));
        assert_ne!(one, fingerprint(&map(&[("ipam", "multi-pool")])));
        assert_ne!(one, fingerprint(&map(&[("ipam", "kubernetes"), ("cluster-pool-ipv4-cidr", "10.0.0.0/8")])));
    }

    #[test]
    fn old_replicas_are_waited_for() {
        let deployment = |status: serde_json::Value| {
            let spec = json!({"replicas": 2, "selector": {}, "template": {}});
            let object = json!({"metadata": {"generation": 3}, "spec": spec, "status": status});
            serde_json::from_value::<Deployment>(object).expect("a deployment")
        };
        let counts = |generation: i64, replicas: i32| {
            deployment(json!({
                "observedGeneration": generation, "replicas": replicas, "updatedReplicas": 2, "readyReplicas": 2,
            }))
        };
        assert_eq!(state(&counts(3, 2)), "");
        assert!(state(&counts(2, 2)).contains("not seen"));
        assert!(state(&counts(3, 3)).contains("3 are there"));
    }
}
