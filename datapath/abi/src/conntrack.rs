//! Connections. Reserved: no program keeps them yet, but their place in events and states is fixed.

use crate::{
    record::{numbers, record},
    state::Tuple,
};

/// Key of the connection table: the tuple as the connection's first packet had it, direction in its flags.
pub type ConntrackKey = Tuple;

record! {
    /// Value of the connection table.
    pub struct ConntrackValue [64] {
        /// Packets, both directions.
        pub packets: u64,
        /// Bytes, both directions.
        pub bytes: u64,
        /// When the entry dies: seconds of the monotonic clock.
        pub expires_seconds: u32,
        /// Identity of the source.
        pub source_identity: u32,
        /// Backend chosen for a service; 0 for none.
        pub backend: u32,
        /// Rule that let it pass.
        pub rule_cookie: u32,
        /// Last packet from the initiator, seconds of the monotonic clock.
        pub last_sent_seconds: u32,
        /// Last packet to the initiator, seconds of the monotonic clock.
        pub last_received_seconds: u32,
        /// Reverse NAT entry that restores the service address; 0 for none.
        pub reverse_nat_be: u16,
        /// `CONNTRACK_*` bits.
        pub flags: u16,
        /// TCP flags seen from the initiator.
        pub sent_tcp_flags: u8,
        /// TCP flags seen towards the initiator.
        pub received_tcp_flags: u8,
        /// Zero.
        pub pad: u16,
        /// Zero.
        pub reserved: [u32; 4],
    }
}

numbers! {
    /// Not looked up.
    pub const CONNTRACK_UNKNOWN: u8 = 0;
    /// First packet of a connection.
    pub const CONNTRACK_NEW: u8 = 1;
    /// Same direction as the first packet.
    pub const CONNTRACK_ESTABLISHED: u8 = 2;
    /// Against the first packet's direction.
    pub const CONNTRACK_REPLY: u8 = 3;
    /// ICMP error about a known connection.
    pub const CONNTRACK_RELATED: u8 = 4;
    /// FIN or RST seen towards the initiator.
    pub const CONNTRACK_RECEIVED_CLOSING: u16 = 1 << 0;
    /// FIN or RST seen from the initiator.
    pub const CONNTRACK_SENT_CLOSING: u16 = 1 << 1;
    /// A packet other than SYN was seen.
    pub const CONNTRACK_SEEN_NON_SYN: u16 = 1 << 2;
    /// Came in by NodePort.
    pub const CONNTRACK_NODE_PORT: u16 = 1 << 3;
    /// Goes through the proxy.
    pub const CONNTRACK_PROXY: u16 = 1 << 4;
    /// Direct server return: answers carry the service address.
    pub const CONNTRACK_DSR: u16 = 1 << 5;
    /// The pod reached itself through a service.
    pub const CONNTRACK_LOOPBACK: u16 = 1 << 6;
}
