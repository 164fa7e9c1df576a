//! Addresses from what Kubernetes gave to the Node (section 2.1 of the walk-through).

use ipnet::IpNet;

use super::addresses::{DEFAULT, all_blocks, event_with, lie_in_blocks, node_cidrs, status, still_waits};
use crate::cluster::{
    context::Context,
    verdict::{Judged, Stop},
};

/// Pods for which there is no room.
const TOO_MANY: usize = 2;
/// Looks, a tenth of a second apart, in which nothing changes.
const LOOKS: usize = 8;

/// The CiliumNode lists the Node's pod CIDRs and nothing else, pods have addresses of them, and when they are used up no
/// further block comes: who finds none is told so, and starts when one becomes free.
pub(in crate::cluster) fn node_cidrs_are_all(context: &Context<'_>) -> Judged {
    let nodes = context.two_nodes();
    for node in &nodes {
        let (listed, given) = (all_blocks(context, &node.name)?, node_cidrs(context, &node.name)?);
        if listed != given || given.is_empty() {
            return Err(Stop::broken(format!("CiliumNode {} lists {listed:?}, its Node {given:?}", node.name)));
        }
    }
    let node = &nodes[1].name;
    let room = room(context, node)?;
    context.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: fill}}, spec: {{replicas: {}, \
         selector: {{matchLabels: {{app: fill}}}}, template: {{metadata: {{labels: {{app: fill}}}}, spec: {{\
         nodeSelector: {{kubernetes.io/hostname: {node}}}, terminationGracePeriodSeconds: 0, \
         containers: [{{name: pause, image: registry.k8s.io/pause}}]}}}}}}}}",
        room + TOO_MANY
    ))?;
    let pods = context.ready("fill", room)?;
    lie_in_blocks(context, &pods, DEFAULT)?;
    let waiting = context.pods_of("fill")?.into_iter().find(|pod| !pod.is_ready);
    let waiting = waiting.ok_or_else(|| Stop::broken("no pod waits, although there is no room"))?;
    let words = ["range is full", node.as_str(), "has one pod CIDR", "kinesin ipam plan"];
    event_with(context, &waiting.name, &words)?;
    still_waits(context, "fill", room)?;
    let listed = all_blocks(context, node)?;
    let given: Vec<IpNet> = node_cidrs(context, node)?;
    if listed != given {
        return Err(Stop::broken(format!("CiliumNode {node} has got {listed:?} by itself")));
    }
    // The waiting ones take what another leaves.
    context.delete(&[pods[0].name.clone()])?;
    let after = context.ready("fill", room)?;
    lie_in_blocks(context, &after, DEFAULT)?;
    Ok(format!("{room} pods filled {listed:?} of {node}, {TOO_MANY} waited, and one of them followed"))
}

/// Pods that a node has room for, once those of earlier cases have given their addresses back.
fn room(context: &Context<'_>, node: &str) -> Result<usize, Stop> {
    let (mut last, mut looks) = (free(context, node)?, 0);
    context.until(&format!("what is leased on {node} to stay"), || {
        let now = free(context, node)?;
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        Ok(if looks >= LOOKS { Ok(now) } else { Err(format!("{now} are free")) })
    })
}

/// Pods that a node has room for now, which is that of the family with less.
fn free(context: &Context<'_>, node: &str) -> Result<usize, Stop> {
    let ipam = status(context, node)?.ipam;
    let lines = [ipam.ipv4, ipam.ipv6].into_iter().flatten();
    let free = |line: String| {
        let (leased, capacity) = line.split_whitespace().next()?.split_once('/')?;
        capacity.parse::<usize>().ok()?.checked_sub(leased.parse().ok()?)
    };
    let free: Option<Vec<usize>> = lines.map(free).collect();
    free.and_then(|free| free.into_iter().min()).ok_or_else(|| Stop::broken("the status names no numbers"))
}
