//! The kernel programs of the eBPF chassis: entry points and continuations.
//!
//! An entry point reads what it needs of the context, calls the pipeline in `kinesin-packet` and acts on the verdict.
//! Every program has the expected attach type 0 (section `classifier`), because programs that share a program array
//! must agree in it. Kernel: 5.10 for `bpf_redirect_peer` and `bpf_redirect_neigh`.
//!
//! On the host the crate only checks (clippy): there the standard library brings the panic handler.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod act;
mod maps;
mod overlay;
mod packet;
mod state;

use aya_ebpf::{macros::classifier, programs::TcContext};
use kinesin_abi::{DropReason, Entry, FIRST_DROP, Mark};
use kinesin_packet::{
    Kind, Outcome, Packet as _, pipeline,
    tunnel::{decap, device, told},
};

use crate::{maps::KernelTables, packet::TcPacket};

/// tc ingress of a host end: a packet out of a pod.
#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    run(ctx, Entry::FromContainer, 0)
}

/// tc egress of a host end: a packet into a pod that did not come by our own redirect.
#[classifier]
pub fn to_container(ctx: TcContext) -> i32 {
    run(ctx, Entry::ToContainer, 0)
}

/// tc ingress of an uplink: a packet in from the network.
#[classifier]
pub fn from_netdev(ctx: TcContext) -> i32 {
    run(ctx, Entry::FromNetdev, 0)
}

/// tc ingress of an uplink whose packets have no Ethernet header: they get one, and are then judged like any others. Those
/// that go on into the stack keep it, where nobody looks at it.
#[classifier]
pub fn from_l3_netdev(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(ctx);
    if !packet.add_ethernet() {
        return act::drop(&packet, Entry::FromNetdev, DropReason::WriteError as u32, 0);
    }
    run(packet.ctx, Entry::FromNetdev, 0)
}

/// tc egress of `cilium_host`: a packet of the node's own stack to a pod.
#[classifier]
pub fn from_host(ctx: TcContext) -> i32 {
    run(ctx, Entry::FromHost, 0)
}

/// tc ingress of the kernel's tunnel devices (`cilium_vxlan` and the like): what the kernel's device took out of a tunnel.
///
/// Only what `from_netdev` has let in and marked goes on. The rest, such as what is from nobody that is known, or came to
/// the node another way, ends here; where programs take tunnels apart themselves that is all there is.
#[classifier]
pub fn from_overlay(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(ctx);
    if packet.mark() != Mark::OVERLAY.0 {
        return act::drop(&packet, Entry::FromOverlay, DropReason::UnknownSender as u32, 0);
    }
    packet.ctx.set_mark(0);
    let identity = match overlay::identity(&packet) {
        Ok(identity) => identity,
        Err(reason) => return act::drop(&packet, Entry::FromOverlay, reason as u32, 0),
    };
    if packet.is_tagged() {
        return act::drop(&packet, Entry::FromOverlay, DropReason::VlanForbidden as u32, identity);
    }
    if !packet.is_addressed_to_us() {
        // Nobody looks at the Ethernet addresses inside, here as elsewhere.
        packet.address_to_receiver();
    }
    let mut out = Outcome::new();
    out.peer.identity = identity;
    overlay(&mut packet, &mut out, 0)
}

/// Continuation `Next`: goes on with the stage after the slot's.
#[classifier]
pub fn cont_next(ctx: TcContext) -> i32 {
    match state::resume() {
        Some((Entry::FromContainer, stage, _)) => run(ctx, Entry::FromContainer, stage),
        Some((Entry::ToContainer, stage, _)) => run(ctx, Entry::ToContainer, stage),
        Some((Entry::FromNetdev, stage, _)) => run(ctx, Entry::FromNetdev, stage),
        Some((Entry::FromHost, stage, _)) => run(ctx, Entry::FromHost, stage),
        Some((Entry::FromOverlay, stage, identity)) => {
            let mut out = Outcome::new();
            out.peer.identity = identity;
            overlay(&mut TcPacket::new(ctx), &mut out, stage)
        }
        None => act::drop(&TcPacket::new(ctx), Entry::FromNetdev, DropReason::MissedTailCall as u32, 0),
    }
}

/// Continuation `Deliver`: to the device that the slot program chose.
#[classifier]
pub fn cont_deliver(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::new(ctx);
    match state::chosen() {
        Some((entry, ifindex, identity)) => {
            let mut out = Outcome::new();
            out.peer.identity = identity;
            out.stop(Kind::Deliver, ifindex);
            act::act(&mut packet, entry, &out)
        }
        None => act::drop(&packet, Entry::FromNetdev, DropReason::MissedTailCall as u32, 0),
    }
}

/// Continuation `Drop`: for the reason that the slot program named.
#[classifier]
pub fn cont_drop(ctx: TcContext) -> i32 {
    let packet = TcPacket::new(ctx);
    let (entry, number, identity) = state::reason().unwrap_or((Entry::FromNetdev, 0, 0));
    // A number that is none of a drop would hide it from whoever counts drops.
    let number = if number < FIRST_DROP { DropReason::Slot as u8 } else { number };
    act::drop(&packet, entry, u32::from(number), identity)
}

/// Runs the pipeline of `entry` from stage `start` on.
#[inline(always)]
fn run(ctx: TcContext, entry: Entry, start: u8) -> i32 {
    let mut packet = TcPacket::new(ctx);
    let ifindex = packet.ifindex();
    let mut out = Outcome::new();
    match entry {
        Entry::FromContainer => pipeline::from_container(&mut packet, &KernelTables, &mut out, ifindex, start),
        Entry::ToContainer => pipeline::to_container(&mut packet, &KernelTables, &mut out, ifindex, start),
        Entry::FromNetdev => pipeline::from_netdev(&mut packet, &KernelTables, &mut out, start),
        Entry::FromHost => pipeline::from_host(&mut packet, &KernelTables, &mut out, start),
        Entry::FromOverlay => pipeline::from_overlay(&mut packet, &KernelTables, &mut out, start),
    }
    if entry == Entry::FromNetdev && out.is_told {
        learn(&mut packet);
    }
    if entry == Entry::FromNetdev && out.kind == Kind::Decapsulate {
        let failed = if device::takes(&mut packet, &KernelTables, &out) {
            match device::admit(&mut packet, &KernelTables, &out) {
                Ok(()) => {
                    packet.ctx.set_mark(Mark::OVERLAY.0);
                    return act::NEXT;
                }
                Err(reason) => reason,
            }
        } else {
            match decap::strip(&mut packet, &out) {
                Ok(()) => return overlay(&mut packet, &mut out, 0),
                Err(reason) => reason,
            }
        };
        return act::drop(&packet, Entry::FromOverlay, failed as u32, out.peer.identity);
    }
    act::act(&mut packet, entry, &out)
}

/// Learns what a message from the way says of it. A call of its own, since it is rare and has its own frame.
#[inline(never)]
fn learn(packet: &mut TcPacket) {
    told::learn(packet, &KernelTables);
}

/// What was inside a tunnel's packet, from stage `start` on.
#[inline(always)]
fn overlay(packet: &mut TcPacket, out: &mut Outcome, start: u8) -> i32 {
    pipeline::from_overlay(packet, &KernelTables, out, start);
    act::act(packet, Entry::FromOverlay, out)
}

/// Some licences keep a program from using helpers; the kernel reads this section.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

/// A tripwire: any path that can panic makes the verifier refuse the program.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
