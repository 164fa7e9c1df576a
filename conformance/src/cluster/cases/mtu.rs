//! Path MTU discovery: a way that becomes narrower tells so, and what is sent next fits (RFC 1191, RFC 8201).

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::cluster::{
    context::Context,
    place::{Place, every_protocol, failures},
    verdict::{Judged, Stop, told},
    worker::{Ask, Told},
};

/// The narrow way, in bytes of IP packet; IPv6 has 1280 at least, also within a carrier.
const NARROW: u32 = 1_380;
/// More than that, less than any usual MTU with a carrier's headers.
const WIDE: u32 = 1_400;
/// How long the datapath may take to follow the agents, which watch the devices.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(250);

/// Gives the devices their MTU back, also when the case fails.
struct Narrowed<'a> {
    context: &'a Context<'a>,
    before: Vec<(String, u32)>,
}

impl Drop for Narrowed<'_> {
    fn drop(&mut self) {
        // The verdict stands; what is left narrow is seen by whoever comes next.
        for (node, mtu) in self.before.drain(..) {
            let _ = self.context.target.set_mtu(&node, mtu);
        }
    }
}

/// Packets that may not be cut and fit first, fit no more when the underlay becomes narrower; the sender learns by how
/// much, and streams and datagrams go on arriving.
pub(in crate::cluster) fn is_discovered(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let pods = context.start_on(&two, "pod", 2)?;
    let [a, neighbour, b, _] = &pods[..] else { return Err(Stop::broken("there are not four pods")) };
    for is_ipv4 in context.families() {
        match whole(context, a, b, is_ipv4, WIDE)? {
            Ok(Told::Answered) => {}
            other => return Err(Stop::broken(format!("{a} to {b}, {WIDE} bytes over {}: {other:?}", family(is_ipv4)))),
        }
    }
    let mut narrowed = Narrowed { context, before: Vec::new() };
    for node in &two {
        let before = context.target.set_mtu(&node.name, NARROW)?;
        narrowed.before.push((node.name.clone(), before));
    }
    let mut seen = Vec::new();
    for is_ipv4 in context.families() {
        // Each direction learns by packets of its own.
        for (from, to) in [(a, b), (b, a)] {
            let mtu = discovered(context, from, to, is_ipv4)?;
            match whole(context, from, to, is_ipv4, mtu)? {
                Ok(Told::Answered) => seen.push(format!("{}: {mtu} bytes", family(is_ipv4))),
                other => {
                    let told =
                        format!("{from} to {to}: told that {mtu} bytes fit over {}, but: {other:?}", family(is_ipv4));
                    return Err(Stop::broken(told));
                }
            }
        }
        // On one node nothing has become narrower, unless the agent has lowered the MTU of running pods, which holds for
        // every destination.
        match whole(context, a, neighbour, is_ipv4, WIDE)? {
            Ok(Told::Answered) => {}
            Ok(Told::TooBig { mtu }) if (NARROW - 100..=NARROW).contains(&mtu) => {}
            other => {
                return Err(Stop::broken(format!(
                    "{a} to {neighbour}, {WIDE} bytes over {}: {other:?}",
                    family(is_ipv4)
                )));
            }
        }
    }
    let mut questions = Vec::new();
    for is_ipv4 in context.families() {
        for (from, to) in [(a, b), (b, a)] {
            for length in [1_000, 20_000, 60_000] {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), length));
            }
        }
    }
    let answered = told(&failures(&questions)?, questions.len())?;
    Ok(format!("path MTU of {NARROW} bytes was told as {}; {answered}", seen.join(", ")))
}

/// One node's uplink becomes narrower than the other's on the same segment, so that nobody on the way can say so: the other
/// node learns it from that node. Nothing else becomes narrower.
pub(in crate::cluster) fn of_one_node(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let [_, there] = &two[..] else { return Err(Stop::broken("there are not two nodes")) };
    let pods = context.start_on(&two, "pod", 2)?;
    let [a, neighbour, b, _] = &pods[..] else { return Err(Stop::broken("there are not four pods")) };
    for is_ipv4 in context.families() {
        arrives(context, a, b, is_ipv4, WIDE)?;
    }
    let mut narrowed = Narrowed { context, before: Vec::new() };
    let before = context.target.set_mtu(&there.name, NARROW)?;
    narrowed.before.push((there.name.clone(), before));
    let (mut seen, mut questions) = (Vec::new(), Vec::new());
    for is_ipv4 in context.families() {
        for (from, to) in [(a, b), (b, a)] {
            let mtu = discovered(context, from, to, is_ipv4)?;
            arrives(context, from, to, is_ipv4, mtu)?;
            seen.push(format!("{}: {mtu} bytes", family(is_ipv4)));
            for length in [1_000, 20_000, 60_000] {
                questions.extend(every_protocol(from, to, is_ipv4, context.random(), length));
            }
        }
        arrives(context, a, neighbour, is_ipv4, WIDE)?;
    }
    let answered = told(&failures(&questions)?, questions.len())?;
    Ok(format!("path MTU to and from a node of {NARROW} bytes was told as {}; {answered}", seen.join(", ")))
}

/// One packet of so many bytes is answered.
fn arrives(context: &Context<'_>, from: &Place, to: &Place, is_ipv4: bool, bytes: u32) -> Result<(), Stop> {
    match whole(context, from, to, is_ipv4, bytes)? {
        Ok(Told::Answered) => Ok(()),
        other => Err(Stop::broken(format!("{from} to {to}, {bytes} bytes over {}: {other:?}", family(is_ipv4)))),
    }
}

pub(super) fn family(is_ipv4: bool) -> &'static str {
    if is_ipv4 { "IPv4" } else { "IPv6" }
}

/// One packet of so many bytes, IP header included.
pub(super) fn whole(
    context: &Context<'_>,
    from: &Place,
    to: &Place,
    is_ipv4: bool,
    bytes: u32,
) -> Result<Result<Told, String>, Stop> {
    let Some(ends) = to.ends(is_ipv4) else { return Err(Stop::broken(format!("{to} has no address"))) };
    let headers = if is_ipv4 { 28 } else { 48 };
    let length = usize::try_from(bytes).unwrap_or_default().saturating_sub(headers);
    let ask = Ask::Whole { to: ends.udp, key: to.key, seed: context.random(), length };
    from.ask(&[ask])?.into_iter().next().ok_or_else(|| Stop::broken(format!("{from} said nothing")))
}

/// What the sender is told.
fn discovered(context: &Context<'_>, from: &Place, to: &Place, is_ipv4: bool) -> Result<u32, Stop> {
    let until = Instant::now() + PATIENCE;
    loop {
        let told = whole(context, from, to, is_ipv4, WIDE)?;
        match told {
            // A carrier's own headers come off.
            Ok(Told::TooBig { mtu }) if (NARROW - 100..=NARROW).contains(&mtu) => return Ok(mtu),
            _ if Instant::now() > until => {
                return Err(Stop::broken(format!(
                    "{from} to {to}: {} s after the underlay's MTU became {NARROW}, {WIDE} bytes over {} without \
                     fragments: {told:?}",
                    PATIENCE.as_secs(),
                    family(is_ipv4)
                )));
            }
            _ => thread::sleep(LOOK),
        }
    }
}
