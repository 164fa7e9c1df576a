//! The reference plugins `bridge` and `host-local`, set up as their documentation has it, both families.
//!
//! Without masquerading and port mapping, which would cost it more than what is compared here. Other nodes are reached
//! by routes, as with any CNI that brings no overlay.

use std::{fs, path::Path as FilePath};

use kinesin_netlink::NetNs;
use serde_json::json;

use super::{MTU_BYTES, Pod, Pods, Stage, routing};
use crate::{
    BenchError,
    cni::{self, Network, Order},
};

const PREFIX: u8 = 246;
const PLUGINS: [&str; 2] = ["bridge", "host-local"];

/// Whether the plugins are there.
pub(super) fn check(dir: &FilePath) -> Result<(), BenchError> {
    let missing = PLUGINS.into_iter().find(|plugin| !dir.join(plugin).is_file());
    missing.map_or(Ok(()), |plugin| Err(BenchError::NoPlugin { plugin, dir: dir.to_owned() }))
}

/// The network on the first node, where ADD is measured.
pub(super) fn network(stage: &Stage, cni_dir: &FilePath) -> Result<Network, BenchError> {
    on_node(stage, cni_dir, 0, PREFIX)
}

/// The network of a node's pods; `prefix` tells contenders apart.
pub(super) fn on_node(stage: &Stage, cni_dir: &FilePath, index: u8, prefix: u8) -> Result<Network, BenchError> {
    let node = stage.node(usize::from(index))?;
    let bin_dir = node.dir().join("cni-bin");
    fs::create_dir_all(&bin_dir).map_err(BenchError::io(format!("make {}", bin_dir.display())))?;
    for plugin in PLUGINS {
        let (from, to) = (cni_dir.join(plugin), bin_dir.join(plugin));
        if !to.exists() {
            fs::copy(&from, &to).map_err(BenchError::io(format!("copy {} to {}", from.display(), to.display())))?;
        }
    }
    let ranges: Vec<_> =
        routing::pod_networks(prefix, index).iter().map(|network| json!([{"subnet": network.to_string()}])).collect();
    let conf = json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipMasq": false,
        "mtu": MTU_BYTES,
        "ipam": {
            "type": "host-local",
            "ranges": ranges,
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        },
    });
    Ok(Network { node, bin_dir, program: "bridge".to_owned(), conf })
}

pub(super) async fn pods(stage: &Stage, cni_dir: &FilePath) -> Result<Pods, BenchError> {
    let pods = attach([on_node(stage, cni_dir, 0, PREFIX)?, on_node(stage, cni_dir, 1, PREFIX)?], "br")?;
    routing::connect_nodes(stage, PREFIX).await?;
    Ok(pods)
}

/// Two pods on the first node and one on the second; `name` tells those of contenders apart.
pub(super) fn attach([first, second]: [Network; 2], name: &str) -> Result<Pods, BenchError> {
    let attach = |network: &Network, numbers: &[u8]| -> Result<Vec<Pod>, BenchError> {
        let pods: Vec<String> = numbers.iter().map(|number| format!("bench-{name}{number}")).collect();
        let outcome = cni::run(network, &Order { pods: pods.clone(), parallel: false, keep: true })?;
        let pod = |(name, addresses): (String, Vec<std::net::IpAddr>)| {
            let netns = NetNs::open(network.node.path(&format!("/run/netns/{name}"))?)?;
            Ok(Pod { netns: netns.into(), addresses })
        };
        pods.into_iter().zip(outcome.addresses).map(pod).collect()
    };
    let mut all = attach(&first, &[0, 1])?;
    all.extend(attach(&second, &[0])?);
    Pods::try_from(all).map_err(|pods| BenchError::Scene(format!("{} of 3 pods were attached", pods.len())))
}
