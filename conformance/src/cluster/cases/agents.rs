//! Agents that restart or are killed, under traffic.

use std::time::{Duration, Instant};

use crate::{
    cluster::{
        context::Context,
        place::{every_protocol, failures},
        traffic::Traffic,
        verdict::{Judged, Stop, told},
    },
    target::{NodeInfo, Target},
};

/// Traffic before the first disturbance and after the last.
const CALM: Duration = Duration::from_millis(500);

/// Agents' pods are deleted, as a roll-out does.
pub(in crate::cluster) fn restarted(context: &Context<'_>) -> Judged {
    // A pod of an agent takes a second to end, so fewer of these say as much.
    let times = context.scale.kills.div_ceil(3);
    disturbed(context, times, "restarts", &|target| target.restart_agents())
}

/// Agents end by SIGKILL, wherever they are in their work.
pub(in crate::cluster) fn killed(context: &Context<'_>) -> Judged {
    disturbed(context, context.scale.kills, "kills", &|target| target.kill_agents())
}

/// Pods on one node and across, and pods and nodes in both directions: nothing is lost, no connection breaks, and new
/// pods can be had afterwards.
fn disturbed(
    context: &Context<'_>,
    times: usize,
    what: &str,
    disturb: &dyn Fn(&dyn Target) -> Result<(), Stop>,
) -> Judged {
    let two: Vec<NodeInfo> = context.two_nodes();
    let pods = context.start_on(&two, "pod", 2)?;
    let nodes = context.node_places(&two)?;
    let ([a, b, c, d], [na, nb]) = (&pods[..], &nodes[..]) else { return Err(Stop::broken("places are missing")) };
    let pairs = [(a, b), (a, c), (d, b), (na, c), (d, na), (nb, d)];
    let traffic = Traffic::start(context, &pairs, context.scale.connections)?;
    std::thread::sleep(CALM);
    let begun = Instant::now();
    for _ in 0..times {
        disturb(context.target)?;
    }
    let took = begun.elapsed();
    std::thread::sleep(CALM);
    let count = traffic.judge()?;
    let new = context.start_on(&two, "new", 1)?;
    let mut questions = Vec::new();
    for is_ipv4 in context.families() {
        for (from, to) in [(&new[0], &new[1]), (&new[1], a), (a, &new[1])] {
            questions.extend(every_protocol(from, to, is_ipv4, context.random(), 64));
        }
    }
    told(&failures(&questions)?, questions.len())?;
    Ok(format!("{times} {what} of {} agents in {:.1} s: {count}", context.target.nodes().len(), took.as_secs_f64()))
}
