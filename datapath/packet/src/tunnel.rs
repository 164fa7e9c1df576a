//! Packets inside packets: VXLAN (RFC 7348) and Geneve (RFC 8926), which carry the source's identity as their network
//! number.
//!
//! Both are an Ethernet frame behind IP, UDP and eight bytes of their own. The outer header has DF set, a TTL of 64 and
//! the inner packet's DSCP and ECN (`ecn.rs`). Its UDP source port is of the flow, so that routers on the way spread
//! flows over their paths (RFC 7348 section 5, RFC 8926 section 3.3). Its UDP checksum is zero, over IPv6 too, which is
//! allowed for tunnels whose packets are protected by the checksums inside (RFC 6935 section 5, RFC 6936 section 4).
//!
//! `encap.rs` puts on, `decap.rs` checks and takes off. Where the kernel's own device does both, `device.rs` says what it
//! is told, so that the bytes on the wire are the same.

pub mod decap;
pub mod device;
mod ecn;
pub mod encap;
pub mod told;

use kinesin_abi::{
    DropReason, carrier, identity,
    tunnel::{INNER_DESTINATION, INNER_SOURCE},
};

use crate::{
    ip::{self, Fragment, Header, protocol},
    packet::Packet,
    tables::Tables,
};

/// Length of a UDP header in bytes.
const UDP_LEN: usize = 8;
/// Length of either tunnel's header without options in bytes.
const TUNNEL_LEN: usize = 8;
/// First word of a VXLAN header: the flag I, and nothing else (RFC 7348 section 5).
const VXLAN_FLAGS: u32 = 0x0800_0000;
/// First word of a Geneve header without options: version 0, data, an Ethernet frame inside (RFC 8926 section 3.4).
const GENEVE_FRAME: u32 = 0x0000_6558;
/// TTL and hop limit of the outer header.
pub const TTL: u32 = 64;
/// Largest number of a network: 24 bits.
const VNI_MAX: u32 = 0x00ff_ffff;

/// The Ethernet addresses of the inner header, as they stand in it.
const INNER_ETH: [u32; 3] = {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (INNER_DESTINATION, INNER_SOURCE);
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l])]
};

/// Index of the kernel's device that a tunnel's packets go through, or 0 where `encap.rs` and `decap.rs` do its work.
#[inline(always)]
pub fn device_of(tables: &impl Tables, carrier: u8) -> u32 {
    match carrier {
        carrier::VXLAN => tables.vxlan_device(),
        carrier::GENEVE => tables.geneve_device(),
        _ => 0,
    }
}

/// Whether the node has a tunnel at all.
#[inline(always)]
pub fn is_on(tables: &impl Tables) -> bool {
    tables.vxlan_port() | tables.geneve_port() != 0
}

/// The identity that a source has on the wire.
///
/// The node itself goes as a node of the cluster, because the receiver would take it for its own (reference 6.7); what
/// does not fit 24 bits means something on its own node only.
#[inline(always)]
fn on_the_wire(identity: u32) -> Result<u32, DropReason> {
    match identity {
        identity::HOST => Ok(identity::REMOTE_NODE),
        0 => Err(DropReason::InvalidIdentity),
        other if other > VNI_MAX => Err(DropReason::InvalidIdentity),
        other => Ok(other),
    }
}

/// A hash of the flow that a packet belongs to; all fragments of a datagram have the same.
///
/// Computed here and not taken from the kernel, so that a packet has the same bytes wherever it is encapsulated.
#[inline(always)]
pub fn flow_of(packet: &impl Packet, header: &Header) -> u32 {
    let ports = match header.protocol {
        _ if header.fragment != Fragment::None => 0,
        protocol::TCP | protocol::UDP => ip::ports(packet, header)
            .map_or(0, |(source, destination)| u32::from(source) << 16 | u32::from(destination)),
        other => u32::from(other),
    };
    let [a, b, c, d] = header.src;
    let [e, f, g, h] = header.dst;
    // Addresses of neighbours differ in their last word: each goes in at another place.
    let mut hash = ports.wrapping_mul(FACTOR);
    for word in [a ^ b ^ c, d.wrapping_add(e), f ^ g, h] {
        hash = (hash ^ word).wrapping_mul(FACTOR);
        hash ^= hash >> 15;
    }
    hash
}

/// Odd, with bits all over: 2^32 divided by the golden ratio.
const FACTOR: u32 = 0x9e37_79b1;
