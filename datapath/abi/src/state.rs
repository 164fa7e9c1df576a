//! What crosses from the pipeline to a slot program and back.

use crate::record::record;

/// Version of [`PacketState`]; a slot program refuses another.
pub const STATE_VERSION: u16 = 1;

record! {
    /// The pipeline's knowledge of a packet while a slot program has it. One per CPU: a packet never changes CPU between
    /// tail calls.
    PacketState, "kinesin_packet_state", size 112 {
        /// [`STATE_VERSION`].
        version: u16,
        /// [`Entry`](crate::Entry) as a number.
        entry: u8,
        /// The slot's [`Stage`](crate::Stage) as a number.
        stage: u8,
        /// Bytes of the link header: 14, or 0 on devices without one.
        link_header: u8,
        /// IPv4 or IPv6.
        family: u8,
        /// IP protocol number of the transport header.
        protocol: u8,
        /// For `Drop`: number of the reason; 0 counts as "dropped by a slot program".
        reason: u8,
        /// Offset of the transport header in bytes.
        l4_offset: u16,
        /// Source port, network order; 0 where there is none.
        sport_be: u16,
        /// Destination port, network order; 0 where there is none.
        dport_be: u16,
        /// Endpoint that the packet comes from; 0 is none.
        source_endpoint: u16,
        /// Source address.
        saddr: [u32; 4],
        /// Destination address.
        daddr: [u32; 4],
        /// Security identity of the source.
        source_identity: u32,
        /// Security identity of the destination; 0 before it is known.
        destination_identity: u32,
        /// For `Deliver`: index of the device to deliver to.
        ifindex: u32,
        /// Rule that decided last; reserved.
        rule_cookie: u32,
        /// Underlay address of the peer; reserved.
        peer: [u32; 4],
        /// Carrier to the peer; reserved.
        carrier: u8,
        /// Connection state; reserved.
        ct_state: u8,
        /// Proxy port, network order; reserved.
        proxy_port_be: u16,
        /// Reverse NAT number, network order; reserved.
        rev_nat_be: u16,
        /// Zero.
        pad: u16,
        /// Backend that was chosen; reserved.
        backend: u32,
        /// Free for slot programs.
        scratch: [u32; 5],
    }
}
