//! Events for user space.

use crate::record::record;

/// Where the pipeline saw a packet.
pub type Observation = crate::Entry;

record! {
    /// A dropped packet.
    DropEvent, "kinesin_drop_event", size 96 {
        /// Nanoseconds on the monotonic clock.
        time: u64,
        /// Kind of the record: 1, as the reference numbers drops (3.3).
        kind: u8,
        /// See [`DropReason`](crate::DropReason).
        reason: u8,
        /// See [`Entry`](crate::Entry).
        observation: u8,
        /// IPv4 or IPv6; 0 where the packet was neither.
        family: u8,
        /// Device that the packet was on.
        ifindex: u32,
        /// Endpoint on that device; 0 is none.
        endpoint: u16,
        /// IP protocol number.
        protocol: u8,
        /// Connection state; reserved.
        ct_state: u8,
        /// Bytes of the packet, link header included.
        length: u32,
        /// Security identity of the source.
        source_identity: u32,
        /// Security identity of the destination; 0 when unknown.
        destination_identity: u32,
        /// Rule that decided; reserved.
        rule_cookie: u32,
        /// Source port, network order.
        sport_be: u16,
        /// Destination port, network order.
        dport_be: u16,
        /// Source address.
        saddr: [u32; 4],
        /// Destination address.
        daddr: [u32; 4],
        /// Original destination before service translation; reserved.
        original_daddr: [u32; 4],
        /// Original destination port, network order; reserved.
        original_dport_be: u16,
        /// Zero.
        pad: u16,
        /// Zero.
        pad2: u32,
    }
}
