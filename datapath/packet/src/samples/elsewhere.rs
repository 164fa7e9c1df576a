//! In from the network, from the node, and into a pod past the redirect.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, Entry};

use super::{
    A4, A6, B4, B6, REMOTE4, REMOTE6, Row,
    checks::{delivered_v4, delivered_v6, error_v4, untouched},
    error, incoming,
    node::{DEVICE, NEIGHBOUR, NEIGHBOUR_ETH},
    packets::{arp, draft, icmp, tcp},
    row,
};
use crate::{IcmpError, Verdict};

pub(super) fn elsewhere() -> Vec<Row> {
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
