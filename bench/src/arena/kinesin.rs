//! Pods as a user gets them: made through the API, attached by the real plugin and agent.

use std::{
    collections::BTreeSet,
    fs,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod as ApiPod;
use kinesin_agent_api::{Client, types::StatusResponse};
use kinesin_lab::{Node, Progress, apply};
use kinesin_netlink::{NetNs, Netlink};
use kube::Api;
use serde_json::{Value, json};

use super::{Pod, Pods, Stage};
use crate::{BenchError, case::Contender, cni::Network};

/// How long pods may take to run; on an idle machine it is below two seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 3] = ["bench-client", "bench-near", "bench-far"];

/// What is laid over the lab's values; all of them say it themselves, whatever the default is.
pub(super) const fn values(ours: Contender) -> &'static str {
    match ours {
        Contender::KinesinVxlan => "routingMode: tunnel\ntunnelProtocol: vxlan\n",
        Contender::KinesinVxlanDevice => "routingMode: tunnel\ntunnelProtocol: vxlan\ntunnel: {path: device}\n",
        Contender::KinesinGeneve => "routingMode: tunnel\ntunnelProtocol: geneve\n",
        _ => "routingMode: native\nautoDirectNodeRoutes: true\n",
    }
}

/// Whether the agents do what the contender is named after: a figure of something else would be worse than none.
pub(super) async fn check(stage: &Stage, ours: Contender) -> Result<(), BenchError> {
    let wanted = match ours {
        Contender::KinesinVxlan | Contender::KinesinVxlanDevice => "Tunnel [vxlan]",
        Contender::KinesinGeneve => "Tunnel [geneve]",
        _ => "Native",
    };
    let path = if ours == Contender::KinesinVxlanDevice { "device" } else { "bpf" };
    for node in stage.lab.nodes() {
        let client = Client::new(node.path("/run/cilium/cilium.sock")?).with_timeout(Duration::from_secs(5));
        let routing = client.get::<StatusResponse>("/healthz").await?.routing;
        let said = |found: &str, wanted: &str| {
            let node = node.name();
            BenchError::Scene(format!("the agent of node {node:?} says {found:?} instead of {wanted:?}"))
        };
        if routing.network != wanted {
            return Err(said(&routing.network, wanted));
        }
        if let Some(other) = routing.tunnel_paths.iter().find(|found| found.path != path) {
            return Err(said(&format!("{} by {}", other.carrier, other.path), path));
        }
    }
    Ok(())
}

/// The network of the first node, as its agent has described it to the runtime.
pub(super) fn network(stage: &Stage) -> Result<Network, BenchError> {
    let node = stage.node(0)?;
    let dir = node.path("/etc/cni/net.d")?;
    let entries = fs::read_dir(&dir).map_err(BenchError::io(format!("list {}", dir.display())))?;
    let lists = entries.flatten().map(|entry| entry.path());
    let list = lists.filter(|path| path.extension().is_some_and(|end| end == "conflist")).min();
    let list = list.ok_or_else(|| BenchError::Scene(format!("the agent wrote no conflist to {}", dir.display())))?;
    let text = fs::read_to_string(&list).map_err(BenchError::io(format!("read {}", list.display())))?;
    let broken = || BenchError::Scene(format!("{} names no plugin: {text}", list.display()));
    let parsed: Value = serde_json::from_str(&text).map_err(|_| broken())?;
    // As libcni: a plugin's own part, with name and version of the list.
    let mut conf = parsed["plugins"][0].clone();
    let program = conf["type"].as_str().ok_or_else(broken)?.to_owned();
    conf["name"] = parsed["name"].clone();
    conf["cniVersion"] = parsed["cniVersion"].clone();
    Ok(Network { node, bin_dir: "/opt/cni/bin".into(), program, conf })
}

pub(super) async fn pods(stage: &Stage, progress: &dyn Progress) -> Result<Pods, BenchError> {
    let (first, second) = (stage.node(0)?, stage.node(1)?);
    let nodes = [&first, &first, &second];
    let manifest = |(name, node): (&str, &&Node)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": node.name(),
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "pause", "image": "pause"}],
            },
        })
    };
    let client = stage.lab.client()?;
    apply(&client, "the pods of the benchmark", NAMES.into_iter().zip(&nodes).map(manifest).collect()).await?;
    let api: Api<ApiPod> = Api::namespaced(client, "default");
    let mut pods = Vec::new();
    for (name, node) in NAMES.into_iter().zip(nodes) {
        progress.state(name);
        let addresses = wait_for(&api, name).await?;
        pods.push(Pod { netns: netns_with(node, &addresses).await?, addresses });
    }
    Pods::try_from(pods).map_err(|pods| BenchError::Scene(format!("{} of 3 pods run", pods.len())))
}

async fn wait_for(api: &Api<ApiPod>, name: &str) -> Result<Vec<IpAddr>, BenchError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let pod = api.get(name).await.map_err(|error| BenchError::Scene(format!("cannot see pod {name}: {error}")))?;
        let status = pod.status.unwrap_or_default();
        let ips = status.pod_ips.unwrap_or_default();
        let addresses: Vec<IpAddr> = ips.into_iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        if status.phase.as_deref() == Some("Running") && !addresses.is_empty() {
            return Ok(addresses);
        }
        if Instant::now() >= until {
            let phase = status.phase.unwrap_or_default();
            return Err(BenchError::Scene(format!("pod {name} does not run within {} s: {phase}", PATIENCE.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The named namespace of a node that has these addresses.
async fn netns_with(node: &Node, addresses: &[IpAddr]) -> Result<Arc<NetNs>, BenchError> {
    let dir = node.path("/run/netns")?;
    let entries = fs::read_dir(&dir).map_err(BenchError::io(format!("list {}", dir.display())))?;
    for entry in entries.flatten() {
        // One that is just being removed is nobody's any more.
        let Ok(netns) = NetNs::open(entry.path()) else { continue };
        let found: BTreeSet<IpAddr> =
            Netlink::in_netns(&netns)?.addresses().await?.into_iter().map(|(_, net)| net.addr()).collect();
        if addresses.iter().all(|address| found.contains(address)) {
            return Ok(netns.into());
        }
    }
    Err(BenchError::Scene(format!("no namespace of node {:?} has {addresses:?}", node.name())))
}
