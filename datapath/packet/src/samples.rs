//! The table of packets: description, entry point, bytes, verdict, and what must be so in the bytes that come out.
//!
//! It has two runners: the pure pipeline (`tests/table.rs`) and the compiled programs in the kernel
//! (`backends/ebpf-tc/tests/test_run`). They must come to the same verdict and the same bytes.

pub mod node;
pub mod packets;

use std::{vec, vec::Vec};

use self::{
    node::{DEVICE, MTU, NEIGHBOUR, NEIGHBOUR_ETH, POD_IDENTITY},
    packets::{HOST_MAC, POD_MAC, arp, checksum, draft, icmp, solicitation, tcp, udp},
};
use crate::{
    Answer, IcmpError, Peer, Verdict,
    host::{Buffer, table_address},
};
use kinesin_abi::{DropReason, Entry, FAMILY_V4, FAMILY_V6, Mark, carrier};

const A4: &str = "10.244.1.10";
const B4: &str = "10.244.1.11";
const A6: &str = "fd00:10:244:1::a";
const B6: &str = "fd00:10:244:1::b";
const REMOTE4: &str = "10.244.2.5";
const REMOTE6: &str = "fd00:10:244:2::5";

/// Judges the bytes that went in and those that came out; panics with what is wrong.
pub type Check = fn(&[u8], &[u8]);

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// Where it meets the pipeline.
    pub entry: Entry,
    /// The packet.
    pub packet: Buffer,
    /// What the pipeline must say.
    pub verdict: Verdict,
    /// Judges input and output.
    pub bytes: Option<Check>,
    /// Whether the cost of this row is worth knowing.
    pub measured: bool,
}

impl Row {
    fn check(mut self, check: Check) -> Self {
        self.bytes = Some(check);
        self
    }

    fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    fn segmented(mut self, size: usize) -> Self {
        self.packet.segment_size = size;
        self
    }
}

fn row(name: &'static str, entry: Entry, bytes: Vec<u8>, verdict: Verdict) -> Row {
    Row { name, entry, packet: Buffer::new(bytes), verdict, bytes: None, measured: false }
}

fn out(name: &'static str, bytes: Vec<u8>, verdict: Verdict) -> Row {
    row(name, Entry::FromContainer, bytes, verdict)
}

fn dropped(name: &'static str, bytes: Vec<u8>, reason: DropReason) -> Row {
    out(name, bytes, Verdict::Drop(reason))
}

fn carried(node: &str, family: u8) -> Verdict {
    let (node, _) = table_address(node.parse().unwrap());
    Verdict::Carry(Peer { node, family, carrier: carrier::NATIVE, identity: POD_IDENTITY, routed: false })
}

/// By the routing tables.
fn routed(node: &str, family: u8) -> Verdict {
    let (node, _) = table_address(node.parse().unwrap());
    Verdict::Carry(Peer { node, family, carrier: carrier::NATIVE, identity: POD_IDENTITY, routed: true })
}

/// A packet in from the network, addressed to the device that it is on.
fn incoming(name: &'static str, mut bytes: Vec<u8>, verdict: Verdict) -> Row {
    bytes[..6].fill(0);
    row(name, Entry::FromNetdev, bytes, verdict)
}

fn error(error: IcmpError) -> Verdict {
    Verdict::Answer(Answer::Icmp(error))
}

/// MACs of the target, TTL one less, IPv4 checksum right, the rest untouched.
fn delivered_v4(input: &[u8], output: &[u8]) {
    assert_eq!(output[..12], NEIGHBOUR_ETH);
    aged_v4(input, output);
}

fn aged_v4(input: &[u8], output: &[u8]) {
    assert_eq!(output.len(), input.len());
    assert_eq!(output[22], input[22] - 1);
    let header_len = usize::from(output[14] & 15) * 4;
    assert_eq!(checksum(&output[14..14 + header_len]), 0);
    assert_eq!((&output[12..22], &output[26..]), (&input[12..22], &input[26..]));
}

fn delivered_v6(input: &[u8], output: &[u8]) {
    assert_eq!(output[..12], NEIGHBOUR_ETH);
    assert_eq!(output[21], input[21] - 1);
    assert_eq!((&output[12..21], &output[22..]), (&input[12..21], &input[22..]));
}

fn untouched(input: &[u8], output: &[u8]) {
    assert_eq!(input, output);
}

fn answered_arp(input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&POD_MAC[..], &HOST_MAC[..]));
    assert_eq!(output[20..22], [0, 2]);
    assert_eq!((&output[22..28], &output[28..32]), (&HOST_MAC[..], &input[38..42]));
    assert_eq!((&output[32..38], &output[38..42]), (&POD_MAC[..], &input[28..32]));
}

/// RFC 4861 section 4.4 and 7.2.4.
fn answered_neighbour(input: &[u8], output: &[u8]) {
    assert_eq!(output.len(), 86);
    assert_eq!((&output[..6], &output[6..12]), (&POD_MAC[..], &HOST_MAC[..]));
    assert_eq!((output[20], output[21]), (58, 255));
    assert_eq!((&output[22..38], &output[38..54]), (&input[62..78], &input[22..38]));
    assert_eq!((output[54], output[55]), (136, 0));
    assert_eq!(output[58] & 0x60, 0x60, "solicited and override");
    assert_eq!((&output[62..78], &output[78..80], &output[80..86]), (&input[62..78], &[2, 1][..], &HOST_MAC[..]));
}

fn error_v4(kind: u8, code: u8, input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&input[6..12], &input[..6]));
    assert_eq!((&output[26..30], &output[30..34]), (&[10, 244, 1, 1][..], &input[26..30]));
    assert_eq!((output[23], output[34], output[35]), (1, kind, code));
    let quoted = output.len() - 42;
    assert!(quoted >= 28, "header and 8 bytes (RFC 792)");
    assert_eq!(output[42..], input[14..14 + quoted]);
}

fn error_v6(kind: u8, code: u8, input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&input[6..12], &input[..6]));
    assert_eq!(output[38..54], input[22..38]);
    assert_eq!((output[20], output[54], output[55]), (58, kind, code));
    let quoted = output.len() - 62;
    assert!(quoted >= 48);
    assert_eq!(output[62..], input[14..14 + quoted]);
}

/// Every row.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = pod_to_pod();
    rows.extend(own_address());
    rows.extend(tunnel_ports());
    rows.extend(neighbours());
    rows.extend(groups());
    rows.extend(errors());
    rows.extend(elsewhere());
    rows
}

fn pod_to_pod() -> Vec<Row> {
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
        dropped("carrier without program", draft(A4, "10.244.3.9", 6, tcp(0)).bytes(), DropReason::NoTunnel),
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

fn own_address() -> Vec<Row> {
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

fn tunnel_ports() -> Vec<Row> {
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

fn neighbours() -> Vec<Row> {
    let router6 = "fd00:10:244:1::1";
    vec![
        out("ARP for the router", arp(1, A4, "10.244.1.1"), Verdict::Answer(Answer::Arp)).check(answered_arp),
        out("ARP for another pod", arp(1, A4, B4), Verdict::Answer(Answer::Arp)).check(answered_arp),
        out("gratuitous ARP", arp(1, A4, A4), Verdict::Absorb),
        out("ARP probe", arp(1, "0.0.0.0", A4), Verdict::Absorb),
        dropped("gratuitous ARP with another's address", arp(1, B4, B4), DropReason::Multicast),
        dropped("ARP with another's address", arp(1, B4, "10.244.1.1"), DropReason::Multicast),
        dropped("ARP reply", arp(2, A4, "10.244.1.1"), DropReason::Multicast),
        out("solicitation for the router", solicitation(A6, router6, true), Verdict::Answer(Answer::Neighbour))
            .check(answered_neighbour),
        out("solicitation without option", solicitation(A6, router6, false), Verdict::Answer(Answer::Neighbour))
            .check(answered_neighbour),
        out(
            "solicitation from the link-local address",
            solicitation("fe80::9", router6, true),
            Verdict::Answer(Answer::Neighbour),
        )
        .check(answered_neighbour),
        out("duplicate address detection", solicitation("::", A6, false), Verdict::Absorb),
        out("router solicitation", draft("fe80::9", "ff02::2", 58, icmp(133, 0)).ttl(255).bytes(), Verdict::Absorb),
        dropped(
            "router advertisement",
            draft("fe80::9", "ff02::1", 58, icmp(134, 8)).ttl(255).bytes(),
            DropReason::ForbiddenIcmp6,
        ),
        dropped(
            "neighbour advertisement",
            draft("fe80::9", "ff02::1", 58, icmp(136, 16)).ttl(255).bytes(),
            DropReason::ForbiddenIcmp6,
        ),
    ]
}

/// What is sent to groups: out of a pod, and by the node's kernel into a pod's device and its own.
fn groups() -> Vec<Row> {
    let report = |ttl| draft("fe80::9", "ff02::16", 58, icmp(143, 20)).ttl(ttl);
    let router_alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let (host, into) = (Entry::FromHost, Entry::ToContainer);
    let multicast = Verdict::Drop(DropReason::Multicast);
    vec![
        out("listener report", report(1).bytes(), Verdict::Absorb),
        out("listener report with router alert", report(1).extensions(0, &router_alert).bytes(), Verdict::Absorb),
        out("listener report from afar", report(64).bytes(), multicast),
        out("listener query", draft("fe80::9", "ff02::1", 58, icmp(130, 20)).ttl(1).bytes(), multicast),
        out("IGMP report", draft(A4, "224.0.0.22", 2, icmp(0x22, 8)).ttl(1).bytes(), Verdict::Absorb),
        out("IGMP from afar", draft(A4, "224.0.0.22", 2, icmp(0x22, 8)).bytes(), multicast),
        row("the kernel's listener report to a pod", into, report(1).bytes(), Verdict::Absorb),
        row(
            "the kernel's address detection on a host end",
            into,
            solicitation("::", "fe80::1", false),
            Verdict::Absorb,
        ),
        row(
            "the kernel's router solicitation",
            into,
            draft("::", "ff02::2", 58, icmp(133, 0)).ttl(255).bytes(),
            Verdict::Absorb,
        ),
        row(
            "multicast into a pod",
            into,
            draft("192.168.10.101", "224.0.0.251", 17, udp(5353, 5353, 9)).bytes(),
            multicast,
        ),
        row("the kernel's listener report to nobody", host, report(1).bytes(), Verdict::Absorb),
        row("multicast by cilium_host", host, draft("fe80::9", "ff02::fb", 17, udp(5353, 5353, 9)).bytes(), multicast),
    ]
}

fn errors() -> Vec<Row> {
    let big = MTU as usize;
    let df = 0x4000;
    let (expired, unreachable, too_big) =
        (error(IcmpError::TimeExceeded), error(IcmpError::HostUnreachable), error(IcmpError::TooBig(MTU)));
    let stack = Verdict::ToStack(Mark::of_identity(POD_IDENTITY));
    let away = carried("192.168.10.102", FAMILY_V4);
    vec![
        out("TTL 1, IPv4", draft(A4, B4, 17, udp(1, 33434, 32)).ttl(1).bytes(), expired)
            .check(|i, o| error_v4(11, 0, i, o)),
        out("hop limit 1, IPv6", draft(A6, B6, 17, udp(1, 33434, 32)).ttl(1).bytes(), expired)
            .check(|i, o| error_v6(3, 0, i, o)),
        out("TTL 1 with options", draft(A4, B4, 17, udp(1, 2, 9)).ttl(1).options(&[1, 1, 1, 0]).bytes(), expired),
        out("no such pod, IPv4", draft(A4, "10.244.1.99", 6, tcp(0)).bytes(), unreachable)
            .check(|i, o| error_v4(3, 1, i, o)),
        out("no such pod, IPv6", draft(A6, "fd00:10:244:1::99", 6, tcp(0)).bytes(), unreachable)
            .check(|i, o| error_v6(1, 3, i, o)),
        out("too big with DF", draft(A4, REMOTE4, 6, tcp(big)).fragment(df).bytes(), too_big).check(|i, o| {
            error_v4(3, 4, i, o);
            assert_eq!(u16::from_be_bytes([o[40], o[41]]), MTU as u16);
        }),
        out("too big, IPv6", draft(A6, REMOTE6, 6, tcp(big)).bytes(), too_big).check(|i, o| {
            error_v6(2, 0, i, o);
            assert_eq!(o[58..62], MTU.to_be_bytes());
        }),
        out("too big without DF", draft(A4, REMOTE4, 6, tcp(big)).bytes(), stack).check(untouched),
        out("segments that fit", draft(A4, REMOTE4, 6, tcp(3000)).fragment(df).bytes(), away)
            .segmented(big - 40)
            .check(aged_v4),
        out("segments that do not fit", draft(A4, REMOTE4, 6, tcp(3000)).fragment(df).bytes(), too_big)
            .segmented(big - 39),
        out("a chain of SCTP packets", draft(A4, REMOTE4, 132, vec![0; 3000]).fragment(df).bytes(), away)
            .segmented(0xffff)
            .check(aged_v4),
        out("TTL 1 with the longest header", draft(A4, B4, 6, tcp(40)).ttl(1).options(&[1; 40]).bytes(), expired),
        dropped("TTL 1 of an error", draft(A4, B4, 1, icmp(3, 28)).ttl(1).bytes(), DropReason::TtlExceeded),
        dropped(
            "TTL 1 of a later fragment",
            draft(A4, B4, 17, vec![0; 24]).ttl(1).fragment(4).bytes(),
            DropReason::TtlExceeded,
        ),
        dropped("hop limit 1 of an error", draft(A6, B6, 58, icmp(1, 40)).ttl(1).bytes(), DropReason::TtlExceeded),
    ]
}

fn elsewhere() -> Vec<Row> {
    let here = Verdict::Deliver { ifindex: NEIGHBOUR };
    let own = Verdict::Deliver { ifindex: DEVICE };
    let not_here = Verdict::Drop(DropReason::Unroutable);
    let (host, into) = (Entry::FromHost, Entry::ToContainer);
    let spoofed = Verdict::Drop(DropReason::InvalidSource);
    vec![
        incoming("network to pod, IPv4", draft(REMOTE4, B4, 6, tcp(20)).bytes(), here).check(delivered_v4),
        incoming("network to pod, IPv6", draft(REMOTE6, B6, 6, tcp(20)).bytes(), here).check(delivered_v6),
        incoming("network to the node", draft(REMOTE4, "192.168.10.101", 6, tcp(0)).bytes(), Verdict::Pass)
            .check(untouched)
            .measured(),
        incoming("network to elsewhere", draft(REMOTE4, "8.8.8.8", 6, tcp(0)).bytes(), Verdict::Pass)
            .check(untouched)
            .measured(),
        incoming("ARP on the uplink", arp(1, "192.168.10.1", "192.168.10.101"), Verdict::Pass)
            .check(untouched)
            .measured(),
        incoming(
            "network to no pod",
            draft(REMOTE4, "10.244.1.99", 6, tcp(0)).bytes(),
            error(IcmpError::HostUnreachable),
        )
        .check(|i, o| error_v4(3, 1, i, o)),
        incoming(
            "network to pod with TTL 1",
            draft(REMOTE4, B4, 6, tcp(0)).ttl(1).bytes(),
            error(IcmpError::TimeExceeded),
        ),
        incoming("network with a pod's address", draft(A4, B4, 6, tcp(0)).bytes(), spoofed),
        incoming("network with the node's address", draft("fd00:192:168:10::101", B6, 6, tcp(0)).bytes(), spoofed),
        row("network to another's link", Entry::FromNetdev, draft(REMOTE4, B4, 6, tcp(0)).bytes(), Verdict::Pass)
            .check(untouched),
        row("host to pod", host, draft("10.244.1.1", B4, 1, icmp(8, 56)).bytes(), here)
            .check(|i, o| {
                assert_eq!(o[..12], NEIGHBOUR_ETH);
                assert_eq!(o[12..], i[12..], "the stack has seen to the TTL");
            })
            .measured(),
        row("host to pod, IPv6", host, draft("fd00:10:244:1::1", A6, 58, icmp(128, 8)).bytes(), own),
        row("host to no pod", host, draft("10.244.1.1", "10.244.1.99", 1, icmp(8, 8)).bytes(), not_here),
        row("into the pod", into, draft("10.244.1.1", A4, 1, icmp(8, 56)).bytes(), Verdict::Pass)
            .check(untouched)
            .measured(),
        row("into the pod, IPv6", into, draft("fd00:10:244:1::1", A6, 58, icmp(128, 8)).bytes(), Verdict::Pass)
            .check(untouched),
        row("for another pod", into, draft("10.244.1.1", B4, 1, icmp(8, 56)).bytes(), not_here),
    ]
}
