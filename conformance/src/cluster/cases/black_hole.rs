//! A black hole: the underlay swallows large packets and says nothing (RFC 2923 section 2.1). Nobody can cross it; the nodes
//! can find it and say where it is.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::cluster::{
    context::Context,
    verdict::{Judged, Stop},
};

/// What the underlay still carries, in bytes; IPv6 has 1280 at least.
const CARRIED: u32 = 1_340;
/// What `status` says.
const NAMED: &str = "MTU black hole";
/// A path is probed again after some ten seconds at most; large packets are given up after three.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(500);

/// Gives the underlay back what it carried, also when the case fails.
struct Swallowing<'a> {
    context: &'a Context<'a>,
    node: String,
    before: u32,
}

impl Drop for Swallowing<'_> {
    fn drop(&mut self) {
        // The verdict stands; a path that stays narrow is seen by whoever comes next.
        let _ = self.context.target.set_carried(&self.node, self.before);
    }
}

/// The node at the other end finds and names it, and says so no longer when it is gone.
pub(in crate::cluster) fn is_named(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let [here, there] = &two[..] else { return Err(Stop::broken("there are not two nodes")) };
    wait(context, &here.name, "before anything was changed", |status| !status.contains(NAMED))?;
    let before = context.target.set_carried(&there.name, CARRIED)?;
    let swallowing = Swallowing { context, node: there.name.clone(), before };
    // An agent that starts probes at once.
    context.target.restart_agents()?;
    let start = Instant::now();
    let families = context.families().len();
    let lines = wait(context, &here.name, "with a black hole on the way", |status| {
        let lines = status.lines().filter(|line| line.contains(NAMED) && line.contains(&there.name));
        // Each family's path to the node itself and to its health endpoint.
        lines.count() == families * 2
    })?;
    let found = start.elapsed();
    drop(swallowing);
    wait(context, &here.name, "after the black hole was gone", |status| !status.contains(NAMED))?;
    let line = lines.lines().find(|line| line.contains(NAMED)).unwrap_or_default().trim().to_owned();
    Ok(format!("found after {:.1} s, and gone with its cause: {line}", found.as_secs_f64()))
}

fn wait(context: &Context<'_>, node: &str, when: &str, wanted: impl Fn(&str) -> bool) -> Result<String, Stop> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = context.target.ask_agent(node, &["cilium-dbg", "status"])?;
        if wanted(&status) {
            return Ok(status);
        }
        if Instant::now() > until {
            return Err(Stop::broken(format!(
                "{when}, the status of {node} was for {} s: {status}",
                PATIENCE.as_secs()
            )));
        }
        thread::sleep(LOOK);
    }
}
