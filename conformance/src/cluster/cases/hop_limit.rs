//! The hop limit: counted down by every router on the way, and answered for when it is used up (RFC 792, RFC 4443).

use crate::cluster::{
    context::Context,
    place::Place,
    verdict::{Judged, Stop},
    worker::{Ask, Told},
};

/// A way within one cluster has fewer routers than this.
const MOST: u8 = 6;

/// From a pod to one on its own node, and to one on the other: a hop limit of 1 is used up at the first router, and from
/// some limit on the answer comes. Every router answers for what it uses up, the one at the far end of a tunnel too.
pub(in crate::cluster) fn counts_down(context: &Context<'_>) -> Judged {
    let pods = context.start_on(&context.two_nodes(), "pod", 2)?;
    let [a, b, c, _] = &pods[..] else { return Err(Stop::broken("there are not four pods")) };
    let mut seen = Vec::new();
    for to in [b, c] {
        for is_ipv4 in context.families() {
            let hops = hops(context, a, to, is_ipv4)?;
            let way = if to.node == a.node { "one node" } else { "two nodes" };
            seen.push(format!("IPv{} on {way}: {hops} hops", if is_ipv4 { 4 } else { 6 }));
        }
    }
    Ok(seen.join(", "))
}

/// The least limit that arrives.
fn hops(context: &Context<'_>, from: &Place, to: &Place, is_ipv4: bool) -> Result<u8, Stop> {
    let Some(ip) = to.ip(is_ipv4) else { return Err(Stop::broken(format!("{to} has no address"))) };
    let way = format!("{from} to {to} ({ip})");
    let mut arrived = None;
    for limit in 1..=MOST {
        // One at a time: routers answer errors at a limited rate (RFC 4443 section 2.4).
        let ping = Ask::Ping { to: ip, seed: context.random(), length: 16, hop_limit: Some(limit) };
        match (from.ask(&[ping])?.into_iter().next(), arrived) {
            (Some(Ok(Told::Answered)), _) => arrived = arrived.or(Some(limit)),
            (Some(Ok(Told::TimeExceeded { from: router })), None) if router != ip => {}
            (Some(Ok(Told::TimeExceeded { from: router })), _) => {
                return Err(Stop::broken(format!("{way}: {router} says that a hop limit of {limit} is used up")));
            }
            (other, _) => return Err(Stop::broken(format!("{way} with hop limit {limit}: {other:?}"))),
        }
    }
    match arrived {
        Some(1) => Err(Stop::broken(format!("{way}: a hop limit of 1 arrives, so nobody counts it down"))),
        Some(hops) => Ok(hops),
        None => Err(Stop::broken(format!("{way}: a hop limit of {MOST} does not arrive"))),
    }
}
