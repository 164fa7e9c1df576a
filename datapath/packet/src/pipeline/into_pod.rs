//! What goes into a pod: from the network, from the node's own stack, and from other pods.

use kinesin_abi::{DropReason, EndpointValue, Stage, endpoint_flag, ipcache_flag};

use super::{Step, address, age, device_on, error, ethertype_of, link::to_group, overlay::from_stack_to_node, slot};
use crate::{
    ip::{Header, Ip, V4, V6, ethertype},
    packet::Packet,
    tables::Tables,
    tunnel::{self, decap, told},
    verdict::{Kind, Outcome, Stop},
};

/// A packet in from the network. After [`Kind::Decapsulate`] it is to be stripped, and goes on at
/// [`from_overlay`](super::from_overlay).
#[inline(always)]
pub fn from_netdev(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) {
    // Either way the outcome is written.
    let _ = match ethertype_of(packet, out) {
        Ok(ethertype::IPV4) => in_from_network::<V4>(packet, tables, out, start),
        Ok(ethertype::IPV6) => in_from_network::<V6>(packet, tables, out, start),
        // ARP, LLDP and whatever else the node itself speaks.
        _ => Err(out.stop(Kind::Pass, 0)),
    };
}

#[inline(always)]
fn in_from_network<I: Ip>(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) -> Step {
    // Pods may have the one family and the underlay the other.
    let is_for_pods = tables.features() & I::FEATURE != 0;
    let is_underlay = tunnel::is_on(tables) && I::underlay(tables) != [0; 4];
    if !is_for_pods && !is_underlay {
        return Err(out.stop(Kind::Pass, 0));
    }
    // Frames for others come in where a switch floods or the device is promiscuous, and tagged ones belong to a VLAN's
    // device; the stack knows what to do with both.
    if packet.is_tagged() || !packet.is_addressed_to_us() {
        return Err(out.stop(Kind::Pass, 0));
    }
    // What cannot be parsed is not for a pod by any rule of ours; the stack has its own counters for it.
    let Ok(header) = I::parse(packet) else {
        return Err(out.stop(Kind::Pass, 0));
    };
    // A slot program gets, and hands back, what was inside.
    if is_underlay && start == 0 {
        decap::outside::<I>(packet, tables, out, &header)?;
        if told::is_told::<I>(packet, tables, &header) {
            return Err(to_underlay(tables, out, is_for_pods));
        }
    }
    if !is_for_pods {
        return Err(out.stop(Kind::Pass, 0));
    }
    slot(tables, out, start, Stage::RevNat)?;
    slot(tables, out, start, Stage::HostFwIn)?;
    if let Some(endpoint) = tables.endpoint(&I::endpoint_key(&header.dst)) {
        if endpoint.flags & endpoint_flag::HOST != 0 {
            return Err(out.stop(Kind::Pass, 0));
        }
        if tables.endpoint(&I::endpoint_key(&header.src)).is_some() {
            // Neither this node nor its pods are out there. The stack would see to it (RFC 1812 section 5.3.8), but the
            // packet goes past it, and a source of the node's would have the node's identity.
            return Err(out.drop(DropReason::InvalidSource));
        }
        return into_pod::<I>(packet, tables, out, &header, endpoint, start);
    }
    match tables.ipcache(&I::ipcache_key(&header.dst)) {
        Some(found) if found.flags & ipcache_flag::LOCAL_CIDR != 0 => {
            Err(error::<I>(packet, tables, out, &header, Kind::HostUnreachable, DropReason::Unroutable))
        }
        _ => Err(out.stop(Kind::Pass, 0)),
    }
}

/// The end of a router's word about a tunnel: the stack may want to hear it as well. It is the node's own, so that nothing
/// has to be looked up for it; a way of its own through the rest would cost the verifier that much again.
#[inline(always)]
fn to_underlay(tables: &impl Tables, out: &mut Outcome, is_for_pods: bool) -> Stop {
    out.is_told = true;
    if is_for_pods {
        for stage in [Stage::RevNat, Stage::HostFwIn] {
            if let Err(stop) = slot(tables, out, 0, stage) {
                return stop;
            }
        }
    }
    out.stop(Kind::Pass, 0)
}

/// A packet of the node's own stack on `cilium_host`: to a pod of this node, or by tunnel to one of another. The stack has
/// seen to TTL and MTU.
#[inline(always)]
pub fn from_host(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) {
    // Either way the outcome is written.
    let _ = match ethertype_of(packet, out) {
        Ok(ethertype::IPV4) if tables.features() & V4::FEATURE != 0 => from_stack::<V4>(packet, tables, out, start),
        Ok(ethertype::IPV6) if tables.features() & V6::FEATURE != 0 => from_stack::<V6>(packet, tables, out, start),
        Ok(_) => Err(out.drop(DropReason::UnsupportedProtocol)),
        Err(stop) => Err(stop),
    };
}

#[inline(always)]
fn from_stack<I: Ip>(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) -> Step {
    let header = match I::parse(packet) {
        Ok(header) => header,
        Err(reason) => return Err(out.drop(reason)),
    };
    if I::is_multicast(&header.dst) {
        // The kernel speaks to the link of `cilium_host` as to any other.
        return Err(to_group::<I>(packet, out, &header));
    }
    slot(tables, out, start, Stage::HostFwOut)?;
    let Some(endpoint) = tables.endpoint(&I::endpoint_key(&header.dst)) else {
        return Err(from_stack_to_node::<I>(packet, tables, out, &header));
    };
    if endpoint.flags & endpoint_flag::READY == 0 || endpoint.flags & endpoint_flag::HOST != 0 {
        return Err(out.drop(DropReason::NoConfiguration));
    }
    address(packet, out, endpoint.eth)?;
    // Ingress stages run where the packet enters the pod's device, in `to_container`.
    Err(out.stop(Kind::Deliver, endpoint.ifindex))
}

/// A packet into a pod that did not come by our own redirect.
#[inline(always)]
pub fn to_container(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, ifindex: u32, start: u8) {
    // Either way the outcome is written.
    let _ = in_from_stack(packet, tables, out, ifindex, start);
}

#[inline(always)]
fn in_from_stack(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, ifindex: u32, start: u8) -> Step {
    let device = device_on(tables, out, ifindex)?;
    match ethertype_of(packet, out)? {
        ethertype::IPV4 => is_for_pod::<V4>(packet, out, [device.addr4, 0, 0, 0])?,
        ethertype::IPV6 => is_for_pod::<V6>(packet, out, device.addr6)?,
        _ => return Err(out.drop(DropReason::UnsupportedProtocol)),
    }
    slot(tables, out, start, Stage::IngressPolicy)?;
    slot(tables, out, start, Stage::Proxy)?;
    slot(tables, out, start, Stage::Deliver)?;
    Err(out.stop(Kind::Pass, 0))
}

/// Ends the way of a packet into a pod that is not to its address.
#[inline(always)]
fn is_for_pod<I: Ip>(packet: &impl Packet, out: &mut Outcome, own: [u32; 4]) -> Step {
    let header = match I::parse(packet) {
        Ok(header) => header,
        Err(reason) => return Err(out.drop(reason)),
    };
    if header.dst == own {
        Ok(())
    } else if I::is_multicast(&header.dst) {
        // The kernel of the node looks for neighbours and routers here when the device comes up.
        Err(to_group::<I>(packet, out, &header))
    } else {
        Err(out.drop(DropReason::Unroutable))
    }
}

/// Through the last stages into an endpoint of this node.
#[inline(always)]
pub(super) fn into_pod<I: Ip>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
    endpoint: &EndpointValue,
    start: u8,
) -> Step {
    if endpoint.flags & endpoint_flag::READY == 0 {
        return Err(out.drop(DropReason::NoConfiguration));
    }
    // Slots from here on see the packet as it arrives, so that one that is denied still has its TTL.
    slot(tables, out, start, Stage::IngressPolicy)?;
    slot(tables, out, start, Stage::Proxy)?;
    slot(tables, out, start, Stage::Deliver)?;
    age::<I>(packet, tables, out, header)?;
    address(packet, out, endpoint.eth)?;
    Err(out.stop(Kind::Deliver, endpoint.ifindex))
}
