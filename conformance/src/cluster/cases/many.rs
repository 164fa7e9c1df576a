//! Many pods at once.

use std::{collections::BTreeSet, time::Instant};

use crate::cluster::{
    context::Context,
    place::{every_protocol, failures},
    verdict::{Judged, Stop, told},
};

/// Others that each pod asks, besides the next one.
const OTHERS: usize = 2;

/// All of them start, no address is given twice, and each is reached by others.
pub(in crate::cluster) fn start_at_once(context: &Context<'_>) -> Judged {
    let nodes = context.two_nodes();
    let begun = Instant::now();
    let pods = context.start_on(&nodes, "pod", context.scale.pods.div_ceil(nodes.len()))?;
    let took = begun.elapsed();
    let mut addresses = BTreeSet::new();
    for pod in &pods {
        for ip in &pod.ips {
            if !addresses.insert(*ip) {
                return Err(Stop::broken(format!("{ip} of {pod} belongs to another pod as well")));
            }
        }
    }
    let mut questions = Vec::new();
    for (at, from) in pods.iter().enumerate() {
        let mut others = vec![(at + 1) % pods.len()];
        others.extend((0..OTHERS).map(|_| context.below(pods.len())).filter(|other| *other != at));
        for is_ipv4 in context.families() {
            for other in &others {
                questions.extend(every_protocol(from, &pods[*other], is_ipv4, context.random(), 100));
            }
        }
    }
    let answered = told(&failures(&questions)?, questions.len())?;
    Ok(format!("{} pods ran after {:.1} s; {answered}", pods.len(), took.as_secs_f64()))
}
