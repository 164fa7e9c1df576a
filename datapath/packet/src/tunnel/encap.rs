//! Puts a packet into a tunnel.

use kinesin_abi::{DropReason, FAMILY_V4, FAMILY_V6, carrier, tunnel::SOURCE_PORTS};

use super::{GENEVE_FRAME, INNER_ETH, TTL, TUNNEL_LEN, UDP_LEN, VXLAN_FLAGS, ecn, on_the_wire};
use crate::{
    ETH_LEN,
    checksum::{fold, sum4},
    ip::{ethertype, protocol},
    packet::{Packet, ViewMut},
    tables::Tables,
    verdict::Peer,
};

/// What follows the outer IP header, apart from the inner Ethernet header.
struct Tunnel {
    source_port_be: u16,
    port_be: u16,
    /// Bytes from the UDP header to the end.
    length: usize,
    first: u32,
    second: u32,
    /// Ethertype of the inner packet.
    inner: u16,
}

/// Encapsulates an IP packet to `peer`; `flow` is its flow's hash.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub fn write(packet: &mut impl Packet, tables: &impl Tables, peer: &Peer, flow: u32) -> Result<(), DropReason> {
    let vni = on_the_wire(peer.identity)?;
    let class = ecn::class_of(packet).ok_or(DropReason::WriteError)?;
    let inner = packet.view::<14>(0).ok_or(DropReason::WriteError)?.u16::<12>();
    let (port_be, first) = match peer.carrier {
        carrier::VXLAN => (tables.vxlan_port(), VXLAN_FLAGS),
        _ => (tables.geneve_port(), GENEVE_FRAME),
    };
    if port_be == 0 {
        return Err(DropReason::NoTunnel);
    }
    let tunnel = Tunnel {
        // The range is the upper quarter of all ports. Lossless: 14 bits.
        source_port_be: (SOURCE_PORTS.0 | (flow & 0x3fff) as u16).to_be(),
        port_be,
        // The packet's own Ethernet header counts for the inner one.
        length: UDP_LEN + TUNNEL_LEN + packet.len(),
        first,
        second: vni << 8,
        inner,
    };
    if peer.family == FAMILY_V4 {
        over_v4(packet, [tables.underlay4(), peer.node[0]], class, &tunnel)
    } else {
        over_v6(packet, [tables.underlay6(), peer.node], class, flow, &tunnel)
    }
}

/// A length as a header has it. Longer ones are those of packets that the kernel cuts into segments, and each segment
/// gets its own.
#[inline(always)]
fn in_header(length: usize) -> u32 {
    if length > 0xffff { 0xffff } else { length as u32 }
}

#[inline(always)]
fn over_v4(
    packet: &mut impl Packet,
    [source, destination]: [u32; 2],
    class: u8,
    tunnel: &Tunnel,
) -> Result<(), DropReason> {
    const IP_LEN: usize = 20;
    const ROOM: usize = IP_LEN + UDP_LEN + TUNNEL_LEN + ETH_LEN;
    if source == 0 {
        return Err(DropReason::NoTunnel);
    }
    if !packet.encapsulate(ROOM, FAMILY_V4) {
        return Err(DropReason::WriteError);
    }
    // Version 4, 20 bytes, class and length; no identification, DF; TTL, UDP.
    let head = [
        (0x4500_0000 | u32::from(class) << 16 | in_header(IP_LEN + tunnel.length)).to_be(),
        0x0000_4000_u32.to_be(),
        (TTL << 24 | u32::from(protocol::UDP) << 16).to_be(),
        source,
    ];
    let check = fold(sum4(head) + u64::from(destination));
    let mut out = packet.view_mut::<{ ETH_LEN + IP_LEN }>(0).ok_or(DropReason::WriteError)?;
    out.set_u16::<12>(ethertype::IPV4);
    out.set_words4::<14>(head);
    out.set_u16::<24>(check);
    out.set_u32::<30>(destination);
    let out = packet.view_mut(ETH_LEN + IP_LEN).ok_or(DropReason::WriteError)?;
    rest(out, tunnel);
    Ok(())
}

#[inline(always)]
fn over_v6(
    packet: &mut impl Packet,
    [source, destination]: [[u32; 4]; 2],
    class: u8,
    flow: u32,
    tunnel: &Tunnel,
) -> Result<(), DropReason> {
    const IP_LEN: usize = 40;
    const ROOM: usize = IP_LEN + UDP_LEN + TUNNEL_LEN + ETH_LEN;
    if source == [0; 4] {
        return Err(DropReason::NoTunnel);
    }
    if !packet.encapsulate(ROOM, FAMILY_V6) {
        return Err(DropReason::WriteError);
    }
    let mut out = packet.view_mut::<{ ETH_LEN + IP_LEN }>(0).ok_or(DropReason::WriteError)?;
    out.set_u16::<12>(ethertype::IPV6);
    // The flow label is the flow's too (RFC 6438 section 3).
    out.set_u32::<14>((0x6000_0000 | u32::from(class) << 20 | flow & 0xf_ffff).to_be());
    out.set_u32::<18>((in_header(tunnel.length) << 16 | u32::from(protocol::UDP) << 8 | TTL).to_be());
    out.set_words4::<22>(source);
    out.set_words4::<38>(destination);
    let out = packet.view_mut(ETH_LEN + IP_LEN).ok_or(DropReason::WriteError)?;
    rest(out, tunnel);
    Ok(())
}

/// UDP, the tunnel's header and the inner Ethernet header.
#[inline(always)]
fn rest(mut out: ViewMut<'_, { UDP_LEN + TUNNEL_LEN + ETH_LEN }>, tunnel: &Tunnel) {
    out.set_u16::<0>(tunnel.source_port_be);
    out.set_u16::<2>(tunnel.port_be);
    // The checksum is zero.
    out.set_u32::<4>((in_header(tunnel.length) << 16).to_be());
    out.set_u32::<8>(tunnel.first.to_be());
    out.set_u32::<12>(tunnel.second.to_be());
    out.set_u32::<16>(INNER_ETH[0]);
    out.set_u32::<20>(INNER_ETH[1]);
    out.set_u32::<24>(INNER_ETH[2]);
    out.set_u16::<28>(tunnel.inner);
}
