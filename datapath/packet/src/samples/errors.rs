//! The errors that a router owes to a sender.

use std::{vec, vec::Vec};

use kinesin_abi::{DropReason, FAMILY_V4, Mark};

use super::{
    A4, A6, B4, B6, REMOTE4, REMOTE6, Row, carried,
    checks::{aged_v4, error_v4, error_v6, untouched},
    dropped, error,
    node::{MTU, POD_IDENTITY},
    out,
    packets::{draft, icmp, tcp, udp},
};
use crate::{IcmpError, Verdict};

pub(super) fn errors() -> Vec<Row> {
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
