//! Addresses that come back to other pods.

use std::{collections::BTreeMap, net::IpAddr};

use crate::cluster::{
    context::Context,
    place::{Question, every_protocol, failures},
    verdict::{Judged, Stop, told},
};

/// Pods that are replaced at once.
const BATCH: usize = 6;
/// Replacements until an address must have come back: with at most 32 addresses the odds against it are far below one in
/// a billion.
const ROUNDS: usize = 20;

/// Pods come and go until one has an address that another had. Peers on both nodes that have spoken with the old holder
/// reach the new one, and it is the new one that answers.
pub(in crate::cluster) fn address_is_used_again(context: &Context<'_>) -> Judged {
    let nodes = context.two_nodes();
    let peers = context.start_on(&nodes, "peer", 1)?;
    let mut before: BTreeMap<IpAddr, u8> = BTreeMap::new();
    let (mut asked, mut reused) = (0, 0);
    for round in 0..ROUNDS {
        let named = |i| (format!("pod-{round}-{i}"), nodes[1].name.clone());
        let names: Vec<(String, String)> = (0..BATCH).map(named).collect();
        let pods = context.start(&names)?;
        let mut questions: Vec<Question<'_>> = Vec::new();
        for pod in &pods {
            for peer in &peers {
                for is_ipv4 in context.families() {
                    questions.extend(every_protocol(peer, pod, is_ipv4, context.random(), 64));
                    questions.extend(every_protocol(pod, peer, is_ipv4, context.random(), 64));
                }
            }
        }
        asked += questions.len();
        told(&failures(&questions)?, questions.len())?;
        drop(questions);
        for pod in &pods {
            for ip in &pod.ips {
                reused += usize::from(before.insert(*ip, pod.key).is_some_and(|old| old != pod.key));
            }
        }
        context.delete(&names.into_iter().map(|(name, _)| name).collect::<Vec<_>>())?;
        let families = context.families();
        let came_back = reused >= families.len() && round > 0;
        if came_back {
            return Ok(format!(
                "{reused} addresses came back within {} pods; {asked} questions answered",
                (round + 1) * BATCH
            ));
        }
    }
    Err(Stop::broken(format!("no address came back within {} pods, so nothing was judged", ROUNDS * BATCH)))
}
