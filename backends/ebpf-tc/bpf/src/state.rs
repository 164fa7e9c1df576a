//! Saves the pipeline's knowledge for a slot program, and reads what it left.

use kinesin_abi::{Entry, FAMILY_V4, FAMILY_V6, PacketState, STATE_VERSION, identity};
use kinesin_packet::{
    ETH_LEN, Packet, Tables as _,
    ip::{self, Header, Ip, V4, V6, ethertype},
    pipeline::source_identity,
};

use crate::{
    maps::{KIN_STATE, KernelTables},
    packet::TcPacket,
};

#[inline(always)]
fn state() -> Option<&'static mut PacketState> {
    // SAFETY: the entry is this CPU's own; programs do not change CPU between tail calls, and none runs inside another
    // on the same hook.
    KIN_STATE.get_ptr_mut(0).map(|state| unsafe { &mut *state })
}

/// Writes the state for the slot of `stage`; `identity` is the source's as a tunnel brought it. The answer tells whether it could.
#[inline(always)]
pub(crate) fn save(packet: &TcPacket, entry: Entry, stage: u8, identity: u32) -> bool {
    let Some(view) = packet.view::<14>(0) else {
        return false;
    };
    let (family, header, source) = match view.u16::<12>() {
        ethertype::IPV4 => match V4::parse(packet) {
            Ok(header) => (FAMILY_V4, header, source_identity::<V4>(&KernelTables, &header.src)),
            Err(_) => return false,
        },
        ethertype::IPV6 => match V6::parse(packet) {
            Ok(header) => (FAMILY_V6, header, source_identity::<V6>(&KernelTables, &header.src)),
            Err(_) => return false,
        },
        _ => return false,
    };
    let Some(state) = state() else {
        return false;
    };
    fill(packet, state, &header);
    state.version = STATE_VERSION;
    state.entry = entry as u8;
    state.stage = stage;
    state.family = family;
    state.source_endpoint = 0;
    state.source_identity = source;
    state.destination_identity = 0;
    match entry {
        Entry::FromContainer => {
            if let Some(device) = KernelTables.device(packet.ifindex()) {
                state.source_endpoint = device.id;
                state.source_identity = device.identity;
            }
        }
        Entry::FromHost => state.source_identity = identity::HOST,
        Entry::FromOverlay => state.source_identity = identity,
        Entry::ToContainer | Entry::FromNetdev => {}
    }
    true
}

#[inline(always)]
fn fill(packet: &TcPacket, state: &mut PacketState, header: &Header) {
    let (source_port, destination_port) = match header.protocol {
        ip::protocol::TCP | ip::protocol::UDP => ip::ports(packet, header).unwrap_or((0, 0)),
        _ => (0, 0),
    };
    // Lossless: both are far below 64 KiB.
    state.link_header = ETH_LEN as u8;
    state.l4_offset = header.l4 as u16;
    state.protocol = header.protocol;
    state.reason = 0;
    state.sport_be = source_port;
    state.dport_be = destination_port;
    state.saddr = header.src;
    state.daddr = header.dst;
    state.ifindex = 0;
    state.rule_cookie = 0;
}

/// Where to go on: the entry, the stage after the slot's, which is never the first, and the source's identity.
#[inline(always)]
pub(crate) fn resume() -> Option<(Entry, u8, u32)> {
    let state = state()?;
    match state.stage.wrapping_add(1) {
        0 => None,
        next => Some((Entry::from_number(state.entry)?, next, state.source_identity)),
    }
}

/// The entry, the device that the slot program chose, and the source's identity.
#[inline(always)]
pub(crate) fn chosen() -> Option<(Entry, u32, u32)> {
    let state = state()?;
    Some((Entry::from_number(state.entry)?, state.ifindex, state.source_identity))
}

/// The entry, the reason that the slot program named, and the source's identity.
#[inline(always)]
pub(crate) fn reason() -> Option<(Entry, u8, u32)> {
    let state = state()?;
    Some((Entry::from_number(state.entry)?, state.reason, state.source_identity))
}
