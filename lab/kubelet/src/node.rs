//! The Node object: registration, conditions, heartbeats.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::config::Config;
use crate::{KubeletError, cni};

/// The annotation by which the API server finds the kubelet of a node.
pub(crate) const SOCKET: &str = "lab.kinesin.io/kubelet-socket";
/// The Kubernetes version whose kubelet this one behaves like.
pub(crate) const VERSION: &str = "v1.32.0";

/// How often the network configuration is looked for; a real node notices by inotify.
const LOOK: Duration = Duration::from_millis(500);
/// How often the lease is renewed, as kubelet does.
const RENEW: Duration = Duration::from_secs(10);
/// How often an unchanged status is written again, as kubelet does.
const REPORT: Duration = Duration::from_secs(300);

/// Makes the Node, or brings an existing one up to date.
pub(crate) async fn register(client: &Client, config: &Config) -> Result<(), KubeletError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut labels = json!({
        "kubernetes.io/hostname": config.node_name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch(),
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": arch(),
    });
    for (key, value) in &config.labels {
        labels[key] = value.as_str().into();
    }
    let metadata = json!({"name": config.node_name, "labels": labels,
        "annotations": {SOCKET: config.socket, "volumes.kubernetes.io/controller-managed-attach-detach": "true"}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {}});
    let made = nodes.create(&PostParams::default(), &parse(&node)).await;
    match made {
        Ok(_) => {}
        Err(kube::Error::Api(refused)) if refused.code == 409 => {
            let patch = Patch::Merge(json!({"metadata": metadata}));
            nodes
                .patch(&config.node_name, &PatchParams::default(), &patch)
                .await
                .map_err(KubeletError::api("update the Node"))?;
        }
        Err(error) => return Err(KubeletError::api("register the Node")(error)),
    }
    Ok(())
}

fn parse(node: &Value) -> Node {
    serde_json::from_value(node.clone()).unwrap_or_default()
}

/// Keeps status and lease of the node up to date, for ever.
pub(crate) async fn keep(client: Client, config: Config) {
    let mut written: Option<(Value, std::time::Instant)> = None;
    let mut renewed: Option<std::time::Instant> = None;
    let mut since = Timestamp::now();
    let mut was_ready = None;
    loop {
        let ready = cni::find_conf(&config.cni_conf_dir).is_ok();
        if was_ready.replace(ready) != Some(ready) {
            since = Timestamp::now();
        }
        let status = status(&config, ready, since);
        let is_due = written.as_ref().is_none_or(|(last, at)| *last != status || at.elapsed() >= REPORT);
        if is_due {
            match write_status(&client, &config, &status).await {
                Ok(()) => written = Some((status, std::time::Instant::now())),
                Err(error) => {
                    tracing::warn!(%error, "the node's status was not written");
                    // A Node that somebody deleted is made again.
                    if let Err(error) = register(&client, &config).await {
                        tracing::warn!(%error, "the node was not registered");
                    }
                }
            }
        }
        if renewed.is_none_or(|at| at.elapsed() >= RENEW) {
            match renew(&client, &config.node_name).await {
                Ok(()) => renewed = Some(std::time::Instant::now()),
                Err(error) => tracing::debug!(%error, "the node's lease was not renewed"),
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn write_status(client: &Client, config: &Config, status: &Value) -> Result<(), KubeletError> {
    let nodes: Api<Node> = Api::all(client.clone());
    let now = stamp(Timestamp::now());
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = now.clone().into();
    }
    // Strategic merge keeps the conditions of others, such as NetworkUnavailable.
    let patch = Patch::Strategic(json!({"status": status}));
    nodes
        .patch_status(&config.node_name, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .map_err(KubeletError::api("write the Node's status"))
}

async fn renew(client: &Client, node: &str) -> Result<(), KubeletError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    let spec = json!({"holderIdentity": node, "leaseDurationSeconds": 40, "renewTime": now});
    let patched = leases.patch(node, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
    match patched {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refused)) if refused.code == 404 => {
            let lease = json!({"metadata": {"name": node, "namespace": "kube-node-lease"}, "spec": spec});
            let lease: Lease = serde_json::from_value(lease).unwrap_or_default();
            leases.create(&PostParams::default(), &lease).await.map(drop).map_err(KubeletError::api("make the Lease"))
        }
        Err(error) => Err(KubeletError::api("renew the Lease")(error)),
    }
}

fn status(config: &Config, is_network_ready: bool, since: Timestamp) -> Value {
    let mut addresses: Vec<Value> =
        config.internal_ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": config.node_name}));
    let resources = json!({"cpu": cpus().to_string(), "memory": format!("{}Ki", memory_kib()), "pods": "110",
        "ephemeral-storage": "10Gi", "hugepages-1Gi": "0", "hugepages-2Mi": "0"});
    let mut conditions: Vec<Value> = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ]
    .into_iter()
    .map(|(kind, reason, message)| condition(kind, "False", reason, message, since))
    .collect();
    conditions.push(if is_network_ready {
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", since)
    } else {
        condition(
            "Ready",
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
            since,
        )
    });
    json!({
        "addresses": addresses, "capacity": resources, "allocatable": resources, "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": read("/etc/machine-id"), "systemUUID": read("/etc/machine-id"),
            "bootID": read("/proc/sys/kernel/random/boot_id"), "kernelVersion": read("/proc/sys/kernel/osrelease"),
            "osImage": os_image(), "containerRuntimeVersion": concat!("containerd://lab-", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": VERSION, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": arch(),
        },
    })
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, since: Timestamp) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp(since)})
}

/// A time as Kubernetes writes it in most fields: whole seconds.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

pub(crate) fn memory_kib() -> u64 {
    let text = read("/proc/meminfo");
    text.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

fn os_image() -> String {
    let text = read("/etc/os-release");
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
