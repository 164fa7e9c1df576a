//! Addresses from blocks that the operator gives to nodes (sections 2.2 and 2.4 of the walk-through).

use std::collections::BTreeSet;

use ipnet::IpNet;
use kinesin_lab::Families;

use super::addresses::{
    DEFAULT, all_blocks, event_with, leased, lie_in_blocks, node_cidrs, reach_each_other, says, still_waits,
    taint_control_plane,
};
use crate::cluster::{
    context::Context,
    own::OwnLab,
    verdict::{Judged, Stop},
};

/// The walk-through's values, and that nodes keep to one block, as they do there. Blocks are given back soon, so that
/// nobody waits for it.
pub(in crate::cluster) const LAB: OwnLab = OwnLab {
    name: "two_ranges",
    ipam: "cluster_pool",
    nodes: 3,
    segments: 1,
    families: Families::Ipv4,
    values: "
ipam:
  mode: cluster-pool
  operator:
    clusterPoolIPv4MaskSize: 29
    clusterPoolIPv4PodCIDRList:
      - \"172.20.42.0/28\"
      - \"172.20.84.0/28\"
backendConfig:
  cluster_pool: {grow: false, releaseAfterSeconds: 1}
",
};

/// `helm upgrade` with the third range.
const THIRD_RANGE: &str = "
ipam:
  operator:
    clusterPoolIPv4PodCIDRList:
      - \"172.20.42.0/28\"
      - \"172.20.84.0/28\"
      - \"10.0.0.0/28\"
";
const GROW: &str = "backendConfig: {cluster_pool: {grow: true}}";

/// A deployment of the walk-through, or what stands for the cluster's own there.
fn deployment(name: &str, replicas: usize) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: {name}}}, spec: {{replicas: {replicas}, \
         selector: {{matchLabels: {{app: {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{\
         terminationGracePeriodSeconds: 0, containers: [{{name: nginx, image: nginx}}]}}}}}}}}"
    )
}

/// Every node has blocks of the configured ranges that no other has and that are not its Node's; pods have addresses of
/// them, and give every one back.
pub(in crate::cluster) fn operator_gives_blocks(context: &Context<'_>) -> Judged {
    let nodes = context.two_nodes();
    let mut all: Vec<(IpNet, &str)> = Vec::new();
    for node in &nodes {
        let (listed, of_node) = (all_blocks(context, &node.name)?, node_cidrs(context, &node.name)?);
        let families: BTreeSet<bool> = listed.iter().map(|block| block.addr().is_ipv4()).collect();
        if families.len() != context.families().len() {
            return Err(Stop::broken(format!("CiliumNode {} lists {listed:?}", node.name)));
        }
        if let Some(block) = listed.iter().find(|block| of_node.contains(block)) {
            return Err(Stop::broken(format!("{block} of CiliumNode {} is what its Node has", node.name)));
        }
        for block in listed {
            if let Some((other, holder)) = all.iter().find(|(o, _)| o.contains(&block) || block.contains(o)) {
                return Err(Stop::broken(format!("{block} of {} and {other} of {holder} overlap", node.name)));
            }
            all.push((block, &node.name));
        }
    }
    context.apply(&deployment("netshoot", 4))?;
    let pods = context.ready("netshoot", 4)?;
    lie_in_blocks(context, &pods, DEFAULT)?;
    let answered = reach_each_other(context, &context.places_of(&pods)?)?;
    for node in &nodes {
        let seen = super::addresses::status(context, &node.name)?.ipam.allocations;
        for pod in pods.iter().filter(|pod| pod.node == node.name) {
            let told =
                |ip: &std::net::IpAddr| seen.get(&ip.to_string()).is_some_and(|owner| owner.ends_with(&pod.name));
            if !pod.ips.iter().all(told) {
                return Err(Stop::broken(format!("the agent of {} does not tell {pod} in {seen:?}", node.name)));
            }
        }
    }
    Ok(format!("blocks {}; {answered}", all.iter().map(|(block, _)| block.to_string()).collect::<Vec<_>>().join(", ")))
}

/// Two ranges, a third by a change of the configuration, and more pods than a node's block has addresses: some run, the
/// others are told that the range is full. When nodes may grow, the same pods all run without anybody touching them; what is
/// not needed any more is given back, and only when the ranges have no block left is the range full.
pub(in crate::cluster) fn full_until_nodes_grow(context: &Context<'_>) -> Judged {
    let workers = taint_control_plane(context)?;
    let nodes: Vec<String> = context.target.nodes().into_iter().map(|node| node.name).collect();
    let config = |key: &str| -> Result<String, Stop> {
        let text = context.target.ask_agent(&nodes[0], &["cilium-dbg", "config", "view"])?;
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(key));
        Ok(line.unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
    };
    for (key, value) in [
        ("ipam", "cluster-pool"),
        ("cluster-pool-ipv4-cidr", "172.20.42.0/28 172.20.84.0/28"),
        ("cluster-pool-ipv4-mask-size", "29"),
    ] {
        let found = config(key)?;
        if !found.starts_with(value) {
            return Err(Stop::broken(format!("config view has {found:?} for {key}, not {value:?}")));
        }
    }
    context.apply(&deployment("coredns", workers.len()))?;
    let system = context.ready("coredns", workers.len())?;
    let before = one_block_each(context, &nodes, &["172.20.42.0/28", "172.20.84.0/28"])?;

    context.target.configure(THIRD_RANGE)?;
    let told = config("cluster-pool-ipv4-cidr")?;
    if !told.starts_with("172.20.42.0/28 172.20.84.0/28 10.0.0.0/28") {
        return Err(Stop::broken(format!("after the change config view has {told:?}")));
    }
    if one_block_each(context, &nodes, &["172.20.42.0/28", "172.20.84.0/28"])? != before {
        return Err(Stop::broken("a new range has moved blocks that nodes had"));
    }
    for (node, block) in workers.iter().zip(&before[1..]) {
        // An agent that has just started may be busy with what it found.
        let line = format!("IPAM: IPv4: 3/6 allocated from {block},");
        context.until(&format!("{node} to say {line:?}"), || {
            let text = context.target.ask_agent(node, &["cilium-dbg", "status"])?;
            Ok(if says(&text, &line) { Ok(()) } else { Err(text) })
        })?;
    }

    context.apply(&deployment("netshoot", 10))?;
    let running = context.ready("netshoot", 6)?;
    let waiting = context.pods_of("netshoot")?.into_iter().find(|pod| !pod.is_ready);
    let waiting = waiting.ok_or_else(|| Stop::broken("no pod waits, although there is no room"))?;
    let told = event_with(context, &waiting.name, &["Failed to create pod sandbox", "range is full", "grow"])?;
    still_waits(context, "netshoot", 6)?;
    for word in [waiting.node.as_str(), "6 of 6 leased", "[POST /ipam][502] postIpamFailure"] {
        if !told.contains(word) {
            return Err(Stop::broken(format!("the event does not say {word:?}: {told}")));
        }
    }
    lie_in_blocks(context, &running, DEFAULT)?;
    for (node, block) in workers.iter().zip(&before[1..]) {
        let text = context.target.ask_agent(node, &["cilium-dbg", "status", "--verbose"])?;
        let of_system = system.iter().find(|pod| pod.node == *node);
        let restored = of_system.map(|pod| format!("{} ({}/{} [restored])", pod.ips[0], context.namespace, pod.name));
        let expected = [Some(format!("IPAM: IPv4: 6/6 allocated from {block},")), restored];
        for line in expected.into_iter().flatten() {
            if !says(&text, &line) {
                return Err(Stop::broken(format!("{node} does not say {line:?} but:\n{text}")));
            }
        }
        for owner in ["router", "health"] {
            if !text.lines().any(|line| line.ends_with(&format!("({owner})"))) {
                return Err(Stop::broken(format!("{node} names no {owner}:\n{text}")));
            }
        }
    }

    context.target.configure(&with(THIRD_RANGE, GROW))?;
    let running = context.ready("netshoot", 10)?;
    lie_in_blocks(context, &running, DEFAULT)?;
    let answered = reach_each_other(context, &context.places_of(&running[..4])?)?;

    context.scale_to("netshoot", 0)?;
    context.scale_to("coredns", 0)?;
    context.until("one block for each node again", || {
        let listed: Result<Vec<usize>, Stop> = nodes.iter().map(|node| Ok(all_blocks(context, node)?.len())).collect();
        let listed = listed?;
        Ok(if listed.iter().all(|count| *count == 1) { Ok(()) } else { Err(format!("{listed:?}")) })
    })?;
    for node in &workers {
        context.until(&format!("only the node's own addresses to be leased on {node}"), || {
            let left = leased(context, node)?;
            Ok(if left == 2 { Ok(()) } else { Err(format!("{left} are leased")) })
        })?;
    }

    // All six blocks of the three ranges: one is the control plane's, and each worker has two addresses for itself.
    let most = 5 * 6 - 2 * workers.len();
    // They are spread evenly, and the nodes' blocks are not.
    let pods = 2 * most;
    context.scale_to("netshoot", pods)?;
    let running = context.ready("netshoot", most)?;
    lie_in_blocks(context, &running, DEFAULT)?;
    let waiting = context.pods_of("netshoot")?.into_iter().find(|pod| !pod.is_ready);
    let waiting = waiting.ok_or_else(|| Stop::broken("no pod waits, although every block is taken"))?;
    event_with(context, &waiting.name, &["range is full", "allocator full", "cluster-pool-ipv4-cidr"])?;
    still_waits(context, "netshoot", most)?;
    Ok(format!("6 of 10 pods ran, then 10, then {most} of {pods}; {answered}"))
}

fn with(one: &str, other: &str) -> String {
    format!("{one}\n{other}\n")
}

/// The one block that each node has.
fn one_block_each(context: &Context<'_>, nodes: &[String], ranges: &[&str]) -> Result<Vec<IpNet>, Stop> {
    let ranges: Vec<IpNet> = ranges.iter().filter_map(|range| range.parse().ok()).collect();
    let mut found = Vec::new();
    for node in nodes {
        match all_blocks(context, node)?[..] {
            [block] if block.prefix_len() == 29 && ranges.iter().any(|range| range.contains(&block)) => {
                found.push(block);
            }
            ref other => {
                return Err(Stop::broken(format!("CiliumNode {node} lists {other:?}, not one /29 of {ranges:?}")));
            }
        }
    }
    let different: BTreeSet<&IpNet> = found.iter().collect();
    if different.len() == found.len() { Ok(found) } else { Err(Stop::broken(format!("nodes share blocks: {found:?}"))) }
}
