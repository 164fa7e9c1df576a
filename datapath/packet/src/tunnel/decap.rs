//! Takes a packet out of a tunnel: first the checks of what is outside, then off with it.

use kinesin_abi::{DropReason, FAMILY_V4, FAMILY_V6, carrier, endpoint_flag, identity, ipcache_flag};

use super::{GENEVE_FRAME, TUNNEL_LEN, UDP_LEN, VXLAN_FLAGS, ecn};
use crate::{
    ETH_LEN,
    ip::{self, Fragment, Header, Ip, V4, V6, ethertype, protocol},
    packet::{Packet, opaque},
    tables::Tables,
    verdict::{Kind, Outcome, Peer, Stop},
};

/// Bits of the stripped length in [`Outcome::value`]; above them stands the outer traffic class.
const LENGTH_BITS: u32 = 16;

/// Ends the way of a packet in from the network that is a tunnel's, with [`Kind::Decapsulate`] if it may come in.
/// Everything else goes on.
///
/// # Errors
/// The pipeline's end; the outcome is written.
#[inline(always)]
pub(crate) fn outside<I: Ip>(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
) -> Result<(), Stop> {
    if header.protocol != protocol::UDP || header.fragment == Fragment::Later {
        return Ok(());
    }
    // One that hides its ports is for the stack, where no tunnel ends that would take it (`from_overlay`).
    let Some((_, port)) = ip::ports(packet, header) else {
        return Ok(());
    };
    let carrier = match port {
        0 => return Ok(()),
        port if port == tables.vxlan_port() => carrier::VXLAN,
        port if port == tables.geneve_port() => carrier::GENEVE,
        _ => return Ok(()),
    };
    let own = I::underlay(tables);
    if header.dst != own || own == [0; 4] {
        // A pod may have a service on that port, and the node has not.
        let host = tables.endpoint(&I::endpoint_key(&header.dst)).is_some_and(|it| it.flags & endpoint_flag::HOST != 0);
        return if host { Err(out.drop(DropReason::TunnelForbidden)) } else { Ok(()) };
    }
    if header.fragment == Fragment::First {
        return Err(out.drop(DropReason::Fragmented));
    }
    // Nobody but nodes of the cluster, before anything of theirs is read.
    if tables.ipcache(&I::ipcache_key(&header.src)).is_none_or(|found| found.flags & ipcache_flag::NODE == 0) {
        return Err(out.drop(DropReason::UnknownSender));
    }
    let found = match headers::<I>(packet, header, carrier) {
        Ok(found) => found,
        Err(reason) => return Err(out.drop(reason)),
    };
    let Some(class) = ecn::class_of(packet) else {
        return Err(out.drop(DropReason::InvalidPacket));
    };
    out.peer = Peer { node: header.src, family: I::FAMILY, carrier, identity: found.identity, routed: true };
    // Lossless: a few hundred bytes.
    Err(out.stop(Kind::Decapsulate, u32::from(class) << LENGTH_BITS | found.length as u32))
}

/// What the tunnel's header says.
struct Found {
    /// Source identity.
    identity: u32,
    /// Bytes to take off.
    length: usize,
}

/// Reads UDP and the tunnel's header.
///
/// A UDP checksum that is there is not verified, as RFC 7348 section 5 leaves open: it covers what the checksums inside
/// cover, and summing up whole packets is the network card's work.
#[inline(always)]
fn headers<I: Ip>(packet: &impl Packet, header: &Header, carrier: u8) -> Result<Found, DropReason> {
    // No tunnel of ours or the kernel's sends options, and without them every offset is a constant.
    if header.l4 != ETH_LEN + I::HEADER_LEN || !I::is_intact(packet) {
        return Err(DropReason::InvalidPacket);
    }
    let view = packet.view::<{ UDP_LEN + TUNNEL_LEN }>(ETH_LEN + I::HEADER_LEN).ok_or(DropReason::InvalidPacket)?;
    let udp_len = usize::from(u16::from_be(view.u16::<4>()));
    let (first, second) = (u32::from_be(view.u32::<8>()), u32::from_be(view.u32::<12>()));
    let options = if carrier == carrier::VXLAN {
        // Other flags mean extensions that change what is inside; the kernel's device refuses them too.
        if first != VXLAN_FLAGS || second & 0xff != 0 {
            return Err(DropReason::InvalidTunnel);
        }
        0
    } else {
        // Version, "control" and protocol; the reserved bits are ignored (RFC 8926 section 3.4).
        if first & 0xc080_ffff != GENEVE_FRAME {
            return Err(DropReason::InvalidTunnel);
        }
        if first & 0x0040_0000 != 0 {
            return Err(DropReason::GeneveOption);
        }
        ((first >> 24) & 0x3f) as usize * 4
    };
    let headers = UDP_LEN + TUNNEL_LEN + options + ETH_LEN;
    if udp_len < headers || udp_len > header.length - I::HEADER_LEN {
        return Err(DropReason::InvalidPacket);
    }
    match second >> 8 {
        0 | identity::HOST => Err(DropReason::InvalidIdentity),
        identity => Ok(Found { identity, length: I::HEADER_LEN + headers }),
    }
}

/// What is inside a packet with [`Kind::Decapsulate`].
pub(super) struct Inside {
    /// Where its IP header starts.
    pub(super) at: usize,
    /// Its ethertype.
    kind: u16,
    /// Its family.
    pub(super) family: u8,
    /// Traffic class outside.
    pub(super) class: u8,
}

/// Looks at what is inside, and makes it accessible.
#[inline(always)]
pub(super) fn inside(packet: &mut impl Packet, out: &Outcome) -> Result<Inside, DropReason> {
    let at = ETH_LEN + (out.value & ((1 << LENGTH_BITS) - 1)) as usize;
    // The inner Ethernet header's last two bytes. Hidden, so that LLVM does not make their place out of another one, for
    // which the verifier has no range.
    let last = opaque(at - 2);
    if packet.view::<2>(last).is_none() {
        packet.pull(at);
    }
    let kind = packet.view::<2>(last).ok_or(DropReason::InvalidPacket)?.u16::<0>();
    let (family, least) = match kind {
        ethertype::IPV4 => (FAMILY_V4, V4::HEADER_LEN),
        ethertype::IPV6 => (FAMILY_V6, V6::HEADER_LEN),
        ethertype::VLAN | ethertype::PROVIDER_VLAN => return Err(DropReason::VlanForbidden),
        _ => return Err(DropReason::UnsupportedProtocol),
    };
    if packet.len() < at + least {
        return Err(DropReason::InvalidPacket);
    }
    // Lossless: what was put there is a byte.
    Ok(Inside { at, kind, family, class: (out.value >> LENGTH_BITS) as u8 })
}

/// Takes the packet out of its encapsulation, as [`Kind::Decapsulate`] says.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub fn strip(packet: &mut impl Packet, out: &Outcome) -> Result<(), DropReason> {
    let Inside { at, kind, family, class } = inside(packet, out)?;
    if !packet.decapsulate(at - ETH_LEN, out.peer.family, family) {
        return Err(DropReason::WriteError);
    }
    if packet.view::<54>(0).is_none() {
        // The inner header may lie where only a copy makes it accessible.
        let available = packet.len();
        packet.pull(if available < 54 { available } else { 54 });
    }
    packet.view_mut::<14>(0).ok_or(DropReason::WriteError)?.set_u16::<12>(kind);
    ecn::carry_in(packet, class)
}
