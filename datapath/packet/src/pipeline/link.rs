//! What never leaves a link: ARP, neighbour discovery, and packets to groups.

use kinesin_abi::{DeviceValue, DropReason};

use super::Step;
use crate::{
    ip::{self, Header, Ip, protocol},
    packet::Packet,
    verdict::{Kind, Outcome, Stop},
};

/// Ends the way of a packet to a group: nobody is on the link whom it could be for.
#[inline(always)]
pub(super) fn to_group<I: Ip>(packet: &impl Packet, out: &mut Outcome, header: &Header) -> Stop {
    if I::is_signalling(packet, header) { out.stop(Kind::Absorb, 0) } else { out.drop(DropReason::Multicast) }
}

/// Requests for any address but the pod's own are answered, so that a pod needs no neighbour but us.
#[inline(always)]
pub(super) fn arp(packet: &mut impl Packet, out: &mut Outcome, device: &DeviceValue) -> Stop {
    let Some(view) = packet.view::<42>(0) else {
        return out.drop(DropReason::InvalidPacket);
    };
    // Ethernet and IPv4, request (RFC 826).
    let is_request = view.u32::<14>() == 0x0001_0800_u32.to_be() && view.u32::<18>() == 0x0604_0001_u32.to_be();
    // The words of sender and target address stand at odd halves; put together from two halves each.
    let sender = (view.u16::<28>(), view.u16::<30>());
    let target = (view.u16::<38>(), view.u16::<40>());
    let own = halves(device.addr4);
    if is_request && sender == own && target != own && device.addr4 != 0 {
        out.stop(Kind::Arp, 0)
    } else if is_request && target == own && (sender == own || sender == (0, 0)) {
        // Announcements and probes of the pod's own address (RFC 5227): nobody else is on this link.
        out.stop(Kind::Absorb, 0)
    } else {
        out.drop(DropReason::Multicast)
    }
}

/// The two halves of a word as they stand in memory.
#[inline(always)]
fn halves(word: u32) -> (u16, u16) {
    let host = u32::from_be(word);
    // Lossless: each is 16 bits.
    (((host >> 16) as u16).to_be(), (host as u16).to_be())
}

/// Neighbour discovery stays on the pod's link: solicitations of neighbours are answered, advertisements are dropped, and
/// what wants no answer of ours is absorbed.
#[inline(always)]
pub(super) fn neighbour_discovery(packet: &mut impl Packet, out: &mut Outcome, device: &DeviceValue) -> Step {
    let Some(view) = packet.view::<54>(0) else {
        return Ok(());
    };
    if view.u8::<20>() != protocol::ICMPV6 || view.u8::<21>() != 255 {
        return Ok(());
    }
    // Hop limit 255 and ICMPv6: perhaps neighbour discovery (RFC 4861 section 7.1.1).
    let source = view.words4::<22>();
    if packet.view::<78>(0).is_none() {
        // Shorter packets stay as they are.
        packet.pull(78);
    }
    let Some(kind) = packet.view::<56>(0).map(|view| view.u8::<54>()) else {
        return Ok(());
    };
    if !(133..=137).contains(&kind) {
        return Ok(());
    }
    if kind == 133 || (kind == 135 && source == [0; 4]) {
        // There is no router that advertises itself, and from no address it is somebody checking his own (RFC 4862
        // section 5.4), who must get no answer.
        return Err(out.stop(Kind::Absorb, 0));
    }
    if kind == 135 && (source == device.addr6 || ip::is_link_local(&source)) {
        // The kernel asks from the packet's source, and from its link-local address to see whether a neighbour is still
        // there.
        let target = packet.view::<78>(0).map(|view| view.words4::<62>());
        if target.is_some_and(|target| target != device.addr6) {
            return Err(out.stop(Kind::Neighbour, 0));
        }
    }
    Err(out.drop(DropReason::ForbiddenIcmp6))
}
