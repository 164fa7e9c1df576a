//! From pod to pod, of one node and of two, and what a pod may not send.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, FAMILY_V4, FAMILY_V6, Mark};

use super::{
    A4, A6, B4, B6, REMOTE4, REMOTE6, Row, carried,
    checks::{aged_v4, delivered_v4, delivered_v6, untouched},
    dropped,
    node::{NEIGHBOUR, POD_IDENTITY},
    out,
    packets::{HOST_MAC, POD_MAC, draft, icmp, tcp, udp},
    routed,
};
use crate::Verdict;

pub(super) fn pod_to_pod() -> Vec<Row> {
    let here = Verdict::Deliver { ifindex: NEIGHBOUR };
    let stack = Verdict::ToStack(Mark::of_identity(POD_IDENTITY));
    vec![
        out("IPv4 TCP to the other pod", draft(A4, B4, 6, tcp(20)).bytes(), here).check(delivered_v4),
        out("IPv4 UDP to the other pod", draft(A4, B4, 17, udp(5000, 53, 64)).bytes(), here).check(delivered_v4),
        out("IPv4 with options", draft(A4, B4, 17, udp(1, 2, 4)).options(&[1, 1, 1, 0]).bytes(), here)
            .check(delivered_v4),
        out("IPv4 whose checksum wraps", draft(A4, B4, 1, icmp(8, 56)).ttl(2).bytes(), here).check(delivered_v4),
        out("IPv4 later fragment", draft(A4, B4, 17, vec![9; 32]).fragment(0x0004).bytes(), here).check(delivered_v4),
        out("IPv6 TCP to the other pod", draft(A6, B6, 6, tcp(20)).bytes(), here).check(delivered_v6),
        out("IPv6 echo to the other pod", draft(A6, B6, 58, icmp(128, 56)).bytes(), here).check(delivered_v6),
        dropped("endpoint that is not ready", draft(A4, "10.244.1.12", 6, tcp(0)).bytes(), DropReason::NoConfiguration),
        out("IPv4 to another node", draft(A4, REMOTE4, 6, tcp(20)).bytes(), carried("192.168.10.102", FAMILY_V4))
            .check(aged_v4),
        out("IPv6 to another node", draft(A6, REMOTE6, 6, tcp(20)).bytes(), carried("fd00:192:168:10::102", FAMILY_V6)),
        out(
            "to another node itself",
            draft(A4, "192.168.10.102", 6, tcp(20)).bytes(),
            routed("192.168.10.102", FAMILY_V4),
        )
        .check(aged_v4),
        out(
            "to a prefix behind a gateway",
            draft(A4, "10.244.4.9", 6, tcp(20)).bytes(),
            routed("192.168.20.104", FAMILY_V4),
        )
        .check(aged_v4),
        dropped("carrier without program", draft(A4, "10.244.9.9", 6, tcp(0)).bytes(), DropReason::NoTunnel),
        out("echo to the router", draft(A4, "10.244.1.1", 1, icmp(8, 56)).bytes(), stack).check(untouched).measured(),
        out("to the world", draft(A4, "1.1.1.1", 6, tcp(0)).bytes(), stack).check(untouched).measured(),
        out("to the world, IPv6", draft(A6, "2001:db8::1", 6, tcp(0)).bytes(), stack).check(untouched).measured(),
        dropped("IPv4 multicast", draft(A4, "224.0.0.251", 17, udp(5353, 5353, 9)).bytes(), DropReason::Multicast),
        dropped("IPv4 broadcast", draft(A4, "255.255.255.255", 17, udp(68, 67, 9)).bytes(), DropReason::Multicast),
        dropped("IPv6 multicast", draft(A6, "ff02::fb", 17, udp(5353, 5353, 9)).bytes(), DropReason::Multicast),
        dropped("loopback address", draft(A4, "127.0.0.1", 17, udp(1, 2, 9)).bytes(), DropReason::Unroutable),
        dropped("loopback address, IPv6", draft(A6, "::1", 17, udp(1, 2, 9)).bytes(), DropReason::Unroutable),
        dropped(
            "the node's link-local address",
            draft(A6, "fe80::1", 17, udp(1, 8472, 9)).bytes(),
            DropReason::Unroutable,
        ),
    ]
}

pub(super) fn own_address() -> Vec<Row> {
    let spoofed = DropReason::InvalidSource;
    vec![
        dropped("another pod's IPv4 address", draft(B4, "1.1.1.1", 17, udp(1, 2, 4)).bytes(), spoofed).measured(),
        dropped("the router's IPv4 address", draft("10.244.1.1", B4, 17, udp(1, 2, 4)).bytes(), spoofed),
        dropped("no IPv4 address", draft("0.0.0.0", B4, 17, udp(1, 2, 4)).bytes(), spoofed),
        dropped("another pod's IPv6 address", draft(B6, "2001:db8::1", 17, udp(1, 2, 4)).bytes(), spoofed),
        dropped("a link-local IPv6 address", draft("fe80::1", B6, 17, udp(1, 2, 4)).bytes(), spoofed),
        dropped(
            "no IP at all",
            [&HOST_MAC[..], &POD_MAC, &[0x88, 0xcc], &[0; 46]].concat(),
            DropReason::UnsupportedProtocol,
        ),
        dropped(
            "IPv4 length beyond the packet",
            draft(A4, B4, 6, tcp(4)).bytes()[..40].to_vec(),
            DropReason::InvalidPacket,
        ),
    ]
}

pub(super) fn tunnel_ports() -> Vec<Row> {
    let forbidden = DropReason::TunnelForbidden;
    let node6 = "fd00:192:168:10::102";
    // Six bytes of padding make the options header 8 bytes long; its next header is UDP.
    let options_then_udp = [17, 0, 1, 4, 0, 0, 0, 0];
    vec![
        dropped("VXLAN to another node", draft(A4, "192.168.10.102", 17, udp(9, 8472, 8)).bytes(), forbidden),
        dropped("Geneve to the own node", draft(A4, "192.168.10.101", 17, udp(9, 6081, 8)).bytes(), forbidden),
        dropped("VXLAN to a node, IPv6", draft(A6, node6, 17, udp(9, 8472, 8)).bytes(), forbidden),
        dropped(
            "VXLAN to a node behind destination options",
            draft(A6, node6, 17, udp(9, 8472, 8)).extensions(60, &options_then_udp).bytes(),
            forbidden,
        ),
        dropped(
            "VXLAN to a node in a first fragment",
            draft(A4, "192.168.10.102", 17, udp(9, 8472, 8)).fragment(0x2000).bytes(),
            forbidden,
        ),
        dropped(
            "first fragment that ends before the port",
            draft(A4, "192.168.10.102", 17, vec![0, 9]).fragment(0x2000).bytes(),
            DropReason::TruncatedTransport,
        ),
        dropped(
            "IPv6 first fragment that ends inside its options",
            draft(A6, node6, 17, Vec::new()).extensions(44, &[60, 0, 0, 1, 0, 0, 0, 7]).bytes(),
            DropReason::ExtensionHeader,
        ),
        dropped(
            "more extension headers than are followed",
            draft(A6, node6, 17, udp(9, 8472, 8)).extensions(60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9)).bytes(),
            DropReason::ExtensionHeader,
        ),
    ]
}
