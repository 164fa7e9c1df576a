//! Packets of every size, from none to what a header can say.

use crate::cluster::{
    context::Context,
    place::{Place, Question, failures, name},
    verdict::{Judged, Stop, told},
    worker::Ask,
};

/// Around these, one less and one more: alignment, the least and the usual MTU, jumbo frames, less the headers of
/// IPv4 or IPv6 with UDP or ICMP (28 and 48 bytes).
const EDGES: [usize; 10] = [1, 2, 8, 64, 1280 - 48, 1500 - 48, 1500 - 28, 1500, 9000 - 28, 32_768];
/// Sizes that the seed decides, besides.
const RANDOM: usize = 6;
/// Bytes that a connection carries, around one segment and many.
const STREAMS: [usize; 6] = [1, 1_447, 1_448, 1_449, 65_536, 1 << 20];
/// Datagrams of several fragments that are on their way at once.
const AT_ONCE: usize = 12;

/// The largest payload of one UDP datagram or echo request: both headers have 8 bytes. IPv4 counts its own header of 20
/// bytes in the length's 16 bits (RFC 791), IPv6 does not (RFC 8200 section 3).
fn largest(is_ipv4: bool) -> usize {
    if is_ipv4 { 65_535 - 20 - 8 } else { 65_535 - 8 }
}

fn sizes(context: &Context<'_>, is_ipv4: bool) -> Vec<usize> {
    let mut sizes: Vec<usize> = EDGES.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]).collect();
    sizes.extend([largest(is_ipv4) - 1, largest(is_ipv4)]);
    sizes.extend((0..RANDOM).map(|_| context.below(largest(is_ipv4))));
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A pod asks another on its own node and one on the other node.
pub(in crate::cluster) fn every_size(context: &Context<'_>) -> Judged {
    let pods = context.start_on(&context.two_nodes(), "pod", 2)?;
    let [a, b, c, d] = &pods[..] else { return Err(Stop::broken("there are not four pods")) };
    let pairs = [(a, b), (c, d), (a, c), (d, b)];
    let (mut failed, mut asked) = (open_paths(context, &pairs)?, 0);
    for (from, to) in pairs {
        let mut questions = Vec::new();
        for is_ipv4 in context.families() {
            for length in sizes(context, is_ipv4) {
                questions.extend(datagrams(context, from, to, is_ipv4, length));
            }
            let Some(ends) = to.ends(is_ipv4) else { continue };
            questions.extend(STREAMS.map(|length| Question {
                from,
                ask: Ask::Tcp { to: ends.tcp, key: to.key, seed: context.random(), length },
                name: name(from, to, "TCP", is_ipv4, length),
            }));
        }
        // One pair at a time: all of them at once are more fragments than one kernel keeps (ip6frag_high_thresh, 4 MiB a
        // network namespace), and what it then drops is nobody's fault.
        failed.extend(failures(&questions)?);
        asked += questions.len();
    }
    told(&failed, asked)
}

/// Many datagrams of several fragments at once, between pods and between pods and nodes, so that fragments of several
/// datagrams arrive mixed and have to be told apart.
pub(in crate::cluster) fn fragments(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let pods = context.start_on(&two, "pod", 1)?;
    let nodes = context.node_places(&two)?;
    let ([a, b], [na, nb]) = (&pods[..], &nodes[..]) else { return Err(Stop::broken("there are not two of each")) };
    let pairs = [(a, b), (b, a), (na, a), (a, na), (nb, a), (a, nb)];
    let (mut failed, mut asked) = (open_paths(context, &pairs)?, 0);
    for (from, to) in pairs {
        let mut questions = Vec::new();
        for is_ipv4 in context.families() {
            for _ in 0..AT_ONCE {
                // Two fragments at least, whatever the MTU of this path below that of jumbo frames.
                let length = 9_001 + context.below(largest(is_ipv4) - 9_000);
                questions.extend(datagrams(context, from, to, is_ipv4, length));
            }
        }
        failed.extend(failures(&questions)?);
        asked += questions.len();
    }
    told(&failed, asked)
}

/// Asks one small question over every path: while a neighbour is being resolved its kernel keeps 208 KiB for it
/// (`unres_qlen_bytes`) and drops the rest, which a first burst of large datagrams would run into.
fn open_paths(context: &Context<'_>, pairs: &[(&Place, &Place)]) -> Result<Vec<String>, Stop> {
    let families = move || context.families().into_iter();
    let small = pairs.iter().flat_map(|(from, to)| families().flat_map(move |v4| datagrams(context, from, to, v4, 8)));
    failures(&small.collect::<Vec<_>>())
}

fn datagrams<'a>(
    context: &Context<'_>,
    from: &'a Place,
    to: &Place,
    is_ipv4: bool,
    length: usize,
) -> Vec<Question<'a>> {
    let Some(ends) = to.ends(is_ipv4) else { return Vec::new() };
    let udp = Ask::Udp { to: ends.udp, key: to.key, seed: context.random(), length };
    let ping = Ask::Ping { to: ends.udp.ip(), seed: context.random(), length, hop_limit: None };
    [("UDP", udp), ("ICMP", ping)]
        .map(|(protocol, ask)| Question { from, ask, name: name(from, to, protocol, is_ipv4, length) })
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_is_what_the_headers_length_can_say() {
        assert_eq!((largest(true), largest(false)), (65_507, 65_527));
    }
}
