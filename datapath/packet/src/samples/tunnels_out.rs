//! Into a tunnel: from pods and from the node's own stack.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, Entry, FAMILY_V4, FAMILY_V6, Mark, carrier, identity};

use super::{
    A4, A6, Row,
    checks::{Outer, aged_v4, error_v4, error_v6, judge_outer, untouched},
    error,
    node::{MTU, NARROW_MTU, POD_IDENTITY},
    out,
    packets::{draft, icmp, tcp, udp},
    row,
};
use crate::{IcmpError, Peer, Verdict, host::table_address};

const OWN4: &str = "192.168.10.101";
const OWN6: &str = "fd00:192:168:10::101";
const PEER4: &str = "192.168.10.103";
const PEER6: &str = "fd00:192:168:10::103";

const VXLAN4: Outer = Outer { ends: [OWN4, PEER4], port: 8472, first: [8, 0, 0, 0], vni: POD_IDENTITY };
const VXLAN6: Outer = Outer { ends: [OWN6, PEER6], ..VXLAN4 };
const GENEVE4: Outer = Outer { port: 6081, first: [0, 0, 0x65, 0x58], ..VXLAN4 };
const GENEVE6: Outer = Outer { ends: [OWN6, PEER6], ..GENEVE4 };
/// The node itself is one of the cluster's on the wire.
const FROM_NODE: Outer = Outer { vni: identity::REMOTE_NODE, ..VXLAN4 };

fn by(carrier: u8, node: &str, identity: u32, routed: bool) -> Verdict {
    let (node, family) = table_address(node.parse().unwrap());
    Verdict::Carry(Peer { node, family, carrier, identity, routed })
}

/// Around an IPv4 packet that is one hop older.
fn around_v4(outer: &Outer, input: &[u8], output: &[u8]) {
    aged_v4(input, &judge_outer(outer, input, output));
}

/// Around an IPv6 packet that is one hop older.
fn around_v6(outer: &Outer, input: &[u8], output: &[u8]) {
    let inside = judge_outer(outer, input, output);
    assert_eq!(inside[21], input[21] - 1);
    assert_eq!((&inside[..21], &inside[22..]), (&input[..21], &input[22..]));
}

/// Around what the stack sent, as it is.
fn around(outer: &Outer, input: &[u8], output: &[u8]) {
    assert_eq!(judge_outer(outer, input, output), input);
}

pub(super) fn out_of_pods() -> Vec<Row> {
    let vxlan4 = by(carrier::VXLAN, PEER4, POD_IDENTITY, false);
    let geneve4 = by(carrier::GENEVE, PEER4, POD_IDENTITY, false);
    let vxlan6 = by(carrier::VXLAN, PEER6, POD_IDENTITY, false);
    let geneve6 = by(carrier::GENEVE, PEER6, POD_IDENTITY, true);
    let stack = Verdict::ToStack(Mark::of_identity(POD_IDENTITY));
    let df = 0x4000;
    // What is left of the underlay's MTU for IPv4 and for IPv6 underneath.
    let (limit, limit6) = (MTU - 50, MTU - 70);
    let (too_big, too_big6) = (error(IcmpError::TooBig(limit)), error(IcmpError::TooBig(limit6)));
    let full = limit as usize - 40;
    vec![
        out("IPv4 by VXLAN", draft(A4, "10.244.3.9", 6, tcp(20)).bytes(), vxlan4)
            .check(|i, o| around_v4(&VXLAN4, i, o)),
        out("IPv6 by VXLAN", draft(A6, "fd00:10:244:3::9", 6, tcp(20)).bytes(), vxlan4)
            .check(|i, o| around_v6(&VXLAN4, i, o)),
        out("IPv4 by VXLAN over IPv6", draft(A4, "10.244.6.9", 17, udp(7, 53, 20)).bytes(), vxlan6)
            .check(|i, o| around_v4(&VXLAN6, i, o)),
        out("IPv4 by Geneve", draft(A4, "10.244.5.9", 6, tcp(20)).bytes(), geneve4)
            .check(|i, o| around_v4(&GENEVE4, i, o)),
        out("IPv6 by Geneve", draft(A6, "fd00:10:244:5::9", 58, icmp(128, 8)).bytes(), geneve4)
            .check(|i, o| around_v6(&GENEVE4, i, o)),
        out("IPv6 by Geneve over IPv6", draft(A6, "fd00:10:244:6::9", 6, tcp(20)).bytes(), geneve6)
            .check(|i, o| around_v6(&GENEVE6, i, o)),
        out("DSCP and ECN by VXLAN", draft(A4, "10.244.3.9", 6, tcp(0)).class(0xb9).bytes(), vxlan4)
            .check(|i, o| around_v4(&VXLAN4, i, o)),
        out("DSCP and ECN by Geneve, IPv6", draft(A6, "fd00:10:244:6::9", 6, tcp(0)).class(0xb9).bytes(), geneve6)
            .check(|i, o| around_v6(&GENEVE6, i, o)),
        out("a later fragment by VXLAN", draft(A4, "10.244.3.9", 17, vec![9; 32]).fragment(4).bytes(), vxlan4)
            .check(|i, o| around_v4(&VXLAN4, i, o)),
        out("as big as VXLAN takes", draft(A4, "10.244.3.9", 6, tcp(full)).fragment(df).bytes(), vxlan4)
            .check(|i, o| around_v4(&VXLAN4, i, o)),
        out("too big for VXLAN", draft(A4, "10.244.3.9", 6, tcp(full + 1)).fragment(df).bytes(), too_big).check(
            |i, o| {
                error_v4(3, 4, i, o);
                assert_eq!(o[40..42], [5, 70], "1350");
            },
        ),
        out("too big for Geneve over IPv6", draft(A6, "fd00:10:244:6::9", 6, tcp(full)).bytes(), too_big6).check(
            |i, o| {
                error_v6(2, 0, i, o);
                assert_eq!(o[58..62], [0, 0, 5, 50], "1330");
            },
        ),
        out("too big for VXLAN without DF", draft(A4, "10.244.3.9", 6, tcp(full + 1)).bytes(), stack).check(untouched),
        out("segments too big for VXLAN", draft(A4, "10.244.3.9", 6, tcp(3000)).fragment(df).bytes(), too_big)
            .segmented(full + 1),
        out("TTL 1 to a tunnel", draft(A4, "10.244.3.9", 6, tcp(0)).ttl(1).bytes(), error(IcmpError::TimeExceeded)),
    ]
}

/// To nodes whose way is narrower than this node's uplink, and to one that says it were wider.
pub(super) fn by_narrow_ways() -> Vec<Row> {
    let vxlan4 = by(carrier::VXLAN, PEER4, POD_IDENTITY, false);
    let geneve6 = by(carrier::GENEVE, PEER6, POD_IDENTITY, false);
    let native4 = by(carrier::NATIVE, "192.168.10.102", POD_IDENTITY, false);
    let native6 = by(carrier::NATIVE, "fd00:192:168:10::102", POD_IDENTITY, false);
    let stack = Verdict::ToStack(Mark::of_identity(POD_IDENTITY));
    let df = 0x4000;
    let narrow = usize::from(NARROW_MTU);
    let too_big =
        |carrier, family| error(IcmpError::TooBig(u32::from(NARROW_MTU) - carrier::overhead(carrier, family)));
    let v4 = |dst, length: usize| draft(A4, dst, 6, tcp(length - 40)).fragment(df).bytes();
    let v6 = |dst, length: usize| draft(A6, dst, 6, tcp(length - 60)).bytes();
    vec![
        out("as big as a narrow way by VXLAN takes", v4("10.244.7.9", narrow - 50), vxlan4)
            .check(|i, o| around_v4(&VXLAN4, i, o)),
        out("too big for a narrow way by VXLAN", v4("10.244.7.9", narrow - 49), too_big(carrier::VXLAN, FAMILY_V4))
            .check(|i, o| {
                error_v4(3, 4, i, o);
                assert_eq!(o[40..42], [5, 30], "1310");
            }),
        out("the same without DF", draft(A4, "10.244.7.9", 6, tcp(narrow - 89)).bytes(), stack).check(untouched),
        out("segments too big for a narrow way", v4("10.244.7.9", 3000), too_big(carrier::VXLAN, FAMILY_V4))
            .segmented(narrow - 89),
        out("as big as a narrow way by Geneve over IPv6 takes", v6("fd00:10:244:7::9", narrow - 70), geneve6)
            .check(|i, o| around_v6(&GENEVE6, i, o)),
        out("too big for a narrow way by Geneve over IPv6", v6("fd00:10:244:7::9", narrow - 69), {
            too_big(carrier::GENEVE, FAMILY_V6)
        })
        .check(|i, o| {
            error_v6(2, 0, i, o);
            assert_eq!(o[58..62], [0, 0, 5, 10], "1290");
        }),
        out("as big as a narrow native way takes", v4("10.244.8.9", narrow), native4).check(aged_v4),
        out("too big for a narrow native way", v4("10.244.8.9", narrow + 1), too_big(carrier::NATIVE, FAMILY_V4)),
        out("as big as a narrow native way takes, IPv6", v6("fd00:10:244:8::9", narrow), native6),
        out("too big for a narrow native way, IPv6", v6("fd00:10:244:8::9", narrow + 1), {
            too_big(carrier::NATIVE, FAMILY_V6)
        }),
        out("a way said to be wider takes what the uplink does", v4("10.244.10.9", MTU as usize - 50), vxlan4),
        out("and no more", v4("10.244.10.9", MTU as usize - 49), error(IcmpError::TooBig(MTU - 50))),
        row(
            "too big for a narrow way from the stack",
            Entry::FromHost,
            draft("10.244.1.1", "10.244.7.9", 6, tcp(narrow - 89)).bytes(),
            Verdict::Drop(DropReason::FragmentationNeeded),
        ),
    ]
}

pub(super) fn out_of_the_stack() -> Vec<Row> {
    let host = Entry::FromHost;
    let dropped = |reason| Verdict::Drop(reason);
    let big = MTU as usize - 50 - 40 + 1;
    vec![
        row(
            "host to another node's pod by VXLAN",
            host,
            draft("10.244.1.1", "10.244.3.9", 6, tcp(20)).bytes(),
            by(carrier::VXLAN, PEER4, identity::HOST, false),
        )
        .check(|i, o| around(&FROM_NODE, i, o)),
        row(
            "host to another node's pod by Geneve over IPv6",
            host,
            draft("fd00:10:244:1::1", "fd00:10:244:6::9", 6, tcp(20)).bytes(),
            by(carrier::GENEVE, PEER6, identity::HOST, true),
        )
        .check(|i, o| around(&Outer { vni: identity::REMOTE_NODE, ..GENEVE6 }, i, o)),
        row(
            "a pod's fragment from the stack",
            host,
            draft(A4, "10.244.3.9", 17, vec![9; 32]).fragment(4).bytes(),
            by(carrier::VXLAN, PEER4, POD_IDENTITY, false),
        )
        .marked(Mark::of_identity(POD_IDENTITY).0)
        .check(|i, o| around(&VXLAN4, i, o)),
        row(
            "too big from the stack",
            host,
            draft("10.244.1.1", "10.244.3.9", 6, tcp(big)).bytes(),
            dropped(DropReason::FragmentationNeeded),
        ),
        row(
            "host to a pod that is carried natively",
            host,
            draft("10.244.1.1", "10.244.2.9", 6, tcp(0)).bytes(),
            dropped(DropReason::Unroutable),
        ),
        row(
            "host to a carrier without program",
            host,
            draft("10.244.1.1", "10.244.9.9", 6, tcp(0)).bytes(),
            dropped(DropReason::Unroutable),
        ),
        row(
            "host to the world on the wrong device",
            host,
            draft("10.244.1.1", "1.1.1.1", 6, tcp(0)).bytes(),
            dropped(DropReason::Unroutable),
        ),
    ]
}
