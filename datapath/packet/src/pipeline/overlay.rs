//! What goes to another node, by whichever carrier, and what came out of a tunnel from one.

use kinesin_abi::{DropReason, IpcacheValue, Mark, Stage, carrier, endpoint_flag, identity, ipcache_flag};

use super::{
    Step, address, error, ethertype_of,
    into_pod::into_pod,
    out_of_pod::{keep_from_tunnels, wire_length},
    slot,
};
use crate::{
    ip::{Header, Ip, V4, V6, ethertype},
    packet::Packet,
    tables::Tables,
    tunnel,
    verdict::{Kind, Outcome, Peer, Stop},
};

/// The longest IP packet that gets to another node in bytes, or the end where nothing carries it.
#[inline(always)]
pub(super) fn limit(tables: &impl Tables, out: &mut Outcome, found: &IpcacheValue) -> Step<u32> {
    let underlay = underlay_mtu(tables, found);
    let is_carried = match found.carrier {
        carrier::NATIVE => return Ok(underlay),
        carrier::VXLAN => tables.vxlan_port() != 0,
        carrier::GENEVE => tables.geneve_port() != 0,
        _ => false,
    };
    if !is_carried {
        return Err(out.drop(DropReason::NoTunnel));
    }
    Ok(underlay.saturating_sub(carrier::overhead(found.carrier, found.node_family)))
}

/// What the underlay carries on the way to a prefix in bytes: the own uplink's MTU, or less where that is known.
#[inline(always)]
pub(crate) fn underlay_mtu(tables: &impl Tables, found: &IpcacheValue) -> u32 {
    let (own, known) = (tables.mtu(), u32::from(found.mtu));
    if known != 0 && known < own { known } else { own }
}

/// Sends a packet to the node that a prefix names, with the identity of its source.
#[inline(always)]
pub(super) fn carry(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
    (found, identity): (&IpcacheValue, u32),
) -> Stop {
    out.peer = Peer {
        node: found.node,
        family: found.node_family,
        carrier: found.carrier,
        identity,
        routed: found.flags & ipcache_flag::ROUTED != 0,
    };
    // Natively the packet's own header tells its flow.
    let is_wrapped = tunnel::is_on(tables) && found.carrier != carrier::NATIVE;
    let flow = if is_wrapped { tunnel::flow_of(packet, header) } else { 0 };
    out.stop(Kind::Carry, flow)
}

/// A packet of the node's own stack to another node's pod, which no route to that node leads to but a tunnel. A pod's
/// packet that the stack had to fragment comes by here too, and says so by its mark.
#[inline(always)]
pub(super) fn from_stack_to_node<I: Ip>(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
) -> Stop {
    if !tunnel::is_on(tables) {
        return out.drop(DropReason::Unroutable);
    }
    let Some(found) = tables.ipcache(&I::ipcache_key(&header.dst)) else {
        return out.drop(DropReason::Unroutable);
    };
    if found.carrier != carrier::VXLAN && found.carrier != carrier::GENEVE {
        // The network's own ways do not start at this device, and here they would go in circles.
        return out.drop(DropReason::Unroutable);
    }
    let limit = match limit(tables, out, found) {
        Ok(limit) => limit,
        Err(stop) => return stop,
    };
    if wire_length(packet, header) > limit as usize {
        // The stack would not believe an error: its sender would be an address of its own. The route's MTU is what keeps
        // packets from getting here.
        return out.drop(DropReason::FragmentationNeeded);
    }
    let identity = Mark(packet.mark()).identity().unwrap_or(identity::HOST);
    carry(packet, tables, out, header, (found, identity))
}

/// A packet out of a tunnel, from the peer and with the identity that the outcome has; `start` is the first stage to run.
#[inline(always)]
pub fn from_overlay(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) {
    // Either way the outcome is written.
    let _ = match ethertype_of(packet, out) {
        Ok(ethertype::IPV4) if tables.features() & V4::FEATURE != 0 => {
            in_from_overlay::<V4>(packet, tables, out, start)
        }
        Ok(ethertype::IPV6) if tables.features() & V6::FEATURE != 0 => {
            in_from_overlay::<V6>(packet, tables, out, start)
        }
        Ok(_) => Err(out.drop(DropReason::UnsupportedProtocol)),
        Err(stop) => Err(stop),
    };
}

#[inline(always)]
fn in_from_overlay<I: Ip>(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) -> Step {
    let header = match I::parse(packet) {
        Ok(header) => header,
        Err(reason) => return Err(out.drop(reason)),
    };
    if I::is_multicast(&header.dst) {
        return Err(out.drop(DropReason::Multicast));
    }
    let is_nobody = header.src == [0; 4] || I::is_multicast(&header.src) || I::is_local(&header.src);
    if is_nobody || tables.endpoint(&I::endpoint_key(&header.src)).is_some() {
        // Neither this node nor its pods are out there.
        return Err(out.drop(DropReason::InvalidSource));
    }
    // A tunnel inside the tunnel would end at this node with whatever identity it says.
    keep_from_tunnels::<I>(packet, tables, out, &header)?;
    slot(tables, out, start, Stage::RevNat)?;
    slot(tables, out, start, Stage::HostFwIn)?;
    let Some(endpoint) = tables.endpoint(&I::endpoint_key(&header.dst)) else {
        return Err(match tables.ipcache(&I::ipcache_key(&header.dst)) {
            Some(found) if found.flags & ipcache_flag::LOCAL_CIDR != 0 => {
                error::<I>(packet, tables, out, &header, Kind::HostUnreachable, DropReason::Unroutable)
            }
            // Never on to another node: two that name each other would send it in circles.
            _ => out.drop(DropReason::Unroutable),
        });
    };
    if endpoint.flags & endpoint_flag::HOST != 0 {
        if endpoint.flags & endpoint_flag::BROADCAST != 0 {
            return Err(out.drop(DropReason::Multicast));
        }
        address(packet, out, tables.host_eth())?;
        return Err(out.stop(Kind::ToHost, Mark::of_identity(out.peer.identity).0));
    }
    into_pod::<I>(packet, tables, out, &header, endpoint, start)
}
