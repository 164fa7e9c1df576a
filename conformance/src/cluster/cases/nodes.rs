//! A node that is lost at once and comes back, as the same or as another.

use std::{net::IpAddr, time::Instant};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::addresses::all_blocks;
use crate::{
    cluster::{
        context::Context,
        place::{Place, every_protocol, failures},
        traffic::Traffic,
        verdict::{Judged, Stop, told},
    },
    target::TargetCapability,
};

/// Meanwhile the other node's pods lose nothing among themselves; afterwards the node's pods run again and everybody
/// reaches everybody.
pub(in crate::cluster) fn restarted(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let stay = context.start_on(&two[..1], "stay", 2)?;
    let [a, b] = &stay[..] else { return Err(Stop::broken("there are not two pods")) };
    let named = |i| (format!("back-{i}"), two[1].name.clone());
    let names: Vec<(String, String)> = (0..2).map(named).collect();
    let lost = context.start(&names)?;
    judge(context, &stay, &lost)?;
    drop(lost);
    let traffic = Traffic::start(context, &[(a, b), (b, a)], context.scale.connections.min(100))?;
    let begun = Instant::now();
    context.target.restart_node(&two[1].name)?;
    let back = context.wait_for(&names)?;
    let took = begun.elapsed();
    let count = traffic.judge()?;
    let answered = judge(context, &stay, &back)?;
    Ok(format!("pods ran again after {:.1} s; {answered}; meanwhile {count}", took.as_secs_f64()))
}

/// The range that a node comes back with, on no other lab's; where Nodes' pod CIDRs are not what pods have, nothing of it is
/// seen.
const OTHER_CIDRS: [&str; 2] = ["10.244.64.0/27", "fd00:10:244:2::/123"];

/// A node that comes back with its name and with other addresses and other pod CIDRs, as one does that was set up anew.
/// Meanwhile the other node's pods lose nothing; afterwards everybody reaches everybody, and nothing leads to where it was.
pub(in crate::cluster) fn moved(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let stay = context.start_on(&two[..1], "stay", 2)?;
    let [a, b] = &stay[..] else { return Err(Stop::broken("there are not two pods")) };
    let lost = context.start_on(&two[1..], "lost", 2)?;
    judge(context, &stay, &lost)?;
    drop(lost);
    let (name, before) = (&two[1].name, two[1].ips.clone());
    let old_blocks = all_blocks(context, name)?;
    let traffic = Traffic::start(context, &[(a, b), (b, a)], context.scale.connections.min(100))?;
    let begun = Instant::now();
    context.target.move_node(name, &|| give_other_cidrs(context, name))?;
    let took = begun.elapsed();
    let count = traffic.judge()?;
    let now = context.target.nodes().into_iter().find(|node| node.name == *name);
    let now = now.ok_or_else(|| Stop::broken(format!("{name} is gone")))?;
    if now.ips.iter().any(|ip| before.contains(ip)) {
        return Err(Stop::broken(format!("{name} still has one of {before:?}: {:?}", now.ips)));
    }
    let back = context.start_on(std::slice::from_ref(&now), "back", 2)?;
    let blocks = all_blocks(context, name)?;
    if context.target.can(TargetCapability::NodePodCidrs) {
        let wanted: Vec<IpNet> = other_cidrs(context).iter().filter_map(|text| text.parse().ok()).collect();
        let is_within = |ip: &IpAddr| wanted.iter().any(|net| net.contains(ip));
        if let Some(pod) = back.iter().find(|pod| !pod.ips.iter().all(is_within)) {
            return Err(Stop::broken(format!("{pod} has {:?} and not of {wanted:?}", pod.ips)));
        }
    }
    let answered = judge(context, &stay, &back)?;
    let gone: Vec<IpNet> = old_blocks.into_iter().filter(|block| !blocks.contains(block)).collect();
    nothing_leads_to(context, &two[0].name, &gone, &before)?;
    Ok(format!(
        "back at {:?} after {:.1} s; {answered}; nothing leads to {gone:?} or {before:?}; meanwhile {count}",
        now.ips,
        took.as_secs_f64()
    ))
}

/// Of the families that the cluster has, in the order that Kubernetes wants: IPv4 first.
fn other_cidrs(context: &Context<'_>) -> Vec<&'static str> {
    OTHER_CIDRS.into_iter().filter(|text| context.families().contains(&!text.contains(':'))).collect()
}

/// Deletes the Node and makes another one, whose kubelet is not there yet.
fn give_other_cidrs(context: &Context<'_>, name: &str) -> Result<(), Stop> {
    let nodes: Api<Node> = Api::all(context.target.client().clone());
    let runtime = context.target.runtime();
    let gone = runtime.block_on(nodes.delete(name, &DeleteParams::default().grace_period(0)));
    gone.map_err(|error| Stop::target(&error))?;
    let cidrs = other_cidrs(context);
    let object = json!({"metadata": {"name": name}, "spec": {"podCIDR": cidrs.first(), "podCIDRs": cidrs}});
    let object: Node = serde_json::from_value(object).map_err(|error| Stop::target(&error))?;
    runtime.block_on(nodes.create(&PostParams::default(), &object)).map(drop).map_err(|error| Stop::target(&error))
}

/// Until a node's routes lead neither to these networks nor by these addresses.
fn nothing_leads_to(context: &Context<'_>, node: &str, networks: &[IpNet], hops: &[IpAddr]) -> Result<(), Stop> {
    // On a cluster whose nodes cannot be looked into, what is stale shows as lost packets alone.
    let Some(inside) = context.target.inside() else { return Ok(()) };
    let site = inside.site(node)?;
    context.until(&format!("{node} to forget {networks:?} and {hops:?}"), || {
        let routes = site.routes().map_err(Stop::broken)?;
        let stale = routes
            .iter()
            .filter(|route| networks.contains(&route.dst) || route.via.is_some_and(|via| hops.contains(&via)));
        let stale: Vec<String> = stale.map(|route| format!("{route:?}")).collect();
        Ok(if stale.is_empty() { Ok(()) } else { Err(stale.join("; ")) })
    })
}

fn judge(context: &Context<'_>, some: &[Place], others: &[Place]) -> Judged {
    let all: Vec<&Place> = some.iter().chain(others).collect();
    let mut questions = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| !std::ptr::eq(**to, *from)) {
            for is_ipv4 in context.families() {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
            }
        }
    }
    told(&failures(&questions)?, questions.len())
}
