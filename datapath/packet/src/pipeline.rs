//! The decisions, in the fixed order of the stages.
//!
//! Each entry function starts at a stage: the first one when the packet arrives, a later one when a slot program has
//! handed it back. What earlier stages found out is looked up again then; a slot costs that, an empty slot costs
//! nothing, since the mask of filled slots is a load-time constant.

use kinesin_abi::{DeviceValue, DropReason, Mark, Stage, carrier, endpoint_flag, identity, ipcache_flag};

use crate::{
    ETH_LEN,
    ip::{self, Fragment, Header, Ip, V4, V6, ethertype, protocol},
    packet::Packet,
    tables::Tables,
    verdict::{Kind, Outcome, Peer, Stop},
};

/// A step that either goes on or has ended the pipeline.
type Step<T = ()> = Result<T, Stop>;

/// Hands the packet to a slot program if the stage's slot is filled and not yet passed.
#[inline(always)]
fn slot(tables: &impl Tables, out: &mut Outcome, start: u8, stage: Stage) -> Step {
    if tables.slot_mask() & stage.bit() != 0 && start <= stage as u8 {
        return Err(out.stop(Kind::Slot, stage as u32));
    }
    Ok(())
}

#[inline(always)]
fn ethertype_of(packet: &mut impl Packet, out: &mut Outcome) -> Step<u16> {
    // Most packets have all their headers in the directly accessible part; only the others pay for the call, which then
    // makes some extension headers and ports accessible too.
    let wanted = ETH_LEN + V6::HEADER_LEN + 74;
    if packet.view::<54>(0).is_none() {
        let available = packet.len();
        packet.pull(if available < wanted { available } else { wanted });
    }
    match packet.view::<14>(0) {
        Some(view) => Ok(view.u16::<12>()),
        None => Err(out.drop(DropReason::InvalidPacket)),
    }
}

/// A packet out of a pod, on device `ifindex`; `start` is the first stage to run.
#[inline(always)]
pub fn from_container(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, ifindex: u32, start: u8) {
    // Either way the outcome is written.
    let _ = out_of_pod(packet, tables, out, ifindex, start);
}

/// The endpoint on a device, once everything about it is in place.
#[inline(always)]
fn device_on<'a>(tables: &'a impl Tables, out: &mut Outcome, ifindex: u32) -> Step<&'a DeviceValue> {
    match tables.device(ifindex) {
        Some(device) if device.flags & endpoint_flag::READY != 0 => Ok(device),
        _ => Err(out.drop(DropReason::NoConfiguration)),
    }
}

#[inline(always)]
fn out_of_pod(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, ifindex: u32, start: u8) -> Step {
    let device = device_on(tables, out, ifindex)?;
    if packet.is_tagged() {
        // Redirected as it is, the packet would keep its tag on the uplink.
        return Err(out.drop(DropReason::VlanForbidden));
    }
    match ethertype_of(packet, out)? {
        ethertype::IPV4 if tables.features() & V4::FEATURE != 0 => {
            let own = [device.addr4, 0, 0, 0];
            out_of_pod_ip::<V4>(packet, tables, out, device, own, start)
        }
        ethertype::IPV6 if tables.features() & V6::FEATURE != 0 => {
            neighbour_discovery(packet, out, device)?;
            out_of_pod_ip::<V6>(packet, tables, out, device, device.addr6, start)
        }
        ethertype::ARP => Err(arp(packet, out, device)),
        _ => Err(out.drop(DropReason::UnsupportedProtocol)),
    }
}

#[inline(always)]
fn out_of_pod_ip<I: Ip>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    device: &DeviceValue,
    own: [u32; 4],
    start: u8,
) -> Step {
    let header = match I::parse(packet) {
        Ok(header) => header,
        Err(reason) => return Err(out.drop(reason)),
    };
    // First, since every pod sends multicast from its link-local address when its link comes up; counted as foreign
    // sources they would hide the real ones.
    if I::is_multicast(&header.dst) {
        return Err(to_group::<I>(packet, out, &header));
    }
    if header.src != own || own == [0; 4] {
        return Err(out.drop(DropReason::InvalidSource));
    }
    if I::is_local(&header.dst) {
        // Nobody but the node is there, and these addresses of its are in no table that could protect them.
        return Err(out.drop(DropReason::Unroutable));
    }
    keep_from_tunnels::<I>(packet, tables, out, &header)?;
    slot(tables, out, start, Stage::Lb)?;
    slot(tables, out, start, Stage::EgressPolicy)?;
    slot(tables, out, start, Stage::Route)?;
    if let Some(endpoint) = tables.endpoint(&I::endpoint_key(&header.dst)) {
        if endpoint.flags & endpoint_flag::HOST != 0 {
            return Err(out.stop(Kind::ToStack, Mark::of_identity(device.identity).0));
        }
        return into_pod::<I>(packet, tables, out, &header, endpoint, start);
    }
    let Some(found) = tables.ipcache(&I::ipcache_key(&header.dst)) else {
        // Outside the cluster: the node's stack knows the way, and looks after TTL and MTU.
        return Err(out.stop(Kind::ToStack, Mark::of_identity(device.identity).0));
    };
    if found.flags & ipcache_flag::LOCAL_CIDR != 0 {
        return Err(error::<I>(packet, tables, out, &header, Kind::HostUnreachable, DropReason::Unroutable));
    }
    if found.carrier != carrier::NATIVE {
        return Err(out.drop(DropReason::NoTunnel));
    }
    if wire_length(packet, &header) > tables.mtu() as usize {
        if !header.dont_fragment {
            // The stack can fragment; we cannot.
            return Err(out.stop(Kind::ToStack, Mark::of_identity(device.identity).0));
        }
        return Err(error::<I>(packet, tables, out, &header, Kind::TooBig, DropReason::FragmentationNeeded));
    }
    age::<I>(packet, tables, out, &header)?;
    slot(tables, out, start, Stage::Encrypt)?;
    out.peer = Peer {
        node: found.node,
        family: found.node_family,
        carrier: found.carrier,
        identity: device.identity,
        routed: found.flags & ipcache_flag::ROUTED != 0,
    };
    Err(out.stop(Kind::Carry, 0))
}

/// Ends the way of a packet to a group: nobody is on the link whom it could be for.
#[inline(always)]
fn to_group<I: Ip>(packet: &impl Packet, out: &mut Outcome, header: &Header) -> Stop {
    if I::is_signalling(packet, header) { out.stop(Kind::Absorb, 0) } else { out.drop(DropReason::Multicast) }
}

/// UDP to a node's tunnel port would let a pod speak with any identity.
#[inline(always)]
fn keep_from_tunnels<I: Ip>(packet: &impl Packet, tables: &impl Tables, out: &mut Outcome, header: &Header) -> Step {
    if header.protocol != protocol::UDP || header.fragment == Fragment::Later {
        return Ok(());
    }
    let Some((_, port)) = ip::ports(packet, header) else {
        // A first fragment that ends before the port (RFC 7112), or no UDP at all.
        return Err(out.drop(DropReason::TruncatedTransport));
    };
    let [a, b, c, d] = tables.tunnel_ports();
    if port == 0 || (port != a && port != b && port != c && port != d) {
        return Ok(());
    }
    let own_node =
        tables.endpoint(&I::endpoint_key(&header.dst)).is_some_and(|found| found.flags & endpoint_flag::HOST != 0);
    let other_node =
        tables.ipcache(&I::ipcache_key(&header.dst)).is_some_and(|found| found.flags & ipcache_flag::NODE != 0);
    if own_node || other_node { Err(out.drop(DropReason::TunnelForbidden)) } else { Ok(()) }
}

/// Through the last stages into an endpoint of this node.
#[inline(always)]
fn into_pod<I: Ip>(
    packet: &mut impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
    endpoint: &kinesin_abi::EndpointValue,
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

/// Takes one from the TTL, or answers that it is used up.
#[inline(always)]
fn age<I: Ip>(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, header: &Header) -> Step {
    if header.ttl <= 1 {
        return Err(error::<I>(packet, tables, out, header, Kind::TimeExceeded, DropReason::TtlExceeded));
    }
    match I::decrement_ttl(packet, header.ttl) {
        Some(()) => Ok(()),
        None => Err(out.drop(DropReason::WriteError)),
    }
}

/// Writes the first twelve bytes of the Ethernet header.
#[inline(always)]
fn address(packet: &mut impl Packet, out: &mut Outcome, eth: [u32; 3]) -> Step {
    let Some(mut view) = packet.view_mut::<14>(0) else {
        return Err(out.drop(DropReason::WriteError));
    };
    view.set_u32::<0>(eth[0]);
    view.set_u32::<4>(eth[1]);
    view.set_u32::<8>(eth[2]);
    Ok(())
}

/// Segment size of a packet that is a chain of packets of different sizes, SCTP's (`GSO_BY_FRAGS`, Linux
/// `include/linux/skbuff.h`).
const BY_FRAGMENTS: usize = 0xffff;

/// Length of the IP packets that go on the wire: of one segment where the kernel will segment.
#[inline(always)]
fn wire_length(packet: &impl Packet, header: &Header) -> usize {
    let segment = packet.segment_size();
    if segment == 0 {
        return header.length;
    }
    if segment == BY_FRAGMENTS {
        // Its parts cannot be seen from here; the sender cut them to its path's MTU.
        return 0;
    }
    let transport = match header.protocol {
        protocol::TCP => match packet.view::<14>(header.l4) {
            Some(view) => usize::from(view.u8::<12>() >> 4) * 4,
            None => 20,
        },
        _ => 8,
    };
    header.l4 - ETH_LEN + transport + segment
}

/// An error to the sender, or a silent drop where none may be sent (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e).
#[inline(always)]
fn error<I: Ip>(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
    error: Kind,
    reason: DropReason,
) -> Stop {
    let nobody = header.src == [0; 4] || I::is_multicast(&header.src);
    if header.fragment == Fragment::Later || I::router(tables) == [0; 4] || nobody {
        return out.drop(reason);
    }
    if header.protocol == I::ICMP {
        match packet.view::<2>(header.l4) {
            Some(view) if !I::is_icmp_error(view.u8::<0>()) => {}
            _ => return out.drop(reason),
        }
    }
    if tables.take_error_token() { out.stop(error, tables.mtu()) } else { out.drop(DropReason::RateLimited) }
}

/// Requests for any address but the pod's own are answered, so that a pod needs no neighbour but us.
#[inline(always)]
fn arp(packet: &mut impl Packet, out: &mut Outcome, device: &DeviceValue) -> Stop {
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
fn neighbour_discovery(packet: &mut impl Packet, out: &mut Outcome, device: &DeviceValue) -> Step {
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

/// A packet in from the network.
#[inline(always)]
pub fn from_netdev(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) {
    // Either way the outcome is written.
    let _ = match ethertype_of(packet, out) {
        Ok(ethertype::IPV4) if tables.features() & V4::FEATURE != 0 => {
            in_from_network::<V4>(packet, tables, out, start)
        }
        Ok(ethertype::IPV6) if tables.features() & V6::FEATURE != 0 => {
            in_from_network::<V6>(packet, tables, out, start)
        }
        // ARP, LLDP and whatever else the node itself speaks.
        _ => Err(out.stop(Kind::Pass, 0)),
    };
}

#[inline(always)]
fn in_from_network<I: Ip>(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, start: u8) -> Step {
    // Frames for others come in where a switch floods or the device is promiscuous, and tagged ones belong to a VLAN's
    // device; the stack knows what to do with both.
    if packet.is_tagged() || !packet.is_addressed_to_us() {
        return Err(out.stop(Kind::Pass, 0));
    }
    // What cannot be parsed is not for a pod by any rule of ours; the stack has its own counters for it.
    let Ok(header) = I::parse(packet) else {
        return Err(out.stop(Kind::Pass, 0));
    };
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

/// A packet of the node's own stack to a pod, on `cilium_host`. The stack has seen to TTL and MTU.
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
        return Err(out.drop(DropReason::Unroutable));
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

/// Identity of a packet's source where no endpoint says it: from the prefix table, else outside the cluster.
#[inline(always)]
pub fn source_identity<I: Ip>(tables: &impl Tables, source: &kinesin_abi::Address) -> u32 {
    if let Some(endpoint) = tables.endpoint(&I::endpoint_key(source)) {
        return endpoint.identity;
    }
    tables.ipcache(&I::ipcache_key(source)).map_or(identity::WORLD, |found| found.identity)
}
