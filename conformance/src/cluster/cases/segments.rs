//! Nodes on segments of their own, and a router between them that knows nodes and nothing of pods.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_lab::Families;

use super::{
    addresses::{all_blocks, reach_each_other, status},
    carrier::are_reached_by,
    mtu::{family, whole},
};
use crate::{
    cluster::{
        case::Scale,
        context::Context,
        own::OwnLab,
        place::{Place, every_protocol, failures},
        verdict::{Judged, Stop, told},
        worker::Told,
    },
    target::NodeInfo,
};

/// The first node and the third are neighbours, the second is beyond the router.
pub(in crate::cluster) const LAB: OwnLab = OwnLab {
    name: "routed",
    ipam: "host_scope",
    nodes: 3,
    segments: 2,
    families: Families::Dual,
    values: "
ipam:
  mode: kubernetes
",
};

/// The same for the case in which nodes learn what the router carries, and know it for ten minutes.
pub(in crate::cluster) const NARROW_LAB: OwnLab = OwnLab { name: "routed_narrow", ..LAB };

/// With direct routes, which lead to neighbours alone.
const DIRECT: &str = "backends: {routing: native}\n";
/// What is no neighbour is left to the network.
const SKIPPING: &str = "backends: {routing: native}\ndirectRoutingSkipUnreachable: true\n";
/// Everything is left to the network.
const NETWORKS_OWN: &str = "backends: {routing: native}\nautoDirectNodeRoutes: false\n";

/// What the narrow way carries, in bytes of IP packet; IPv6 has 1280 at least, also within a tunnel.
const NARROW: u32 = 1_380;
/// More than fits there by any carrier, less than fits elsewhere.
const WIDE: u32 = 1_400;

/// A network that knows pods, until this is gone.
struct KnownPods<'a> {
    context: &'a Context<'a>,
    networks: Vec<IpNet>,
}

impl<'a> KnownPods<'a> {
    fn of(context: &'a Context<'a>, nodes: &[NodeInfo]) -> Result<Self, Stop> {
        let mut known = Self { context, networks: Vec::new() };
        for node in nodes {
            for network in all_blocks(context, &node.name)? {
                let via = node.ips.iter().copied().find(|ip| ip.is_ipv4() == network.addr().is_ipv4());
                known.networks.push(network);
                context.target.set_network_routes(&[(network, via)])?;
            }
        }
        Ok(known)
    }
}

impl Drop for KnownPods<'_> {
    fn drop(&mut self) {
        // The verdict stands; what the router still knows is seen by whoever comes next.
        let _ =
            self.context.target.set_network_routes(&self.networks.iter().map(|net| (*net, None)).collect::<Vec<_>>());
    }
}

/// Tunnels lead through the router as they are. Direct routes lead to neighbours, and each node beyond is named with the
/// way out; with the network's own routes everybody is reached.
pub(in crate::cluster) fn reached_through_a_router(context: &Context<'_>) -> Judged {
    let nodes = context.target.nodes();
    let [here, beyond, near] = &nodes[..] else { return Err(Stop::broken("there are not three nodes")) };
    let pods = context.start_on(&nodes, "pod", 1)?;
    let mut all = pods;
    all.extend(context.node_places(&nodes)?);
    let mut answered = Vec::new();
    for carrier in ["vxlan", "geneve"] {
        context.target.configure(&format!("backends: {{routing: {carrier}}}"))?;
        are_reached_by(context, &nodes, carrier)?;
        answered.push(format!("{carrier}: {}", reach_each_other(context, &all)?));
    }

    context.target.configure(DIRECT)?;
    are_reached_by(context, &nodes, "native")?;
    for (node, others) in [(here, &[beyond][..]), (near, &[beyond]), (beyond, &[here, near])] {
        named(context, node, others, &["is behind the router", "choose a tunnel"])?;
    }
    let neighbours: Vec<&Place> = all.iter().filter(|place| place.node != beyond.name).collect();
    answered.push(format!("neighbours by direct routes: {}", reach(context, &neighbours)?));

    let known = KnownPods::of(context, &nodes)?;
    context.target.configure(SKIPPING)?;
    for (node, others) in [(here, &[beyond][..]), (beyond, &[here, near])] {
        named(context, node, others, &["is behind the router", "left to the network"])?;
    }
    answered.push(format!("direct routes and the network's: {}", reach_each_other(context, &all)?));
    context.target.configure(NETWORKS_OWN)?;
    for node in &nodes {
        named(context, node, &[], &[])?;
    }
    answered.push(format!("the network's routes: {}", reach_each_other(context, &all)?));
    drop(known);
    Ok(answered.join("; "))
}

/// Until a node's agent says of exactly these others that they are not reached, in these words.
fn named(context: &Context<'_>, node: &NodeInfo, others: &[&NodeInfo], words: &[&str]) -> Result<(), Stop> {
    context.until(&format!("{} to say which nodes it does not reach", node.name), || {
        // One that is just being replaced is asked again.
        let told = match status(context, &node.name) {
            Ok(status) => status.routing.unreachable,
            Err(stop) => return Ok(Err(stop.to_string())),
        };
        let is_told = |other: &&NodeInfo| {
            told.get(&other.name).is_some_and(|reason| words.iter().all(|word| reason.contains(word)))
        };
        let is_right = told.len() == others.len() && others.iter().all(is_told);
        Ok(if is_right { Ok(()) } else { Err(format!("{told:?}")) })
    })
}

fn reach(context: &Context<'_>, places: &[&Place]) -> Judged {
    let mut questions = Vec::new();
    for from in places {
        for to in places.iter().filter(|to| !std::ptr::eq(**to, *from)) {
            for is_ipv4 in context.families() {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
            }
        }
    }
    told(&failures(&questions)?, questions.len())
}

/// Gives a node's way its width back, also when the case fails.
struct Narrowed<'a> {
    context: &'a Context<'a>,
    node: &'a NodeInfo,
    before: (u32, u32),
}

impl<'a> Narrowed<'a> {
    /// Both ends of its cable; so the router knows, and says it.
    fn new(context: &'a Context<'a>, node: &'a NodeInfo) -> Result<Self, Stop> {
        let before = (context.target.set_mtu(&node.name, NARROW)?, context.target.set_carried(&node.name, NARROW)?);
        Ok(Self { context, node, before })
    }
}

impl Drop for Narrowed<'_> {
    fn drop(&mut self) {
        // The verdict stands; what is left narrow is seen by whoever comes next.
        let _ = self.context.target.set_mtu(&self.node.name, self.before.0);
        let _ = self.context.target.set_carried(&self.node.name, self.before.1);
    }
}

/// One node's segment carries less than the others', which its own node and the router know. Natively it is the router that
/// tells the sender of what may not be cut; what goes by tunnel meets a node that knows what the other one announces. Either way
/// streams and datagrams arrive, in both directions.
pub(in crate::cluster) fn narrow_way_to_one_node(context: &Context<'_>) -> Judged {
    let nodes = context.target.nodes();
    let [here, beyond, _] = &nodes[..] else { return Err(Stop::broken("there are not three nodes")) };
    let two = [here.clone(), beyond.clone()];
    let mut seen = vec![format!("native: {}", narrow_natively(context, &nodes, &two)?)];
    let tunnels: &[&str] = if context.scale.kills < Scale::FULL.kills { &["vxlan"] } else { &["vxlan", "geneve"] };
    for carrier in tunnels {
        seen.push(format!("{carrier}: {}", narrow_in_a_tunnel(context, &nodes, &two, carrier)?));
    }
    Ok(seen.join("; "))
}

/// Gives the way between nodes its width back, also when the case fails.
struct NarrowWay<'a> {
    context: &'a Context<'a>,
    nodes: Vec<IpAddr>,
}

impl<'a> NarrowWay<'a> {
    /// The router carries less than any node's uplink, in both directions.
    fn new(context: &'a Context<'a>, nodes: &[NodeInfo]) -> Result<Self, Stop> {
        let way = Self { context, nodes: nodes.iter().flat_map(|node| node.ips.iter().copied()).collect() };
        context.target.set_way_mtu(&way.nodes, Some(NARROW))?;
        Ok(way)
    }
}

impl Drop for NarrowWay<'_> {
    fn drop(&mut self) {
        // The verdict stands; what is left narrow is seen by whoever comes next.
        let _ = self.context.target.set_way_mtu(&self.nodes, None);
    }
}

/// A router between nodes carries less than their uplinks, which it says to the node that a tunnel's packet comes from. From
/// then on that node tells its pods, what they send arrives, and an agent that starts again knows it still.
pub(in crate::cluster) fn narrow_way_between_nodes(context: &Context<'_>) -> Judged {
    let nodes = context.target.nodes();
    let [here, beyond, _] = &nodes[..] else { return Err(Stop::broken("there are not three nodes")) };
    let two = [here.clone(), beyond.clone()];
    let carriers: &[&str] = if context.scale.kills < Scale::FULL.kills { &["geneve"] } else { &["vxlan", "geneve"] };
    let mut seen = Vec::new();
    for carrier in carriers {
        context.target.configure(&format!("backends: {{routing: {carrier}}}\n"))?;
        are_reached_by(context, &nodes, carrier)?;
        let pods = context.start_on(&two, &format!("{carrier}-way"), 1)?;
        let [a, b] = &pods[..] else { return Err(Stop::broken("there are not two pods")) };
        let _narrow = NarrowWay::new(context, &two)?;
        let passed = discovered_and_passed(context, a, b)?;
        context.until(&format!("{} to say who told it", here.name), || {
            Ok(match status(context, &here.name) {
                Ok(status) => match status.routing.path_mtus.get(&beyond.name) {
                    Some(told) if told.contains("a router on the way") => Ok(()),
                    other => Err(format!("{other:?}")),
                },
                Err(stop) => Err(stop.to_string()),
            })
        })?;
        context.target.restart_agents()?;
        for is_ipv4 in context.families() {
            discovered(context, a, b, is_ipv4)?;
        }
        no_black_hole_seen_from(context, here)?;
        seen.push(format!("{carrier}: {passed}"));
    }
    Ok(seen.join("; "))
}

fn narrow_natively(context: &Context<'_>, nodes: &[NodeInfo], two: &[NodeInfo; 2]) -> Judged {
    context.target.configure(NETWORKS_OWN)?;
    are_reached_by(context, nodes, "native")?;
    let _known = KnownPods::of(context, nodes)?;
    let pods = context.start_on(two, "native", 1)?;
    let [a, b] = &pods[..] else { return Err(Stop::broken("there are not two pods")) };
    for is_ipv4 in context.families() {
        fits(context, a, b, is_ipv4, WIDE)?;
    }
    let _narrowed = Narrowed::new(context, &two[1])?;
    discovered_and_passed(context, a, b)
}

fn narrow_in_a_tunnel(context: &Context<'_>, nodes: &[NodeInfo], two: &[NodeInfo; 2], carrier: &str) -> Judged {
    context.target.configure(&format!("backends: {{routing: {carrier}}}\n"))?;
    are_reached_by(context, nodes, carrier)?;
    let pods = context.start_on(two, carrier, 1)?;
    let [a, b] = &pods[..] else { return Err(Stop::broken("there are not two pods")) };
    for is_ipv4 in context.families() {
        fits(context, a, b, is_ipv4, WIDE)?;
    }
    let _narrowed = Narrowed::new(context, &two[1])?;
    let passed = discovered_and_passed(context, a, b)?;
    no_black_hole_seen_from(context, &two[0])?;
    Ok(passed)
}

/// Until a node's status names no MTU black hole.
fn no_black_hole_seen_from(context: &Context<'_>, node: &NodeInfo) -> Result<(), Stop> {
    context.until(&format!("{} to name no MTU black hole", node.name), || {
        // One that is just being replaced is asked again.
        Ok(match context.target.ask_agent(&node.name, &["cilium-dbg", "status"]) {
            Ok(status) if !status.contains("MTU black hole") => Ok(()),
            Ok(status) => Err(status),
            Err(stop) => Err(stop.to_string()),
        })
    })
}

/// In both directions and all families: what fits is told to the sender and fits; streams and datagrams that may be cut
/// arrive, whatever their size.
fn discovered_and_passed(context: &Context<'_>, a: &Place, b: &Place) -> Judged {
    let (mut mtus, mut questions) = (Vec::new(), Vec::new());
    for is_ipv4 in context.families() {
        for (from, to) in [(a, b), (b, a)] {
            let mtu = discovered(context, from, to, is_ipv4)?;
            fits(context, from, to, is_ipv4, mtu)?;
            mtus.push(mtu.to_string());
            for length in [1_000, 20_000, 60_000] {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), length));
            }
        }
    }
    let answered = told(&failures(&questions)?, questions.len())?;
    Ok(format!("{} bytes told, {answered}", mtus.join(", ")))
}

fn fits(context: &Context<'_>, from: &Place, to: &Place, is_ipv4: bool, bytes: u32) -> Result<(), Stop> {
    match whole(context, from, to, is_ipv4, bytes)? {
        Ok(Told::Answered) => Ok(()),
        other => Err(Stop::broken(format!("{from} to {to}, {bytes} bytes over {}: {other:?}", family(is_ipv4)))),
    }
}

/// What the sender of a packet that does not fit is told.
fn discovered(context: &Context<'_>, from: &Place, to: &Place, is_ipv4: bool) -> Result<u32, Stop> {
    let what = format!("{from} to be told that {WIDE} bytes do not fit to {to} over {}", family(is_ipv4));
    context.until(&what, || {
        Ok(match whole(context, from, to, is_ipv4, WIDE)? {
            // A carrier's own headers come off.
            Ok(Told::TooBig { mtu }) if (NARROW - 100..=NARROW).contains(&mtu) => Ok(mtu),
            other => Err(format!("{other:?}")),
        })
    })
}
