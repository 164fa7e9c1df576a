//! Records of the ring buffer: drops now; traces and policy verdicts have their kinds and fields already.

use crate::{
    record::{numbers, record},
    state::Tuple,
};

record! {
    /// One event, with the packet's beginning.
    pub struct Event [192] {
        /// `EVENT_*`.
        pub kind: u8,
        /// Reason of a drop.
        pub reason: u8,
        /// `ENTRY_*`: the point of observation.
        pub observation: u8,
        /// `DIRECTION_*`, seen from the endpoint.
        pub direction: u8,
        /// Source's endpoint number; 0 when it is none of ours.
        pub source_endpoint: u16,
        /// Target's endpoint number; 0 when it is none of ours.
        pub target_endpoint: u16,
        /// Nanoseconds of the monotonic clock.
        pub time_ns: u64,
        /// Flow hash.
        pub hash: u32,
        /// The packet's length in bytes with link header.
        pub length: u32,
        /// Bytes of `capture` that are filled.
        pub captured: u16,
        /// `EVENT_VERSION`.
        pub version: u16,
        /// Device on which the packet was seen.
        pub ifindex: u32,
        /// Source's identity.
        pub source_identity: u32,
        /// Target's identity.
        pub target_identity: u32,
        /// Rule that decided. Reserved for policy.
        pub rule_cookie: u32,
        /// `CONNTRACK_*` state.
        pub conntrack_state: u8,
        /// `EVENT_*` bits.
        pub flags: u8,
        /// Extended error, a signed byte; 0 for none.
        pub extended_error: u8,
        /// Zero.
        pub pad: u8,
        /// The flow before any translation.
        pub original: Tuple,
        /// The packet's beginning, link header first.
        pub capture: [u32; 26],
    }
}

numbers! {
    /// Version of [`Event`].
    pub const EVENT_VERSION: u16 = 1;
    /// Bytes of a packet that an event can hold.
    pub const EVENT_CAPTURE_BYTES: u32 = 104;
    /// A packet was dropped.
    pub const EVENT_DROP: u8 = 1;
    /// A packet passed a point of observation. Reserved.
    pub const EVENT_TRACE: u8 = 4;
    /// Policy decided about a packet. Reserved.
    pub const EVENT_POLICY_VERDICT: u8 = 5;
    /// The sender got an ICMP error.
    pub const EVENT_ANSWERED: u8 = 1 << 0;
    /// An ICMP error was owed, but too many had been sent.
    pub const EVENT_RATE_LIMITED: u8 = 1 << 1;
}
