//! Policy verdicts. Reserved: no program reads them yet, but their place in events and states is fixed.

use crate::record::{numbers, record};

record! {
    /// Key of the policy table, an LPM trie: protocol and port may be wild, from the right.
    pub struct PolicyKey [16] {
        /// Bits that count: `POLICY_STATIC_BITS` (anything), plus 8 (protocol), plus up to 16 (port).
        pub prefix_length: u32,
        /// Endpoint number of the policy's subject.
        pub endpoint: u32,
        /// Peer's identity; 0 for any.
        pub identity: u32,
        /// `DIRECTION_INGRESS` or `DIRECTION_EGRESS`, seen from the endpoint.
        pub direction: u8,
        /// IP protocol.
        pub protocol: u8,
        /// Destination port, or ICMP type.
        pub destination_port_be: u16,
    }
}

record! {
    /// Value of the policy table.
    pub struct PolicyValue [16] {
        /// `POLICY_*` bits.
        pub flags: u8,
        /// Authentication that the peer must have passed; 0 for none.
        pub auth: u8,
        /// Port of the proxy; 0 for none.
        pub proxy_port_be: u16,
        /// Greater wins among entries that match.
        pub precedence: u32,
        /// Number of the rule that made the entry, for `explain` and events.
        pub rule_cookie: u32,
        /// Zero.
        pub reserved: u32,
    }
}

numbers! {
    /// Bits of the key before the protocol: endpoint, identity and direction.
    pub const POLICY_STATIC_BITS: u32 = 72;
    /// The entry denies.
    pub const POLICY_DENY: u8 = 1 << 0;
    /// The entry would deny, but is only reported.
    pub const POLICY_AUDIT: u8 = 1 << 1;
}
