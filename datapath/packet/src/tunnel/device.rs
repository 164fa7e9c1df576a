//! Tunnels by the kernel's own device, in its mode where each packet brings its peer and network (`external`).
//!
//! Out, the device puts the headers around the frame that it is given, and is told what to write into them. What it writes
//! is what `encap.rs` writes, but for what the kernel lets nobody choose: the IPv4 identification is not zero, congestion
//! that a packet has met already is marked as ECT(0) outside (RFC 3168 section 9.1.1), and of a Geneve packet's source
//! port older kernels choose the range. Of the class that it is told the kernel keeps DSCP alone and makes ECN of the packet
//! inside (`INET_ECN_encapsulate`, Linux 6.18 `include/net/inet_ecn.h`), so that no key can say CE. In, the packet is judged as
//! it comes in from the network, by the same checks as in `decap.rs`, and again when the device gives it back.

use kinesin_abi::{DropReason, FAMILY_V4, STAND_IN, carrier};

use super::{
    GENEVE_FRAME, INNER_ETH, UDP_LEN,
    decap::{Inside, inside},
    device_of, ecn, on_the_wire,
};
use crate::{
    ETH_LEN,
    ip::{Ip, V4, V6, protocol},
    packet::{Packet, opaque},
    tables::Tables,
    verdict::{Outcome, Peer},
};

/// What the device is told of one packet; its peer is the verdict's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Key {
    /// Network number.
    pub vni: u32,
    /// Traffic class.
    pub class: u32,
    /// Hash of the packet, of which the kernel makes the source port.
    pub hash: u32,
    /// Flow label over IPv6.
    pub label: u32,
    /// Source address, in the peer's family.
    pub source: [u32; 4],
}

/// Makes a packet the frame that goes into the device, and says what is to be told; `flow` is its flow's hash.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub fn wrap(
    packet: &mut impl Packet,
    tables: &impl Tables,
    peer: &Peer,
    flow: u32,
    key: &mut Key,
) -> Result<(), DropReason> {
    key.vni = on_the_wire(peer.identity)?;
    key.class = u32::from(ecn::class_of(packet).ok_or(DropReason::WriteError)?);
    key.hash = hash_for(flow);
    key.label = flow & 0xf_ffff;
    let is_v4 = peer.family == FAMILY_V4;
    key.source = if is_v4 { [tables.underlay4(), 0, 0, 0] } else { tables.underlay6() };
    if key.source == [0; 4] {
        return Err(DropReason::NoTunnel);
    }
    let mut frame = packet.view_mut::<14>(0).ok_or(DropReason::WriteError)?;
    frame.set_u32::<0>(INNER_ETH[0]);
    frame.set_u32::<4>(INNER_ETH[1]);
    frame.set_u32::<8>(INNER_ETH[2]);
    Ok(())
}

/// The hash of which the kernel makes the source port that `encap.rs` takes for this flow.
///
/// The kernel folds a hash's lower half into its upper one, and takes as much of the range as the result is of 2^32
/// (`udp_flow_src_port`, Linux `include/net/udp.h`). The 14 bits of the port stand on top here, all bits below them are
/// ones, and the fold is undone beforehand. Only for the last port of the range the kernel takes the last but one.
#[inline(always)]
fn hash_for(flow: u32) -> u32 {
    let folded = flow << 18 | 0x3_ffff;
    folded ^ folded << 16
}

/// Whether a packet with [`Kind::Decapsulate`](crate::Kind::Decapsulate) goes to the device: all of a tunnel that has one in
/// use, and superpackets of UDP wherever there is one, idle or not, or a VXLAN device for Geneve. Over a virtual underlay
/// these come as they were sent, and only the kernel can take a tunnel off them: what [`strip`](super::decap::strip) leaves no socket takes.
#[inline(always)]
pub fn takes(packet: &mut impl Packet, tables: &impl Tables, out: &Outcome) -> bool {
    if device_of(tables, out.peer.carrier) != 0 {
        return true;
    }
    // Lossless: there are four carriers.
    let is_there = tables.overlays() & 1 << u32::from(out.peer.carrier & 3) != 0;
    (is_there || has_stand_in(tables, out)) && packet.segment_size() != 0 && is_for_device(packet, out, is_there)
}

/// Whether a VXLAN device is what the tunnel has.
#[inline(always)]
fn has_stand_in(tables: &impl Tables, out: &Outcome) -> bool {
    out.peer.carrier == carrier::GENEVE && tables.overlays() & STAND_IN != 0
}

/// Whether what is inside is UDP, and outside is what the device understands, perhaps after [`disguise`].
///
/// A call of its own: where both ways look inside in one program, LLVM keeps pointers into the packet over calls that move
/// it.
#[inline(never)]
fn is_for_device(packet: &mut impl Packet, out: &Outcome, is_own: bool) -> bool {
    inside(packet, out).is_ok_and(|found| is_udp(packet, &found)) && (is_own || is_plain(packet, out))
}

/// Whether a packet of Geneve is as our nodes send it: a header without options and with nothing reserved, and no checksum of
/// UDP's that would cover it.
#[inline(always)]
fn is_plain(packet: &impl Packet, out: &Outcome) -> bool {
    let view = match out.peer.family {
        FAMILY_V4 => packet.view::<16>(ETH_LEN + V4::HEADER_LEN),
        _ => packet.view::<16>(ETH_LEN + V6::HEADER_LEN),
    };
    view.is_some_and(|view| {
        view.u16::<6>() == 0 && u32::from_be(view.u32::<8>()) == GENEVE_FRAME && view.u8::<15>() == 0
    })
}

/// Makes VXLAN of Geneve that [`is_plain`], for a VXLAN device: the network number and the frame are in the same places.
#[inline(always)]
fn disguise(packet: &mut impl Packet, out: &Outcome) -> Result<(), DropReason> {
    let ip_len = if out.peer.family == FAMILY_V4 { V4::HEADER_LEN } else { V6::HEADER_LEN };
    let at = ETH_LEN + ip_len + UDP_LEN;
    // VXLAN_FLAGS in the place of GENEVE_FRAME, whose second byte is zero too. A sum that the network card kept covers them.
    if packet.write_u8(at, 0x08) && packet.write_u8(at + 2, 0) && packet.write_u8(at + 3, 0) {
        Ok(())
    } else {
        Err(DropReason::WriteError)
    }
}

/// Whether what is inside is UDP, extension headers left out of account.
#[inline(always)]
fn is_udp(packet: &impl Packet, inside: &Inside) -> bool {
    let at = opaque(inside.at);
    let found = match packet.view::<10>(at) {
        Some(view) if inside.family == FAMILY_V4 => view.u8::<9>(),
        Some(view) => view.u8::<6>(),
        None => return false,
    };
    found == protocol::UDP
}

/// Ends the checks of a packet that is to go to the device, as [`decap::strip`](super::decap::strip) does those of one that
/// is not: what the device itself would drop without a word, or take for something else.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub fn admit(packet: &mut impl Packet, tables: &impl Tables, out: &Outcome) -> Result<(), DropReason> {
    let found = inside(packet, out)?;
    ecn::can_carry_in(packet, found.at, found.class)?;
    if has_stand_in(tables, out) { disguise(packet, out) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use kinesin_abi::tunnel::SOURCE_PORTS;

    use super::*;

    /// `udp_flow_src_port` of Linux 6.18.
    fn kernels_port(mut hash: u32) -> u16 {
        let (min, max) = (u64::from(SOURCE_PORTS.0), u64::from(SOURCE_PORTS.1));
        hash ^= hash << 16;
        (((u64::from(hash) * (max - min)) >> 32) + min) as u16
    }

    #[test]
    fn the_kernel_makes_our_port_of_the_hash() {
        for flow in (0..0x3fff).chain([0x1234_4000, 0xffff_8001, 0xdead_beef & !0x2000]) {
            assert_eq!(kernels_port(hash_for(flow)), 0xc000 | (flow & 0x3fff) as u16, "{flow:#x}");
        }
        assert_eq!(kernels_port(hash_for(u32::MAX)), 0xfffe, "the range ends before its last port");
    }

    /// As a kernel that leaves no port out would do.
    #[test]
    fn a_whole_range_gives_every_port() {
        for flow in 0..=0x3fff {
            let hash = hash_for(flow);
            let folded = hash ^ hash << 16;
            assert_eq!((u64::from(folded) * 0x4000) >> 32, u64::from(flow));
        }
    }
}
