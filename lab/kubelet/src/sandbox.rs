//! The sandbox of a pod: its network namespace, and the plugins that connect it.

use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use kinesin_netlink::{NetNs, Netlink};
use serde_json::{Value, json};

use crate::container::is_host_network;
use crate::kubelet::Node;
use crate::record::{PodRecord, Sandbox};
use crate::{KubeletError, cni, files};

/// 64 hexadecimal digits, as container runtimes name things.
pub(crate) fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// Makes the sandbox of a pod. The record is saved before anything is made, so that nothing is ever left unknown.
///
/// # Errors
/// What failed, in containerd's words; everything has been undone as far as it went.
pub(crate) async fn create(node: &Node, record: &mut PodRecord) -> Result<(), KubeletError> {
    let config = &node.config;
    if let Some(cgroup) = &config.cgroup {
        files::make_dir(&cgroup.join(format!("pod{}", record.uid())))?;
    }
    let id = new_id();
    if is_host_network(&record.pod) {
        let ips = config.host_ips();
        record.sandbox = Some(Sandbox { id, netns: None, network: None, is_ready: true, ips });
        return record.save(&config.pods_dir);
    }
    let conf = cni::find_conf(&config.cni_conf_dir);
    let conf = conf.map_err(|why| KubeletError::Cni(format!("failed to setup network for sandbox {id:?}: {why}")))?;
    let netns = config.netns_dir.join(format!("cni-{}", uuid::Uuid::new_v4()));
    let network = Some(cni::Attachment { conf: conf.clone(), result: None });
    record.sandbox =
        Some(Sandbox { id: id.clone(), netns: Some(netns.clone()), network, is_ready: false, ips: Vec::new() });
    record.save(&config.pods_dir)?;
    let made = connect(node, record, &conf, &netns).await;
    match made {
        Ok(result) => {
            if let Some(sandbox) = &mut record.sandbox {
                sandbox.ips = cni::addresses(&result);
                sandbox.network = Some(cni::Attachment { conf, result: Some(result) });
                sandbox.is_ready = true;
            }
            record.save(&config.pods_dir)
        }
        Err(why) => {
            if let Err(error) = remove(node, record).await {
                tracing::debug!(%error, pod = record.name(), "a failed sandbox was not undone at once");
            }
            Err(KubeletError::Cni(format!("failed to setup network for sandbox {id:?}: {why}")))
        }
    }
}

async fn connect(node: &Node, record: &PodRecord, conf: &cni::ConfList, netns: &Path) -> Result<Value, KubeletError> {
    files::make_dir(&node.config.netns_dir)?;
    let namespace = NetNs::create(netns)?;
    // Runtimes do this by the loopback plugin.
    let handle = Netlink::in_netns(&namespace)?;
    let loopback = handle.link("lo").await?;
    handle.set_up(loopback.index).await?;
    let Some(sandbox) = &record.sandbox else { return Err(KubeletError::Cni("the sandbox is gone".to_owned())) };
    cni::add(conf, &node.config.cni_bin_dir, &call_of(record, &sandbox.id, Some(netns))).await
}

fn call_of<'a>(record: &'a PodRecord, id: &'a str, netns: Option<&'a Path>) -> cni::Sandbox<'a> {
    cni::Sandbox {
        id,
        netns,
        namespace: record.namespace(),
        name: record.name(),
        uid: record.uid(),
        port_mappings: port_mappings(&record.pod),
    }
}

fn port_mappings(pod: &Pod) -> Vec<Value> {
    let ports = pod.spec.iter().flat_map(|s| &s.containers).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let host_port = port.host_port.filter(|p| *p > 0)?;
            Some(json!({"hostPort": host_port, "containerPort": port.container_port,
                "protocol": port.protocol.as_deref().unwrap_or("TCP").to_lowercase(), "hostIP": port.host_ip.as_deref().unwrap_or_default()}))
        })
        .collect()
}

/// Whether the namespace is still there; a node that was rebooted has lost it.
pub(crate) fn is_intact(sandbox: &Sandbox) -> bool {
    sandbox.is_ready && sandbox.netns.as_ref().is_none_or(|path| NetNs::open(path).is_ok())
}

/// Takes a sandbox away: DEL with its namespace, the namespace, and DEL once more without one, as containerd does.
///
/// # Errors
/// The first failure; the record still has the sandbox then, and the whole is to be tried again.
pub(crate) async fn remove(node: &Node, record: &mut PodRecord) -> Result<(), KubeletError> {
    let config = &node.config;
    let Some(sandbox) = record.sandbox.clone() else { return Ok(()) };
    if let (Some(netns), Some(network)) = (&sandbox.netns, &sandbox.network) {
        if netns.exists() {
            cni::del(network, &config.cni_bin_dir, &call_of(record, &sandbox.id, Some(netns))).await?;
            NetNs::remove(netns)?;
        }
        cni::del(network, &config.cni_bin_dir, &call_of(record, &sandbox.id, None)).await?;
    }
    record.sandbox = None;
    record.save(&config.pods_dir)
}

/// Removes namespaces that no pod has; their pods' records are lost, so nobody knows what to DEL.
pub(crate) fn remove_unknown<'a>(netns_dir: &Path, known: impl Iterator<Item = &'a PodRecord>) {
    let known: Vec<&Path> = known.filter_map(|r| r.sandbox.as_ref()?.netns.as_deref()).collect();
    for entry in std::fs::read_dir(netns_dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with("cni-") && !known.contains(&path.as_path()) {
            match NetNs::remove(&path) {
                Ok(()) => tracing::info!(?path, "a network namespace without a pod was removed"),
                Err(error) => tracing::warn!(%error, "a network namespace without a pod stays"),
            }
        }
    }
}
