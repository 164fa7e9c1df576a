//! What a router on the way says of a tunnel's packet: it was too big (RFC 1191 section 4, RFC 8201 section 4).
//!
//! The tunnel's packets have DF set, so such a message comes to the node and not to the pod whose packet it was. The node
//! remembers what the way carries, and answers the next packet that is too big itself.
//!
//! Anybody can write such a message. It is believed if what it quotes is a packet of ours: from this node's address to the
//! node that the prefix table names for what is inside, to its tunnel's port, from an address of this node inside. That takes
//! a quote of some seventy bytes more than the eight that RFC 792 asks for; routers have given them for long (RFC 1812 section
//! 4.3.2.3, RFC 4443 section 2.4 c). A shorter one changes nothing. What is believed can make a way narrower for a while, to no
//! less than what every host takes.

use kinesin_abi::{Address, EndpointKey, FAMILY_V4, IpcacheKey, carrier, ipcache_flag};

use super::{GENEVE_FRAME, TUNNEL_LEN, UDP_LEN, VXLAN_FLAGS};
use crate::{
    ETH_LEN,
    ip::{Fragment, Header, Ip, V4, V6, ethertype, protocol},
    packet::Packet,
    pipeline::underlay_mtu,
    tables::Tables,
};

/// Length of an ICMP header in bytes; the quote follows.
const ICMP_LEN: usize = 8;
/// Between the quoted packet's IP header and the one inside.
const BETWEEN_LEN: usize = UDP_LEN + TUNNEL_LEN + ETH_LEN;
/// The least that pods are left, of IPv4 (RFC 791 section 3.1) and of IPv6 (RFC 8200 section 5).
const IPV4_LEAST: u32 = 576;
const IPV6_LEAST: u32 = 1280;

/// Whether a packet in from the network is such a message to this node, as far as its first bytes tell.
#[inline(always)]
pub(crate) fn is_told<I: Ip>(packet: &impl Packet, tables: &impl Tables, header: &Header) -> bool {
    if header.protocol != I::ICMP || header.dst != I::underlay(tables) || header.fragment != Fragment::None {
        return false;
    }
    // Packet too big; destination unreachable, fragmentation needed.
    let wanted = if I::FAMILY == FAMILY_V4 { [3, 4] } else { [2, 0] };
    header.l4 == ETH_LEN + I::HEADER_LEN
        && packet.view::<2>(ETH_LEN + I::HEADER_LEN).is_some_and(|view| [view.u8::<0>(), view.u8::<1>()] == wanted)
}

/// Learns from a message of which `is_told` was true, if it is to be believed.
#[inline(always)]
pub fn learn(packet: &mut impl Packet, tables: &impl Tables) {
    let wanted = ETH_LEN + 2 * V6::HEADER_LEN + ICMP_LEN + BETWEEN_LEN + V6::HEADER_LEN;
    let available = packet.len();
    packet.pull(if available < wanted { available } else { wanted });
    // A message that is not believed changes nothing.
    let _ = match packet.view::<14>(0).map(|view| view.u16::<12>()) {
        Some(ethertype::IPV4) => learn_from::<V4>(packet, tables),
        Some(ethertype::IPV6) => learn_from::<V6>(packet, tables),
        _ => None,
    };
}

#[inline(always)]
fn learn_from<I: Ip>(packet: &impl Packet, tables: &impl Tables) -> Option<()> {
    let icmp = packet.view::<ICMP_LEN>(ETH_LEN + I::HEADER_LEN)?;
    let said =
        if I::FAMILY == FAMILY_V4 { u16::from_be(icmp.u16::<6>()).into() } else { u32::from_be(icmp.u32::<4>()) };
    let quote = ETH_LEN + I::HEADER_LEN + ICMP_LEN;
    let node = quoted::<I>(packet, tables, quote)?;
    let between = packet.view::<BETWEEN_LEN>(quote + I::HEADER_LEN)?;
    let port = between.u16::<2>();
    let (carrier, first) = match port {
        0 => return None,
        port if port == tables.vxlan_port() => (carrier::VXLAN, VXLAN_FLAGS),
        port if port == tables.geneve_port() => (carrier::GENEVE, GENEVE_FRAME),
        _ => return None,
    };
    if u32::from_be(between.u32::<{ UDP_LEN }>()) != first {
        return None;
    }
    let inside = quote + I::HEADER_LEN + BETWEEN_LEN;
    let (own, prefix, least) = match between.u16::<{ UDP_LEN + TUNNEL_LEN + 12 }>() {
        ethertype::IPV4 => {
            let view = packet.view::<{ V4::HEADER_LEN }>(inside)?;
            (V4::endpoint_key(&[view.u32::<12>(), 0, 0, 0]), V4::ipcache_key(&[view.u32::<16>(), 0, 0, 0]), IPV4_LEAST)
        }
        ethertype::IPV6 => {
            let view = packet.view::<{ V6::HEADER_LEN }>(inside)?;
            (V6::endpoint_key(&view.words4::<8>()), V6::ipcache_key(&view.words4::<24>()), IPV6_LEAST)
        }
        _ => return None,
    };
    let found = tables.ipcache(&prefix)?;
    let is_way = found.node == node && found.node_family == I::FAMILY && found.carrier == carrier;
    if !is_way || found.flags & (ipcache_flag::NODE | ipcache_flag::LOCAL_CIDR) != 0 {
        return None;
    }
    tables.endpoint(&own)?;
    narrow(tables, &prefix, I::endpoint_key(&node), said, {
        (underlay_mtu(tables, found), least + carrier::overhead(carrier, I::FAMILY))
    })
}

/// The destination of the quoted packet, if its header may be one of ours.
#[inline(always)]
fn quoted<I: Ip>(packet: &impl Packet, tables: &impl Tables, quote: usize) -> Option<Address> {
    let own = I::underlay(tables);
    let (source, destination) = if I::FAMILY == FAMILY_V4 {
        let view = packet.view::<{ V4::HEADER_LEN }>(quote)?;
        // No options, and no fragment: ours are never cut.
        if view.u8::<0>() != 0x45 || view.u8::<9>() != protocol::UDP || u16::from_be(view.u16::<6>()) & 0x3fff != 0 {
            return None;
        }
        ([view.u32::<12>(), 0, 0, 0], [view.u32::<16>(), 0, 0, 0])
    } else {
        let view = packet.view::<{ V6::HEADER_LEN }>(quote)?;
        if view.u8::<0>() >> 4 != 6 || view.u8::<6>() != protocol::UDP {
            return None;
        }
        (view.words4::<8>(), view.words4::<24>())
    };
    (source == own && own != [0; 4]).then_some(destination)
}

/// Notes what is new and less than what was known.
#[inline(always)]
fn narrow(
    tables: &impl Tables,
    prefix: &IpcacheKey,
    node: EndpointKey,
    said: u32,
    (present, least): (u32, u32),
) -> Option<()> {
    if said == 0 {
        // What routers older than RFC 1191 say.
        return None;
    }
    let mtu = if said < least { least } else { said };
    if mtu >= present {
        return None;
    }
    tables.learn(prefix, &node, u16::try_from(mtu).ok()?);
    Some(())
}
