//! Explicit congestion notification through tunnels (RFC 6040).

use kinesin_abi::DropReason;

use crate::{ETH_LEN, checksum::fold, ip::ethertype, packet::Packet};

/// Bits of the field.
const MASK: u8 = 0b11;
/// "Congestion experienced".
const CE: u8 = 0b11;
/// "ECN-capable transport", 1.
const ECT1: u8 = 0b01;

/// The traffic class (DSCP and ECN) of the packet after an Ethernet header; zero for what is not IP.
#[inline(always)]
pub(super) fn class_of(packet: &impl Packet) -> Option<u8> {
    let view = packet.view::<16>(0)?;
    Some(match view.u16::<12>() {
        ethertype::IPV4 => view.u8::<15>(),
        ethertype::IPV6 => view.u8::<14>() << 4 | view.u8::<15>() >> 4,
        _ => 0,
    })
}

/// What the inner field becomes when the outer one arrives as `outer` (RFC 6040 section 4.2, figure 4).
///
/// Nothing where the packet must be dropped: it met congestion and cannot tell its receiver.
#[inline(always)]
fn merged(outer: u8, inner: u8) -> Option<u8> {
    match (outer & MASK, inner & MASK) {
        (CE, 0) => None,
        (_, 0) => Some(0),
        (CE, _) | (_, CE) => Some(CE),
        (ECT1, _) => Some(ECT1),
        (_, inner) => Some(inner),
    }
}

/// Carries the congestion that the outer header met into the packet that was inside.
///
/// # Errors
/// `Congestion` where the packet cannot carry it, `WriteError`.
#[inline(always)]
pub(super) fn carry_in(packet: &mut impl Packet, outer: u8) -> Result<(), DropReason> {
    if outer & MASK == 0 {
        // Not marked, and it could not have been.
        return Ok(());
    }
    let inner = class_of(packet).ok_or(DropReason::WriteError)?;
    let new = merged(outer, inner).ok_or(DropReason::Congestion)?;
    if new == inner & MASK {
        return Ok(());
    }
    write(packet, new).ok_or(DropReason::WriteError)
}

/// Whether the packet whose IP header starts at `at`, inside another, can carry what the outer header met; the kernel's
/// device does it then.
///
/// # Errors
/// As those of [`carry_in`].
#[inline(always)]
pub(super) fn can_carry_in(packet: &mut impl Packet, at: usize, outer: u8) -> Result<(), DropReason> {
    if outer & MASK != CE {
        return Ok(());
    }
    if packet.view::<2>(at).is_none() {
        packet.pull(at + 2);
    }
    let view = packet.view::<2>(at).ok_or(DropReason::WriteError)?;
    let (first, second) = (view.u8::<0>(), view.u8::<1>());
    let inner = if first >> 4 == 4 { second } else { second >> 4 };
    if inner & MASK == 0 { Err(DropReason::Congestion) } else { Ok(()) }
}

#[inline(always)]
fn write(packet: &mut impl Packet, new: u8) -> Option<()> {
    let view = packet.view::<26>(0)?;
    let old = view.u8::<15>();
    if view.u16::<12>() == ethertype::IPV4 {
        let (first, check) = (view.u16::<14>(), view.u16::<24>());
        let changed = old & !MASK | new;
        let mut out = packet.view_mut::<26>(0)?;
        out.set_u8::<15>(changed);
        // RFC 1624 section 3, equation 3: the new sum is the old one without the old word and with the new one. The
        // word's high byte, version and header length, stays.
        let word = u16::from_be(first) & 0xff00 | u16::from(changed);
        let sum = u64::from(!check) + u64::from(!first) + u64::from(word.to_be());
        out.set_u16::<24>(fold(sum));
        return Some(());
    }
    // IPv6: the field is in the middle of the byte. A sum that the network card kept covers it.
    packet.write_u8(ETH_LEN + 1, old & 0b1100_1111 | new << 4).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_4_of_rfc_6040() {
        let (not, ect0, ect1, ce) = (0b00, 0b10, 0b01, 0b11);
        // Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (not, [Some(not), Some(not), Some(not), None]),
            (ect0, [Some(ect0), Some(ect0), Some(ect1), Some(ce)]),
            (ect1, [Some(ect1), Some(ect1), Some(ect1), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ];
        for (inner, row) in figure {
            assert_eq!([not, ect0, ect1, ce].map(|outer| merged(outer, inner)), row, "inner {inner:02b}");
        }
    }
}
