//! What stays on a link: ARP, neighbour discovery, packets to groups.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, Entry};

use super::{
    A4, A6, B4, Row,
    checks::{answered_arp, answered_neighbour},
    dropped, out,
    packets::{arp, draft, icmp, solicitation, udp},
    row,
};
use crate::{Answer, Verdict};

pub(super) fn neighbours() -> Vec<Row> {
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
pub(super) fn groups() -> Vec<Row> {
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
