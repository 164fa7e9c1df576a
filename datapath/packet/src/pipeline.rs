//! The decisions, in the fixed order of the stages.
//!
//! Each entry function starts at a stage: the first one when the packet arrives, a later one when a slot program has
//! handed it back. What earlier stages found out is looked up again then; a slot costs that, an empty slot costs
//! nothing, since the mask of filled slots is a load-time constant.
//!
//! The stages out of a pod are in `out_of_pod.rs`, those into one in `into_pod.rs`, what goes into a tunnel and what came
//! out of one in `overlay.rs`, what never leaves a pod's link in `link.rs`; here is what they share.

mod into_pod;
mod link;
mod out_of_pod;
mod overlay;

use kinesin_abi::{DeviceValue, DropReason, Stage, endpoint_flag, identity};

pub(crate) use self::overlay::underlay_mtu;
pub use self::{
    into_pod::{from_host, from_netdev, to_container},
    out_of_pod::from_container,
    overlay::from_overlay,
};
use crate::{
    ETH_LEN,
    ip::{Fragment, Header, Ip, V6},
    packet::Packet,
    tables::Tables,
    verdict::{Kind, Outcome, Stop},
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

/// The endpoint on a device, once everything about it is in place.
#[inline(always)]
fn device_on<'a>(tables: &'a impl Tables, out: &mut Outcome, ifindex: u32) -> Step<&'a DeviceValue> {
    match tables.device(ifindex) {
        Some(device) if device.flags & endpoint_flag::READY != 0 => Ok(device),
        _ => Err(out.drop(DropReason::NoConfiguration)),
    }
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
    error_with::<I>(packet, tables, out, header, (error, tables.mtu()), reason)
}

/// The same with the number that the error tells: for [`Kind::TooBig`] the MTU of the way.
#[inline(always)]
fn error_with<I: Ip>(
    packet: &impl Packet,
    tables: &impl Tables,
    out: &mut Outcome,
    header: &Header,
    (error, number): (Kind, u32),
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
    if tables.take_error_token() { out.stop(error, number) } else { out.drop(DropReason::RateLimited) }
}

/// Identity of a packet's source where no endpoint says it: from the prefix table, else outside the cluster.
#[inline(always)]
pub fn source_identity<I: Ip>(tables: &impl Tables, source: &kinesin_abi::Address) -> u32 {
    if let Some(endpoint) = tables.endpoint(&I::endpoint_key(source)) {
        return endpoint.identity;
    }
    tables.ipcache(&I::ipcache_key(source)).map_or(identity::WORLD, |found| found.identity)
}
