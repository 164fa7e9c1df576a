//! Turns a verdict into what the hook understands.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, bpf_fib_lookup as FibLookup, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1},
    helpers::{bpf_fib_lookup, bpf_ktime_get_ns, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer},
};
use kinesin_abi::{Direction, DropEvent, DropReason, Entry, FAMILY_V4, FORWARDED, SIGNALLING, carrier, metric_index};
use kinesin_packet::{
    Answer, IcmpError, Kind, Outcome, Packet, Peer, Tables as _, answer,
    ip::{self, Ip, V4, V6, ethertype},
    tunnel::{self, encap},
};

use crate::{
    maps::{KIN_EVENTS, KIN_HOST_DEVICE, KIN_METRICS, KIN_SLOTS, KIN_UPLINK, KernelTables},
    overlay,
    packet::TcPacket,
    state,
};

/// `TC_ACT_UNSPEC`: whoever is attached after us goes on; with nobody there the packet passes.
pub(crate) const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// No code of the hook's: the routing tables name no way.
const NO_ROUTE: i32 = -2;
/// Address families as the kernel numbers them.
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
/// `BPF_FIB_LKUP_RET_SUCCESS` and `BPF_FIB_LKUP_RET_NO_NEIGH`: a route was found, with and without its neighbour's address.
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;

/// Carries out a verdict; the answer is the hook's return code.
#[inline(always)]
pub(crate) fn act(packet: &mut TcPacket, entry: Entry, out: &Outcome) -> i32 {
    match out.kind {
        Kind::Pass => {
            if entry == Entry::ToContainer {
                count(packet, FORWARDED, Direction::Ingress);
            }
            NEXT
        }
        Kind::ToStack => {
            count(packet, FORWARDED, Direction::Egress);
            packet.ctx.set_mark(out.value);
            NEXT
        }
        Kind::Deliver => deliver(packet, entry, out.value),
        Kind::ToHost => to_host(packet, out.value),
        Kind::Carry => {
            let is_sent = matches!(entry, Entry::FromContainer | Entry::FromHost);
            if is_sent && tunnel::is_on(&KernelTables) && out.peer.carrier != carrier::NATIVE {
                let ifindex = tunnel::device_of(&KernelTables, out.peer.carrier);
                if ifindex != 0 {
                    return into_device(packet, entry, out, ifindex);
                }
                if let Err(reason) = encap::write(packet, &KernelTables, &out.peer, out.value) {
                    return drop(packet, entry, reason as u32, out.peer.identity);
                }
            }
            carry(packet, entry, &out.peer)
        }
        Kind::Arp => reply(packet, entry, Answer::Arp),
        Kind::Neighbour => reply(packet, entry, Answer::Neighbour),
        Kind::TimeExceeded => reply(packet, entry, Answer::Icmp(IcmpError::TimeExceeded)),
        Kind::HostUnreachable => reply(packet, entry, Answer::Icmp(IcmpError::HostUnreachable)),
        Kind::TooBig => reply(packet, entry, Answer::Icmp(IcmpError::TooBig(out.value))),
        Kind::Slot => {
            if state::save(packet, entry, out.value as u8, out.peer.identity) {
                // SAFETY: nothing here needs to be dropped; the call returns only when the slot is empty.
                unsafe { KIN_SLOTS.tail_call(&packet.ctx, out.value) };
            }
            drop(packet, entry, DropReason::MissedTailCall as u32, out.peer.identity)
        }
        Kind::Absorb => {
            count(packet, SIGNALLING, direction_of(entry));
            SHOT
        }
        // It is taken apart before anybody acts on it.
        Kind::Decapsulate => drop(packet, entry, DropReason::NoTunnel as u32, out.peer.identity),
        Kind::Drop => drop(packet, entry, out.value, out.peer.identity),
    }
}

/// Turns the packet into an answer and sends it back.
#[inline(always)]
fn reply(packet: &mut TcPacket, entry: Entry, what: Answer) -> i32 {
    let ifindex = packet.ifindex();
    let own_mac = KernelTables.device(ifindex).map(|device| answer::host_mac(device.eth));
    match answer::write(packet, &KernelTables, what, own_mac) {
        Ok(()) => {
            packet.address_to_receiver();
            send_back(packet, entry, ifindex)
        }
        Err(reason) => drop(packet, entry, reason as u32, 0),
    }
}

/// Into the kernel's tunnel device, which finds the way to the peer by the node's routing tables.
#[inline(always)]
fn into_device(packet: &mut TcPacket, entry: Entry, out: &Outcome, ifindex: u32) -> i32 {
    let mut key = tunnel::device::Key::default();
    if let Err(reason) = tunnel::device::wrap(packet, &KernelTables, &out.peer, out.value, &mut key) {
        return drop(packet, entry, reason as u32, out.peer.identity);
    }
    if !overlay::tell(packet, &out.peer, &key) {
        return drop(packet, entry, DropReason::WriteError as u32, out.peer.identity);
    }
    // The tunnel's packet is the node's own, and no rule about the pod's identity is meant for it.
    packet.ctx.set_mark(0);
    count(packet, FORWARDED, Direction::Egress);
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// Into the node's own stack, as if it had come in on `cilium_host`: that is where the way back leads, so the stack
/// finds the source where it looks for it.
#[inline(always)]
fn to_host(packet: &mut TcPacket, mark: u32) -> i32 {
    count(packet, FORWARDED, Direction::Ingress);
    packet.ctx.set_mark(mark);
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(KIN_HOST_DEVICE.load(), u64::from(BPF_F_INGRESS)) as i32 }
}

/// Into a pod: at an ingress hook straight to the other end of the pair, at the egress hook of `cilium_host` to the
/// host end, whose own program then judges the packet.
#[inline(always)]
fn deliver(packet: &TcPacket, entry: Entry, ifindex: u32) -> i32 {
    if entry == Entry::FromContainer {
        count(packet, FORWARDED, Direction::Egress);
    }
    let code = match entry {
        Entry::FromContainer | Entry::FromNetdev | Entry::FromOverlay => {
            count(packet, FORWARDED, Direction::Ingress);
            // SAFETY: the helper takes numbers only.
            unsafe { bpf_redirect_peer(ifindex, 0) }
        }
        // SAFETY: the helper takes numbers only.
        Entry::FromHost | Entry::ToContainer => unsafe { bpf_redirect(ifindex, 0) },
    };
    code as i32
}

/// Back to where the packet came from.
#[inline(always)]
fn send_back(packet: &mut TcPacket, entry: Entry, ifindex: u32) -> i32 {
    let code = match entry {
        // What came out of a tunnel is answered by one: as a packet of the node's own stack the answer meets the program that
        // knows the way (`from_host`). A mark would say that it is another's.
        Entry::FromOverlay => {
            packet.ctx.set_mark(0);
            // SAFETY: the helper takes numbers only.
            unsafe { bpf_redirect(KIN_HOST_DEVICE.load(), 0) }
        }
        // The peer of the host end is the pod: no program of the host end needs to see the answer.
        // SAFETY: the helper takes numbers only.
        Entry::FromContainer => unsafe { bpf_redirect_peer(ifindex, 0) },
        // SAFETY: the helper takes numbers only.
        _ => unsafe { bpf_redirect(ifindex, 0) },
    };
    code as i32
}

/// Out to the next node; the kernel resolves the neighbour's address on the link.
#[inline(always)]
fn carry(packet: &TcPacket, entry: Entry, peer: &Peer) -> i32 {
    if peer.routed {
        let code = match entry {
            Entry::FromHost => carry_by_route::<true>(packet),
            _ => carry_by_route::<false>(packet),
        };
        return if code == NO_ROUTE { drop(packet, entry, DropReason::FibFailed as u32, peer.identity) } else { code };
    }
    let uplink = KIN_UPLINK.load();
    if uplink == 0 {
        return drop(packet, entry, DropReason::FibFailed as u32, peer.identity);
    }
    let mut next_hop = bpf_redir_neigh {
        nh_family: if peer.family == FAMILY_V4 { AF_INET } else { AF_INET6 },
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: peer.node },
    };
    match entry {
        Entry::FromHost => redirect_to::<true>(packet, uplink, &mut next_hop),
        _ => redirect_to::<false>(packet, uplink, &mut next_hop),
    }
}

/// Out of the device and to the neighbour that the node's routing tables name.
///
/// A call of its own, and one that leaves the drop to its caller: frames of nested calls share 512 bytes of stack.
#[inline(never)]
fn carry_by_route<const HAS_ROUTE: bool>(packet: &TcPacket) -> i32 {
    // SAFETY: the record has integers only, for which zero is a value.
    let mut query: FibLookup = unsafe { core::mem::zeroed() };
    // As if the stack were to forward it from here.
    query.ifindex = packet.ifindex();
    let family = match packet.view::<54>(0) {
        Some(view) if view.u16::<12>() == ethertype::IPV6 => {
            query.__bindgen_anon_3.ipv6_src = view.words4::<22>();
            query.__bindgen_anon_4.ipv6_dst = view.words4::<38>();
            AF_INET6
        }
        _ => {
            let Some(view) = packet.view::<34>(0) else {
                return NO_ROUTE;
            };
            query.__bindgen_anon_3.ipv4_src = view.u32::<26>();
            query.__bindgen_anon_4.ipv4_dst = view.u32::<30>();
            AF_INET
        }
    };
    // Lossless: 2 or 10.
    query.family = family as u8;
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: the context is valid, the pointer is to a live local of the stated size.
    let found = unsafe { bpf_fib_lookup(packet.ctx.as_ptr(), &raw mut query, size, 0) };
    if found != FIB_SUCCESS && found != FIB_NO_NEIGHBOUR {
        return NO_ROUTE;
    }
    // The kernel has put the next hop in the destination's place.
    // SAFETY: every field of the union is of integers, and all of it was initialised.
    let neighbour = unsafe { query.__bindgen_anon_4.ipv6_dst };
    let mut next_hop = bpf_redir_neigh {
        nh_family: u32::from(query.family),
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: neighbour },
    };
    redirect_to::<HAS_ROUTE>(packet, query.ifindex, &mut next_hop)
}

/// Out of a device to a neighbour.
///
/// A packet of the stack has the route by which it came here (`HAS_ROUTE`), and after waiting for the neighbour's address
/// it would get the Ethernet address of that route's neighbour (`neigh_update`, Linux 6.18). Asked without next hop, the
/// kernel looks up the way anew and gives it that route.
#[inline(always)]
fn redirect_to<const HAS_ROUTE: bool>(packet: &TcPacket, ifindex: u32, next_hop: &mut bpf_redir_neigh) -> i32 {
    count(packet, FORWARDED, Direction::Egress);
    let code = if HAS_ROUTE {
        // SAFETY: the helper takes no pointer then.
        unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) }
    } else {
        // SAFETY: the pointer is to a live local of the stated size.
        unsafe { bpf_redirect_neigh(ifindex, next_hop, size_of::<bpf_redir_neigh>() as i32, 0) }
    };
    code as i32
}

/// Counts and reports a drop; `identity` is the source's where a tunnel or a stage said it, else 0. Not inlined: a
/// program has many places that drop.
#[inline(never)]
pub(crate) fn drop(packet: &TcPacket, entry: Entry, reason: u32, identity: u32) -> i32 {
    // Lossless: reasons are bytes.
    let reason = reason as u8;
    count(packet, reason, direction_of(entry));
    report(packet, entry, reason, identity);
    SHOT
}

/// The direction of what ends at an entry, seen from the endpoint.
#[inline(always)]
fn direction_of(entry: Entry) -> Direction {
    match entry {
        Entry::FromContainer => Direction::Egress,
        _ => Direction::Ingress,
    }
}

/// Counts a packet under a reason.
#[inline(always)]
fn count(packet: &TcPacket, reason: u8, direction: Direction) {
    let length = packet.len() as u64;
    if let Some(metric) = KIN_METRICS.get_ptr_mut(metric_index(reason, direction)) {
        // SAFETY: the entry is this CPU's own, and a program is not moved to another CPU while it runs.
        let metric = unsafe { &mut *metric };
        metric.packets += 1;
        metric.bytes += length;
    }
}

/// Sends an event; a full ring loses it, and the counter does not.
#[inline(always)]
fn report(packet: &TcPacket, entry: Entry, reason: u8, identity: u32) {
    let Some(mut slot) = KIN_EVENTS.reserve_untyped::<DropEvent>(0) else {
        return;
    };
    // SAFETY: the helper has no precondition.
    let time = unsafe { bpf_ktime_get_ns() };
    let ifindex = packet.ifindex();
    let device = KernelTables.device(ifindex);
    // Filled in where it lies; a copy on the stack would be too much beside the frames of the callers.
    let event = slot.write(DropEvent::default());
    event.time = time;
    event.kind = 1;
    event.reason = reason;
    event.observation = entry as u8;
    event.ifindex = ifindex;
    event.endpoint = device.map_or(0, |found| found.id);
    event.length = packet.len() as u32;
    event.source_identity = match (entry, device) {
        (Entry::FromContainer, Some(found)) => found.identity,
        _ => identity,
    };
    if let Some(view) = packet.view::<14>(0) {
        match view.u16::<12>() {
            ethertype::IPV4 => describe::<V4>(packet, event),
            ethertype::IPV6 => describe::<V6>(packet, event),
            _ => {}
        }
    }
    slot.submit(0);
}

#[inline(always)]
fn describe<I: Ip>(packet: &TcPacket, event: &mut DropEvent) {
    let Ok(header) = I::parse(packet) else {
        return;
    };
    event.family = I::FAMILY;
    event.protocol = header.protocol;
    event.saddr = header.src;
    event.daddr = header.dst;
    if (header.protocol == ip::protocol::TCP || header.protocol == ip::protocol::UDP)
        && let Some((source, destination)) = ip::ports(packet, &header)
    {
        event.sport_be = source;
        event.dport_be = destination;
    }
}
