//! What a cluster says of its addresses: blocks of nodes, what agents have leased, and what a pod without one is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use kinesin_agent_api::types::StatusResponse;
use serde_json::Value;

use crate::cluster::{
    context::Context,
    place::{Place, every_protocol, failures},
    verdict::{Judged, Stop, told},
    workload::Started,
};

/// Pool of pods that name none.
pub(super) const DEFAULT: &str = "default";
/// Label of nodes that no workload goes to, as kubeadm sets it.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// The blocks that a CiliumNode lists, by pool; where a mode has no pools, all are of the default one.
pub(super) fn blocks(context: &Context<'_>, node: &str) -> Result<BTreeMap<String, Vec<IpNet>>, Stop> {
    let object = context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", node)?;
    let ipam = &object["spec"]["ipam"];
    let mut blocks: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    let mut add = |pool: &str, list: &Value| {
        for text in list.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let block = text.parse().map_err(|_| Stop::broken(format!("CiliumNode {node} lists {text:?}")))?;
            blocks.entry(pool.to_owned()).or_default().push(block);
        }
        Ok::<(), Stop>(())
    };
    add(DEFAULT, &ipam["podCIDRs"])?;
    for entry in ipam["pools"]["allocated"].as_array().into_iter().flatten() {
        add(entry["pool"].as_str().unwrap_or_default(), &entry["cidrs"])?;
    }
    Ok(blocks)
}

/// Blocks of a node in no particular pool.
pub(super) fn all_blocks(context: &Context<'_>, node: &str) -> Result<Vec<IpNet>, Stop> {
    Ok(blocks(context, node)?.into_values().flatten().collect())
}

/// The pod CIDRs that Kubernetes gave to a Node.
pub(super) fn node_cidrs(context: &Context<'_>, node: &str) -> Result<Vec<IpNet>, Stop> {
    let object = context.read("v1", "Node", "nodes", node)?;
    let list = object["spec"]["podCIDRs"].as_array().into_iter().flatten();
    Ok(list.filter_map(Value::as_str).filter_map(|text| text.parse().ok()).collect())
}

/// No address is given twice, and each lies in a block that its node lists for this pool.
pub(super) fn lie_in_blocks(context: &Context<'_>, pods: &[Started], pool: &str) -> Result<(), Stop> {
    let mut seen = BTreeSet::new();
    let mut of_nodes: BTreeMap<&str, Vec<IpNet>> = BTreeMap::new();
    for pod in pods {
        if !of_nodes.contains_key(pod.node.as_str()) {
            of_nodes.insert(&pod.node, blocks(context, &pod.node)?.remove(pool).unwrap_or_default());
        }
        let blocks = &of_nodes[pod.node.as_str()];
        if pod.ips.len() != context.families().len() {
            return Err(Stop::broken(format!("{pod} has not one address of each family")));
        }
        for ip in &pod.ips {
            if !blocks.iter().any(|block| block.contains(ip)) {
                return Err(Stop::broken(format!("{pod}: {ip} is in no block of pool {pool:?} there: {blocks:?}")));
            }
            if !seen.insert(*ip) {
                return Err(Stop::broken(format!("{pod}: {ip} belongs to another pod as well")));
            }
        }
    }
    Ok(())
}

/// Some places ask each other everything.
pub(super) fn reach_each_other(context: &Context<'_>, places: &[Place]) -> Judged {
    let mut questions = Vec::new();
    for from in places {
        for to in places.iter().filter(|to| !std::ptr::eq(*to, from)) {
            for is_ipv4 in context.families() {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
            }
        }
    }
    told(&failures(&questions)?, questions.len())
}

/// What an agent says of itself.
pub(super) fn status(context: &Context<'_>, node: &str) -> Result<StatusResponse, Stop> {
    let text = context.target.ask_agent(node, &["cilium-dbg", "status", "-o", "json"])?;
    serde_json::from_str(&text).map_err(|error| Stop::target(&error))
}

/// Addresses that a node's agent has leased, its own included.
pub(super) fn leased(context: &Context<'_>, node: &str) -> Result<usize, Stop> {
    Ok(status(context, node)?.ipam.allocations.len())
}

/// Whether a line of `cilium-dbg status` is there, with runs of spaces as one and without those at its end.
pub(super) fn says(text: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().any(|found| plain(found) == plain(line))
}

/// Keeps pods without a toleration off the control plane, as kubeadm does; its node is the first.
pub(super) fn taint_control_plane(context: &Context<'_>) -> Result<Vec<String>, Stop> {
    use k8s_openapi::api::core::v1::Node;
    use kube::{
        Api,
        api::{Patch, PatchParams},
    };
    let names: Vec<String> = context.target.nodes().into_iter().map(|node| node.name).collect();
    let Some((first, workers)) = names.split_first() else { return Err(Stop::broken("there are no nodes")) };
    let taint = serde_json::json!({"spec": {"taints": [{"key": CONTROL_PLANE, "effect": "NoSchedule"}]}});
    let nodes: Api<Node> = Api::all(context.target.client().clone());
    let patched = context.target.runtime().block_on(nodes.patch(first, &PatchParams::default(), &Patch::Merge(taint)));
    patched.map_err(|error| Stop::target(&error))?;
    Ok(workers.to_vec())
}

/// Until a pod has an event that contains all of these words; the answer is its message.
pub(super) fn event_with(context: &Context<'_>, pod: &str, words: &[&str]) -> Result<String, Stop> {
    context.until(&format!("an event of {pod} that says {words:?}"), || {
        let events = context.events(pod)?;
        let found = events.iter().find(|message| words.iter().all(|word| message.contains(word)));
        Ok(found.cloned().ok_or_else(|| events.join("; ")))
    })
}

/// Exactly so many pods run now and the others do not; for a look after a refusal, since pods that are on their way pass
/// every number.
pub(super) fn still_waits(context: &Context<'_>, app: &str, ready: usize) -> Result<(), Stop> {
    let count = context.pods_of(app)?.iter().filter(|pod| pod.is_ready).count();
    if count == ready { Ok(()) } else { Err(Stop::broken(format!("{count} pods of {app} run, not {ready}"))) }
}

/// Addresses of all pods.
pub(super) fn ips(pods: &[Started]) -> BTreeSet<IpAddr> {
    pods.iter().flat_map(|pod| pod.ips.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whatever_their_spaces() {
        let text = "KVStore:  Disabled\nIPAM:                    IPv4: 3/6 allocated from 172.20.42.0/29, \n";
        assert!(says(text, "IPAM: IPv4: 3/6 allocated from 172.20.42.0/29,"));
        assert!(!says(text, "IPAM: IPv4: 3/6 allocated from 172.20.42.0/2"));
    }
}
