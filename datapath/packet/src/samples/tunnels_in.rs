//! Out of a tunnel: what is accepted, and what is refused.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, Mark};

use super::{
    A4, B4, B6, Row,
    checks::{delivered_v4, delivered_v6, error_v4, error_v6, inner, untouched},
    error, incoming,
    node::{NEIGHBOUR, STACK_ETH},
    packets::{Draft, arp, checksum, draft, geneve, icmp, tcp, udp, udp_around, vxlan},
};
use crate::{IcmpError, Verdict};

const OWN4: &str = "192.168.10.101";
const OWN6: &str = "fd00:192:168:10::101";
const PEER4: &str = "192.168.10.103";
const PEER6: &str = "fd00:192:168:10::103";
/// Pods behind that peer.
const FAR4: &str = "10.244.3.9";
const FAR6: &str = "fd00:10:244:3::9";
/// An identity of its own.
const IDENTITY: u32 = 0x00ab_cdef;
/// Two options that need not be understood, of 4 and of 12 bytes.
const OPTIONS: [u8; 16] = [1, 2, 3, 0, 0x12, 0x34, 1, 2, 9, 9, 9, 9, 8, 8, 8, 8];

fn from_peer(port: u16, data: &[u8]) -> Draft {
    draft(PEER4, OWN4, 17, udp_around(50000, port, data))
}

fn from_peer6(port: u16, data: &[u8]) -> Draft {
    draft(PEER6, OWN6, 17, udp_around(50000, port, data))
}

/// An IPv4 packet to the pod, as a frame.
fn frame4() -> Vec<u8> {
    draft(FAR4, B4, 6, tcp(20)).bytes()
}

fn frame6() -> Vec<u8> {
    draft(FAR6, B6, 6, tcp(20)).bytes()
}

fn delivered_inner_v4(input: &[u8], output: &[u8]) {
    delivered_v4(inner(input), output);
}

fn delivered_inner_v6(input: &[u8], output: &[u8]) {
    delivered_v6(inner(input), output);
}

fn to_stack(input: &[u8], output: &[u8]) {
    assert_eq!((&output[..12], &output[12..]), (&STACK_ETH[..], &inner(input)[12..]));
}

pub(super) fn accepted() -> Vec<Row> {
    let here = Verdict::Deliver { ifindex: NEIGHBOUR };
    let stack = Verdict::ToHost(Mark::of_identity(IDENTITY));
    let router4 = draft(FAR4, "10.244.1.1", 1, icmp(8, 56)).bytes();
    let router6 = draft(FAR6, "fd00:10:244:1::1", 58, icmp(128, 8)).bytes();
    let longest = [1, 2, 3, 0].repeat(63);
    vec![
        incoming("VXLAN to pod", from_peer(8472, &vxlan(IDENTITY, &frame4())).bytes(), here).check(delivered_inner_v4),
        incoming("VXLAN to pod, IPv6", from_peer(8472, &vxlan(IDENTITY, &frame6())).bytes(), here)
            .check(delivered_inner_v6),
        incoming("VXLAN over IPv6 to pod", from_peer6(8472, &vxlan(IDENTITY, &frame4())).bytes(), here)
            .check(delivered_inner_v4),
        incoming("VXLAN over IPv6 to pod, IPv6", from_peer6(8472, &vxlan(IDENTITY, &frame6())).bytes(), here)
            .check(delivered_inner_v6),
        incoming("Geneve to pod", from_peer(6081, &geneve(IDENTITY, &[], &frame4())).bytes(), here)
            .check(delivered_inner_v4),
        incoming("Geneve over IPv6 to pod, IPv6", from_peer6(6081, &geneve(IDENTITY, &[], &frame6())).bytes(), here)
            .check(delivered_inner_v6),
        incoming("Geneve with options", from_peer(6081, &geneve(IDENTITY, &OPTIONS, &frame4())).bytes(), here)
            .check(|i, o| delivered_v4(&inner(i)[16..], o)),
        incoming(
            "Geneve with options over IPv6",
            from_peer6(6081, &geneve(IDENTITY, &OPTIONS, &frame4())).bytes(),
            here,
        )
        .check(|i, o| delivered_v4(&inner(i)[16..], o)),
        incoming("Geneve with the most options", from_peer(6081, &geneve(IDENTITY, &longest, &frame6())).bytes(), here)
            .check(|i, o| delivered_v6(&inner(i)[252..], o)),
        // Neither is looked at: the first covers what the checksums inside cover (RFC 7348 section 5), and the second one is the
        // receiver's, whom no repair may deceive.
        incoming(
            "VXLAN with a wrong checksum of UDP",
            with(from_peer(8472, &vxlan(IDENTITY, &frame4())).bytes(), 40, 0x55),
            here,
        )
        .check(delivered_inner_v4),
        incoming(
            "VXLAN around a wrong header checksum",
            from_peer(8472, &vxlan(IDENTITY, &with(frame4(), 24, 0x55))).bytes(),
            here,
        )
        .check(|_, o| assert_ne!(checksum(&o[14..34]), 0, "it stays wrong")),
        incoming("VXLAN to the router", from_peer(8472, &vxlan(IDENTITY, &router4)).bytes(), stack).check(to_stack),
        incoming("Geneve to the router, IPv6", from_peer(6081, &geneve(IDENTITY, &[], &router6)).bytes(), stack)
            .check(to_stack),
        incoming("VXLAN's port to a pod", draft(PEER4, B4, 17, udp(9, 8472, 8)).bytes(), here).check(delivered_v4),
        incoming("another port of the node", draft(PEER4, OWN4, 17, udp(9, 8473, 40)).bytes(), Verdict::Pass)
            .check(untouched),
        incoming(
            "a later fragment to the node",
            from_peer(8472, &vxlan(IDENTITY, &frame4())).fragment(8).bytes(),
            Verdict::Pass,
        )
        .check(untouched),
    ]
}

/// RFC 6040 section 4.2.
pub(super) fn congestion() -> Vec<Row> {
    let here = Verdict::Deliver { ifindex: NEIGHBOUR };
    let (capable, marked) = (0xb8 | 2, 3);
    let class4 = |class| draft(FAR4, B4, 6, tcp(20)).class(class).bytes();
    let class6 = |class| draft(FAR6, B6, 6, tcp(20)).class(class).bytes();
    vec![
        incoming("a congestion mark", from_peer(8472, &vxlan(IDENTITY, &class4(capable))).class(marked).bytes(), here)
            .check(|i, o| {
                assert_eq!(o[15], 0xb8 | 3, "the DSCP stays");
                assert_eq!(checksum(&o[14..34]), 0);
                assert_eq!(o[26..], inner(i)[26..]);
            }),
        incoming(
            "a congestion mark, IPv6",
            from_peer6(6081, &geneve(IDENTITY, &[], &class6(capable))).class(marked).bytes(),
            here,
        )
        .check(|i, o| {
            assert_eq!(o[14..16], [0x6b, 0xb0]);
            assert_eq!(o[22..], inner(i)[22..]);
        }),
        incoming(
            "a packet that was marked before",
            from_peer(8472, &vxlan(IDENTITY, &class4(3))).class(1).bytes(),
            here,
        )
        .check(delivered_inner_v4),
        incoming(
            "a congestion mark that cannot be carried",
            from_peer(8472, &vxlan(IDENTITY, &class4(0xb8))).class(marked).bytes(),
            Verdict::Drop(DropReason::Congestion),
        ),
        incoming(
            "a congestion mark that cannot be carried, IPv6",
            from_peer(6081, &geneve(IDENTITY, &[], &class6(0))).class(marked).bytes(),
            Verdict::Drop(DropReason::Congestion),
        ),
    ]
}

fn refused(name: &'static str, bytes: Vec<u8>, reason: DropReason) -> Row {
    incoming(name, bytes, Verdict::Drop(reason))
}

/// `bytes` with another value at `at`.
fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

pub(super) fn refused_outside() -> Vec<Row> {
    let good = || vxlan(IDENTITY, &frame4());
    let good_geneve = || geneve(IDENTITY, &OPTIONS, &frame4());
    // Offsets of the tunnel's header in a frame over IPv4.
    let (udp_len, first, vni) = (38, 42, 46);
    let tunnel = DropReason::InvalidTunnel;
    let invalid = DropReason::InvalidPacket;
    vec![
        refused(
            "VXLAN from a stranger",
            draft("192.168.10.99", OWN4, 17, udp_around(1, 8472, &good())).bytes(),
            DropReason::UnknownSender,
        ),
        refused(
            "Geneve from a pod of the cluster, past the tunnel",
            draft(FAR4, OWN4, 17, udp_around(1, 6081, &good_geneve())).bytes(),
            DropReason::UnknownSender,
        ),
        refused(
            "VXLAN over IPv6 from a stranger",
            draft("fd00:192:168:10::99", OWN6, 17, udp_around(1, 8472, &good())).bytes(),
            DropReason::UnknownSender,
        ),
        refused(
            "VXLAN to the router's address",
            draft(PEER4, "10.244.1.1", 17, udp_around(1, 8472, &good())).bytes(),
            DropReason::TunnelForbidden,
        ),
        refused("first fragment of VXLAN", from_peer(8472, &good()).fragment(0x2000).bytes(), DropReason::Fragmented),
        refused(
            "first fragment of VXLAN over IPv6",
            from_peer6(8472, &good()).extensions(44, &[17, 0, 0, 1, 0, 0, 0, 7]).bytes(),
            DropReason::Fragmented,
        ),
        refused("VXLAN behind options", from_peer(8472, &good()).options(&[1, 1, 1, 0]).bytes(), invalid),
        refused(
            "VXLAN behind destination options",
            from_peer6(8472, &good()).extensions(60, &[17, 0, 1, 4, 0, 0, 0, 0]).bytes(),
            invalid,
        ),
        refused("VXLAN with a wrong header checksum", with(from_peer(8472, &good()).bytes(), 24, 0x55), invalid),
        refused("VXLAN without the flag", with(from_peer(8472, &good()).bytes(), first, 0), tunnel),
        refused("VXLAN with another flag", with(from_peer(8472, &good()).bytes(), first, 0x0c), tunnel),
        refused("VXLAN with a reserved byte", with(from_peer(8472, &good()).bytes(), vni + 3, 1), tunnel),
        refused("VXLAN for nobody", from_peer(8472, &vxlan(0, &frame4())).bytes(), DropReason::InvalidIdentity),
        refused(
            "VXLAN from the node itself",
            from_peer(8472, &vxlan(1, &frame4())).bytes(),
            DropReason::InvalidIdentity,
        ),
        refused("VXLAN longer than its packet", with(from_peer(8472, &good()).bytes(), udp_len, 1), invalid),
        refused("VXLAN cut in its own header", from_peer(8472, &good()[..5]).bytes(), invalid),
        refused("VXLAN without a frame", from_peer(8472, &good()[..20]).bytes(), invalid),
        refused("Geneve of version 1", with(from_peer(6081, &good_geneve()).bytes(), first, 0x44), tunnel),
        refused("Geneve for control", with(from_peer(6081, &good_geneve()).bytes(), first + 1, 0x80), tunnel),
        refused("Geneve without Ethernet", with(from_peer(6081, &good_geneve()).bytes(), first + 2, 0x08), tunnel),
        refused(
            "Geneve with a critical option",
            with(from_peer(6081, &good_geneve()).bytes(), first + 1, 0x40),
            DropReason::GeneveOption,
        ),
        refused("Geneve for nobody", from_peer(6081, &geneve(0, &[], &frame4())).bytes(), DropReason::InvalidIdentity),
        refused(
            "Geneve with options beyond its end",
            with(from_peer(6081, &good_geneve()).bytes(), first, 0x3f),
            invalid,
        ),
    ]
}

pub(super) fn refused_inside() -> Vec<Row> {
    let by_vxlan = |frame: &[u8]| from_peer(8472, &vxlan(IDENTITY, frame)).bytes();
    let by_geneve = |frame: &[u8]| from_peer6(6081, &geneve(IDENTITY, &OPTIONS, frame)).bytes();
    let spoofed = DropReason::InvalidSource;
    let elsewhere = DropReason::Unroutable;
    let nested = draft(FAR4, OWN4, 17, udp_around(1, 8472, &vxlan(IDENTITY, &frame4()))).bytes();
    let looped = draft(OWN4, PEER4, 17, udp_around(1, 8472, &vxlan(IDENTITY, &frame4()))).bytes();
    let tagged = [&frame4()[..12], &[0x81, 0, 0, 5], &frame4()[12..]].concat();
    vec![
        refused("ARP in VXLAN", by_vxlan(&arp(1, FAR4, B4)), DropReason::UnsupportedProtocol),
        refused("a VLAN in VXLAN", by_vxlan(&tagged), DropReason::VlanForbidden),
        refused("half an IPv4 header in VXLAN", by_vxlan(&frame4()[..30]), DropReason::InvalidPacket),
        refused("half an IPv6 header in Geneve", by_geneve(&frame6()[..40]), DropReason::InvalidPacket),
        refused("IPv4 cut short in VXLAN", by_vxlan(&frame4()[..50]), DropReason::InvalidPacket),
        refused("another kind than it says in VXLAN", by_vxlan(&with(frame4(), 14, 0x65)), DropReason::InvalidPacket),
        refused("VXLAN in VXLAN", by_vxlan(&nested), DropReason::TunnelForbidden),
        refused("VXLAN in Geneve to another node", by_geneve(&looped), spoofed),
        refused(
            "out of VXLAN to another node's pod",
            by_vxlan(&draft(FAR4, "10.244.2.5", 6, tcp(0)).bytes()),
            elsewhere,
        ),
        refused("out of VXLAN back where it came from", by_vxlan(&draft(FAR4, FAR4, 6, tcp(0)).bytes()), elsewhere),
        refused("out of VXLAN to the world", by_vxlan(&draft(FAR4, "1.1.1.1", 6, tcp(0)).bytes()), elsewhere),
        refused(
            "an error out of VXLAN to no pod",
            by_vxlan(&draft(FAR4, "10.244.1.99", 1, icmp(3, 28)).bytes()),
            elsewhere,
        ),
        refused(
            "an error out of Geneve to no pod, IPv6",
            by_geneve(&draft(FAR6, "fd00:10:244:1::99", 58, icmp(1, 48)).bytes()),
            elsewhere,
        ),
        refused(
            "a later fragment out of VXLAN to no pod",
            by_vxlan(&draft(FAR4, "10.244.1.99", 6, tcp(0)).fragment(8).bytes()),
            elsewhere,
        ),
        refused("out of VXLAN with a pod's address", by_vxlan(&draft(A4, B4, 6, tcp(0)).bytes()), spoofed),
        refused("out of VXLAN with the node's address", by_vxlan(&draft(OWN4, B4, 6, tcp(0)).bytes()), spoofed),
        refused(
            "out of Geneve with the router's",
            by_geneve(&draft("fd00:10:244:1::1", B6, 6, tcp(0)).bytes()),
            spoofed,
        ),
        refused("out of VXLAN from nobody", by_vxlan(&draft("0.0.0.0", B4, 6, tcp(0)).bytes()), spoofed),
        refused("out of VXLAN from a group", by_vxlan(&draft("224.0.0.1", B4, 6, tcp(0)).bytes()), spoofed),
        refused("out of VXLAN from loopback", by_vxlan(&draft("127.0.0.1", B4, 6, tcp(0)).bytes()), spoofed),
        refused(
            "out of Geneve from a link-local address",
            by_geneve(&draft("fe80::1", B6, 6, tcp(0)).bytes()),
            spoofed,
        ),
        refused(
            "out of VXLAN to a group",
            by_vxlan(&draft(FAR4, "224.0.0.1", 17, udp(1, 2, 3)).bytes()),
            DropReason::Multicast,
        ),
        refused(
            "an error out of VXLAN with TTL 1",
            by_vxlan(&draft(FAR4, B4, 1, icmp(11, 28)).ttl(1).bytes()),
            DropReason::TtlExceeded,
        ),
        refused(
            "out of VXLAN to a pod that is not ready",
            by_vxlan(&draft(FAR4, "10.244.1.12", 6, tcp(0)).bytes()),
            DropReason::NoConfiguration,
        ),
    ]
}

/// The packet as it is without its encapsulation, in the frame that it came in.
fn outside_of(frame: &[u8], options: usize) -> Vec<u8> {
    [&frame[..12], &inner(frame)[options + 12..]].concat()
}

/// What is answered back into the tunnel.
pub(super) fn answered() -> Vec<Row> {
    let (time, nobody) = (error(IcmpError::TimeExceeded), error(IcmpError::HostUnreachable));
    let last4 = draft(FAR4, B4, 6, tcp(20)).ttl(1).bytes();
    let last6 = draft(FAR6, B6, 17, udp(1, 33434, 20)).ttl(1).bytes();
    let spent6 = draft(FAR6, B6, 6, tcp(20)).ttl(0).bytes();
    let lost4 = draft(FAR4, "10.244.1.99", 1, icmp(8, 100)).bytes();
    let lost6 = draft(FAR6, "fd00:10:244:1::99", 6, tcp(200)).bytes();
    vec![
        incoming("out of VXLAN with TTL 1", from_peer(8472, &vxlan(IDENTITY, &last4)).bytes(), time)
            .check(|i, o| error_v4(11, 0, &outside_of(i, 0), o)),
        incoming("out of VXLAN over IPv6 with hop limit 1", from_peer6(8472, &vxlan(IDENTITY, &last6)).bytes(), time)
            .check(|i, o| error_v6(3, 0, &outside_of(i, 0), o)),
        incoming(
            "out of Geneve over IPv6 with TTL 1",
            from_peer6(6081, &geneve(IDENTITY, &OPTIONS, &last4)).bytes(),
            time,
        )
        .check(|i, o| error_v4(11, 0, &outside_of(i, OPTIONS.len()), o)),
        incoming("out of Geneve with hop limit 0", from_peer(6081, &geneve(IDENTITY, &[], &spent6)).bytes(), time)
            .check(|i, o| error_v6(3, 0, &outside_of(i, 0), o)),
        incoming("out of VXLAN to no pod", from_peer(8472, &vxlan(IDENTITY, &lost4)).bytes(), nobody)
            .check(|i, o| error_v4(3, 1, &outside_of(i, 0), o)),
        incoming("out of Geneve to no pod, IPv6", from_peer(6081, &geneve(IDENTITY, &[], &lost6)).bytes(), nobody)
            .check(|i, o| error_v6(1, 3, &outside_of(i, 0), o)),
        // Routers' own addresses are in the prefix of their pods.
        incoming(
            "out of VXLAN from another node with TTL 1",
            from_peer(8472, &vxlan(6, &draft("10.244.3.1", B4, 17, udp(1, 2, 3)).ttl(1).bytes())).bytes(),
            time,
        )
        .check(|i, o| error_v4(11, 0, &outside_of(i, 0), o)),
    ]
}
