//! Many pods at once, more than a node's blocks hold: all of them get addresses, and all of these come back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::addresses::{DEFAULT, blocks, ips, leased, lie_in_blocks, taint_control_plane};
use crate::cluster::{
    context::Context,
    verdict::{Judged, Stop},
    workload::Started,
};

/// Twice: what came back must be leased again.
const TIMES: usize = 2;

/// All pods get an address that no other has, of a block that their node lists; when they are gone the agents have leased
/// what they had before, and the blocks are given back.
pub(in crate::cluster) fn comes_back(context: &Context<'_>) -> Judged {
    let workers = taint_control_plane(context)?;
    let count = context.scale.burst.div_ceil(workers.len()) * workers.len();
    let mut before = BTreeMap::new();
    for node in &workers {
        before.insert(node, (leased(context, node)?, blocks(context, node)?));
    }
    let (mut told, mut first) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let begun = Instant::now();
        context.burst("burst", &workers, count)?;
        let pods = addressed(context, count, begun)?;
        let took = begun.elapsed();
        lie_in_blocks(context, &pods, DEFAULT)?;
        let each = count / workers.len() * context.families().len();
        for node in &workers {
            let now = leased(context, node)?;
            if now != before[node].0 + each {
                let told = format!("{now} addresses are leased on {node} for {each} of pods and {}", before[node].0);
                return Err(Stop::broken(told));
            }
        }
        let begun = Instant::now();
        context.delete_all("burst")?;
        for node in &workers {
            context.until(&format!("every address of {node} back"), || {
                let now = leased(context, node)?;
                Ok(if now == before[node].0 { Ok(()) } else { Err(format!("{now} are leased")) })
            })?;
        }
        told.push(format!(
            "{:.1} s to the last address, {:.1} s to the last release",
            took.as_secs_f64(),
            begun.elapsed().as_secs_f64()
        ));
        first.push(ips(&pods));
    }
    for node in &workers {
        context.until(&format!("the blocks of {node} as before"), || {
            let now = blocks(context, node)?.remove(DEFAULT).unwrap_or_default();
            let then = before[node].1.get(DEFAULT).map_or(0, Vec::len);
            Ok(if now.len() <= then { Ok(()) } else { Err(format!("{} blocks instead of {then}", now.len())) })
        })?;
    }
    let again = first[0].intersection(&first[1]).count();
    Ok(format!("{count} pods: {}; {again} addresses were given again", told.join(", then ")))
}

/// Until each of them has an address, whether it runs yet or not.
fn addressed(context: &Context<'_>, count: usize, begun: Instant) -> Result<Vec<Started>, Stop> {
    // A hundred pods take some ten seconds on two cores.
    let patience = Duration::from_secs(60 + count as u64);
    loop {
        let pods = context.pods_of("burst")?;
        let with = pods.iter().filter(|pod| !pod.ips.is_empty()).count();
        if with == count {
            return Ok(pods);
        }
        if begun.elapsed() > patience {
            let late = pods.iter().find(|pod| pod.ips.is_empty()).map(|pod| pod.name.clone()).unwrap_or_default();
            let events = context.events(&late)?.join("; ");
            return Err(Stop::broken(format!(
                "{with} of {count} pods have an address after {} s; {late}: {events}",
                patience.as_secs()
            )));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
