//! What routers on the way say of tunnels' packets that were too big, what pretends to be that, and what is learned of either.
//! None of it is kept from the node's own stack.

use std::{vec, vec::Vec};

use kinesin_abi::Entry;

use super::{
    A4, A6, Row,
    checks::untouched,
    incoming,
    node::{MTU, NARROW_MTU, POD_IDENTITY},
    packets::{Draft, draft, geneve, tcp, too_big, udp_around, vxlan},
    row,
};
use crate::Verdict;

const OWN4: &str = "192.168.10.101";
const OWN6: &str = "fd00:192:168:10::101";
const PEER4: &str = "192.168.10.103";
const PEER6: &str = "fd00:192:168:10::103";
const ROUTER4: &str = "192.168.10.1";
const ROUTER6: &str = "fd00:192:168:10::1";
const BY_VXLAN: &str = "10.244.3.9";
/// What the router says, and its bytes.
const SAID: u16 = 1380;
/// What a router gives at least where it gives more than it has to; a quote ends anywhere.
const QUOTED: usize = 128;
/// The shortest quote that shows both addresses of an IPv4 packet inside, over IPv4.
const ENOUGH: usize = 20 + 8 + 8 + 14 + 20;

/// A pod's packet in a frame, as it is inside a tunnel.
fn inside(source: &str, destination: &str) -> Vec<u8> {
    draft(source, destination, 6, tcp(1340)).bytes()
}

/// A tunnel's packet from one node to another.
fn outside(ends: [&str; 2], port: u16, frame: &[u8]) -> Draft {
    let data = if port == 6081 { geneve(POD_IDENTITY, &[], frame) } else { vxlan(POD_IDENTITY, frame) };
    draft(ends[0], ends[1], 17, udp_around(50_000, port, &data)).fragment(0x4000)
}

/// The first bytes of a packet, without its Ethernet header.
fn quote(of: &Draft, length: usize) -> Vec<u8> {
    of.bytes()[14..14 + length].to_vec()
}

fn vxlan4(frame: &[u8]) -> Vec<u8> {
    quote(&outside([OWN4, PEER4], 8472, frame), QUOTED)
}

fn told(name: &'static str, message: &Draft) -> Row {
    incoming(name, message.bytes(), Verdict::Pass).check(untouched)
}

fn to_node(mtu: u16, quote: &[u8]) -> Draft {
    too_big(ROUTER4, OWN4, mtu, quote)
}

fn to_node6(mtu: u16, quote: &[u8]) -> Draft {
    too_big(ROUTER6, OWN6, mtu, quote)
}

pub(super) fn believed() -> Vec<Row> {
    let v4 = inside(A4, BY_VXLAN);
    let v6 = |destination| inside(A6, destination);
    let (far6, geneve6, narrow) = ("fd00:10:244:3::9", "fd00:10:244:6::9", "10.244.7.9");
    let by_geneve6 = quote(&outside([OWN6, PEER6], 6081, &v6(geneve6)), QUOTED);
    vec![
        told("too big for the way, VXLAN", &to_node(SAID, &vxlan4(&v4))).learns(BY_VXLAN, PEER4, SAID),
        told("the same, with the shortest quote that will do", &to_node(SAID, &vxlan4(&v4)[..ENOUGH]))
            .learns(BY_VXLAN, PEER4, SAID),
        told("the same, from whoever is on the way", &too_big("203.0.113.9", OWN4, SAID, &vxlan4(&v4)))
            .learns(BY_VXLAN, PEER4, SAID),
        told("too big for the way, IPv6 by VXLAN", &to_node(SAID, &vxlan4(&v6(far6)))).learns(far6, PEER4, SAID),
        told(
            "too big for the way, Geneve",
            &to_node(SAID, &quote(&outside([OWN4, PEER4], 6081, &inside(A4, "10.244.5.9")), QUOTED)),
        )
        .learns("10.244.5.9", PEER4, SAID),
        told("too big for the way, Geneve over IPv6", &to_node6(SAID, &by_geneve6)).learns(geneve6, PEER6, SAID),
        told(
            "too big for the way, IPv4 by VXLAN over IPv6",
            &to_node6(SAID, &quote(&outside([OWN6, PEER6], 8472, &inside(A4, "10.244.6.9")), QUOTED)),
        )
        .learns("10.244.6.9", PEER6, SAID),
        told("narrower than what was known", &to_node(NARROW_MTU - 1, &vxlan4(&inside(A4, narrow)))).learns(
            narrow,
            PEER4,
            NARROW_MTU - 1,
        ),
        told("less than every host takes", &to_node(68, &vxlan4(&v4))).learns(BY_VXLAN, PEER4, 576 + 50),
        told("less than IPv6 needs", &to_node(1290, &vxlan4(&v6(far6)))).learns(far6, PEER4, 1280 + 50),
        told("less than IPv6 needs, over IPv6", &to_node6(1280, &by_geneve6)).learns(geneve6, PEER6, 1280 + 70),
    ]
}

pub(super) fn not_believed() -> Vec<Row> {
    let v4 = inside(A4, BY_VXLAN);
    let good = vxlan4(&v4);
    let changed = |at: usize, value: u8| {
        let mut quote = good.clone();
        quote[at] = value;
        quote
    };
    let from = |ends, port, frame: &[u8]| to_node(SAID, &quote(&outside(ends, port, frame), QUOTED));
    let other_kind = |kind: u8, code: u8| {
        let mut message = to_node(SAID, &good);
        message.payload[..2].copy_from_slice(&[kind, code]);
        message
    };
    let own = MTU as u16;
    let cut = |length: usize| to_node(SAID, &good[..length]);
    let mut message = to_node(SAID, &good).bytes();
    message[..6].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
    vec![
        told("a quote of eight bytes", &cut(28)),
        told("a quote that ends before the address inside", &cut(ENOUGH - 1)),
        told("no quote", &cut(0)),
        told("too big for the way, and no number", &to_node(0, &good)),
        told("as wide as the uplink", &to_node(own, &good)),
        told("wider than the uplink", &to_node(9000, &good)),
        told("as wide as what was known", &to_node(NARROW_MTU, &vxlan4(&inside(A4, "10.244.7.9")))),
        told("another code", &other_kind(3, 3)),
        told("another type", &other_kind(11, 4)),
        told("no error at all", &other_kind(8, 4)),
        told("to another address of the node", &too_big(ROUTER4, "10.244.1.1", SAID, &good)),
        told("with IP options", &to_node(SAID, &good).options(&[1, 1, 1, 0])),
        told("in a first fragment", &to_node(SAID, &good).fragment(0x2000)),
        told("about another node's packet", &from([PEER4, PEER4], 8472, &v4)),
        told("about a packet to another node", &from([OWN4, "192.168.10.102"], 8472, &v4)),
        told("about a packet to a stranger", &from([OWN4, "203.0.113.7"], 8472, &v4)),
        told("about another port", &from([OWN4, PEER4], 53, &v4)),
        told("about another tunnel than the one that leads there", &from([OWN4, PEER4], 6081, &v4)),
        told(
            "about a packet that is carried natively",
            &from([OWN4, "192.168.10.102"], 8472, &inside(A4, "10.244.2.5")),
        ),
        told("about a packet to this node's pods", &from([OWN4, PEER4], 8472, &inside(A4, "10.244.1.99"))),
        told("about a packet to the world", &from([OWN4, PEER4], 8472, &inside(A4, "1.1.1.1"))),
        told("about a packet to the node itself", &from([OWN4, PEER4], 8472, &inside(A4, PEER4))),
        told("about a packet that none of ours has sent", &from([OWN4, PEER4], 8472, &inside("10.244.1.77", BY_VXLAN))),
        told("about TCP", &to_node(SAID, &changed(9, 6))),
        told("about a fragment", &to_node(SAID, &changed(6, 0x20))),
        told("about a packet with options", &to_node(SAID, &changed(0, 0x46))),
        told("about no IPv4", &to_node(SAID, &changed(0, 0x65))),
        told("about other flags of VXLAN", &to_node(SAID, &changed(28, 0x0c))),
        told("about no IP inside", &to_node(SAID, &changed(48, 0x88))),
        told("IPv6's message about IPv4", &to_node6(SAID, &good)),
        row("to another's link", Entry::FromNetdev, message, Verdict::Pass).check(untouched),
    ]
}
