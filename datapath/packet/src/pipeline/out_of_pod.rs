//! What comes out of a pod: may it, and where does it go.

use kinesin_abi::{DeviceValue, DropReason, Mark, Stage, endpoint_flag, ipcache_flag};

use super::{
    Step, age, device_on, error, error_with, ethertype_of,
    into_pod::into_pod,
    link::{arp, neighbour_discovery, to_group},
    overlay::{carry, limit},
    slot,
};
use crate::{
    ETH_LEN,
    ip::{self, Fragment, Header, Ip, V4, V6, ethertype, protocol},
    packet::Packet,
    tables::Tables,
    verdict::{Kind, Outcome},
};

/// A packet out of a pod, on device `ifindex`; `start` is the first stage to run.
#[inline(always)]
pub fn from_container(packet: &mut impl Packet, tables: &impl Tables, out: &mut Outcome, ifindex: u32, start: u8) {
    // Either way the outcome is written.
    let _ = out_of_pod(packet, tables, out, ifindex, start);
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
    let limit = limit(tables, out, found)?;
    if wire_length(packet, &header) > limit as usize {
        if !header.dont_fragment {
            // The stack can fragment; we cannot.
            return Err(out.stop(Kind::ToStack, Mark::of_identity(device.identity).0));
        }
        let too_big = (Kind::TooBig, limit);
        return Err(error_with::<I>(packet, tables, out, &header, too_big, DropReason::FragmentationNeeded));
    }
    age::<I>(packet, tables, out, &header)?;
    slot(tables, out, start, Stage::Encrypt)?;
    Err(carry(packet, tables, out, &header, (found, device.identity)))
}

/// UDP to a node's tunnel port would let its sender speak with any identity.
#[inline(always)]
pub(super) fn keep_from_tunnels<I: Ip>(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
) -> Step {
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

/// Segment size of a packet that is a chain of packets of different sizes, SCTP's (`GSO_BY_FRAGS`, Linux
/// `include/linux/skbuff.h`).
const BY_FRAGMENTS: usize = 0xffff;

/// Length of the IP packets that go on the wire: of one segment where the kernel will segment.
#[inline(always)]
pub(super) fn wire_length(packet: &impl Packet, header: &Header) -> usize {
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
