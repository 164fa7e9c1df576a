//! From one carrier to another under traffic, as a user changes it: new values, and the agents restart one by one.

use std::time::Instant;

use kinesin_lab::Families;

use super::{addresses::reach_each_other, mtu};
use crate::{
    cluster::{
        case::Scale,
        context::Context,
        own::OwnLab,
        place::Place,
        traffic::Traffic,
        verdict::{Judged, Stop},
        worker::{Count, Told},
    },
    target::NodeInfo,
};

/// Nothing of its own: the carrier to begin with is the default combination's.
pub(in crate::cluster) const LAB: OwnLab = OwnLab {
    name: "carrier",
    ipam: "host_scope",
    nodes: 2,
    segments: 1,
    families: Families::Dual,
    values: "
ipam:
  mode: kubernetes
",
};

/// From the default tunnel to another one, out of it, and in again.
const DAILY: [&str; 3] = ["geneve", "native", "vxlan"];
/// Every change from one to another.
const FULL: [&str; 6] = ["geneve", "native", "vxlan", "native", "geneve", "vxlan"];
/// MTU of the lab's underlay in bytes.
const UNDERLAY: u32 = 1_500;
/// Annotations by which a node says how it wants to be reached, and what it accepts.
const PREFERS: &str = "routing.kinesin.io/prefers";
const ACCEPTS: &str = "routing.kinesin.io/accepts";

/// No connection breaks and nothing is lost while nodes of two carriers talk to each other; in the end nothing of the
/// former carriers is accepted any more.
pub(in crate::cluster) fn changes_under_traffic(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let nodes = context.node_places(&two)?;
    let pods = context.start_on(&two, "pod", 2)?;
    let route: &[&str] = if context.scale.kills < Scale::FULL.kills { &DAILY } else { &FULL };
    let (mut lost, mut took) = (Count::default(), Vec::new());
    for carrier in route {
        let traffic = Traffic::start(context, &pairs(&pods, &nodes)?, context.scale.connections)?;
        let begun = Instant::now();
        context.target.configure(&format!("backends: {{routing: {carrier}}}"))?;
        are_reached_by(context, &two, carrier)?;
        took.push(format!("{:.1}", begun.elapsed().as_secs_f64()));
        if *carrier != "native" {
            mtu_is_lowered(context, &pods, true)?;
        }
        reach_each_other(context, &pods)?;
        lost.add(traffic.judge().map_err(|stop| Stop::broken(format!("on the way to {carrier}: {stop}")))?);
    }
    let last = route.last().copied().unwrap_or_default();
    for node in &two {
        context.until(&format!("{} to accept nothing but {last}", node.name), || {
            let said = said(context, node, ACCEPTS)?;
            Ok(if word(&said) == last { Ok(()) } else { Err(said) })
        })?;
    }
    // What held it is gone with the last carrier that needed it.
    mtu_is_lowered(context, &pods, last != "native")?;
    reach_each_other(context, &pods)?;
    Ok(format!("{} changes of two nodes, in {} s: {lost}", route.len(), took.join(" + ")))
}

/// Until nodes say that they want to be reached by a carrier.
pub(super) fn are_reached_by(context: &Context<'_>, nodes: &[NodeInfo], carrier: &str) -> Result<(), Stop> {
    nodes.iter().try_for_each(|node| {
        context.until(&format!("{} to be reached by {carrier}", node.name), || {
            let said = said(context, node, PREFERS)?;
            Ok(if word(&said) == carrier { Ok(()) } else { Err(said) })
        })
    })
}

/// Flows across, in both directions, between pods and between nodes and pods.
fn pairs<'a>(pods: &'a [Place], nodes: &'a [Place]) -> Result<[(&'a Place, &'a Place); 4], Stop> {
    let ([a, b, c, d], [na, nb]) = (pods, nodes) else { return Err(Stop::broken("places are missing")) };
    Ok([(a, c), (d, b), (na, c), (nb, a)])
}

/// Pods that ran all the time send packets that fill the underlay only while no tunnel needs a part of them. Asked of pods
/// on one node, between which nothing but the sender's own kernel knows of tunnels.
fn mtu_is_lowered(context: &Context<'_>, pods: &[Place], lowered: bool) -> Result<(), Stop> {
    let [a, beside_a, c, beside_c] = pods else { return Err(Stop::broken("there are not four pods")) };
    let what = if lowered { "running pods to send less" } else { "running pods to send whole packets again" };
    context.until(what, || {
        for is_ipv4 in context.families() {
            for (from, to) in [(a, beside_a), (c, beside_c)] {
                match mtu::whole(context, from, to, is_ipv4, UNDERLAY)? {
                    Ok(Told::TooBig { mtu }) if lowered && mtu < UNDERLAY => {}
                    Ok(Told::Answered) if !lowered => {}
                    other => return Ok(Err(format!("{from} to {to}, {UNDERLAY} bytes: {other:?}"))),
                }
            }
        }
        Ok(Ok(()))
    })
}

fn said(context: &Context<'_>, node: &NodeInfo, annotation: &str) -> Result<String, Stop> {
    let object = context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", &node.name)?;
    Ok(object["metadata"]["annotations"][annotation].as_str().unwrap_or_default().to_owned())
}

/// The carrier of `vxlan:8472`.
fn word(said: &str) -> &str {
    said.split_once(':').map_or(said, |(carrier, port)| if port.contains(',') { "" } else { carrier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_several_is_no_carrier() {
        for (said, expected) in [
            ("native", "native"),
            ("vxlan:8472", "vxlan"),
            ("native,vxlan:8472", "native,vxlan"),
            ("vxlan:8472,geneve:6081", ""),
        ] {
            assert_eq!(word(said), expected);
        }
    }
}
