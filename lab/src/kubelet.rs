//! The kubelet stand-in as a node runs it.

use std::{collections::BTreeMap, path::PathBuf};

use kinesin_core::causes::with_causes;
use kinesin_kubelet::Config;
use tokio_util::sync::CancellationToken;

use crate::{
    plan::NodePlan,
    rootfs::{BUILD, CGROUP},
};

/// Runs the kubelet of a node; ends only with an error.
pub(crate) fn run(node: &NodePlan) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    runtime.block_on(kinesin_kubelet::run(config(node), CancellationToken::new())).map_err(|error| with_causes(&error))
}

fn config(node: &NodePlan) -> Config {
    let mut labels = BTreeMap::new();
    if node.control_plane {
        labels.insert("node-role.kubernetes.io/control-plane".to_owned(), String::new());
    }
    Config {
        node_name: node.name.clone(),
        internal_ips: node.addresses.iter().map(ipnet::IpNet::addr).collect(),
        api_server_url: node.api_url.clone(),
        cni_conf_dir: "/etc/cni/net.d".into(),
        cni_bin_dir: "/opt/cni/bin".into(),
        // In the directory that the control process sees too.
        socket: node.node_dir.join("kubelet.sock"),
        pods_dir: "/var/lib/kubelet".into(),
        log_dir: "/var/log/pods".into(),
        netns_dir: "/run/netns".into(),
        cgroup: Some(CGROUP.into()),
        // The files themselves: links would lead nowhere inside a container.
        bin_dir: BUILD.into(),
        labels,
        program: Some(PathBuf::from(BUILD).join("kinesin")),
    }
}
