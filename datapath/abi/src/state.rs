//! What is known about a packet on its way: the record that crosses slots.
//!
//! It lies in the per-CPU array `KIN_STATE` at index 0 while a slot program runs. A slot may change the packet; the
//! continuation parses it again, so addresses, ports and offsets need no update. It may change the verdict's fields,
//! identities, mark, rule cookie, connection state and reason, which are kept.

use crate::{
    address::Words,
    record::{numbers, record},
};

record! {
    /// A flow's addresses and ports.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct Tuple [40] {
        /// Source address, network order; IPv4 in word 0.
        pub source: Words,
        /// Destination address, network order; IPv4 in word 0.
        pub destination: Words,
        /// Source port, ICMP identifier of a request, or 0.
        pub source_port_be: u16,
        /// Destination port, ICMP identifier of an answer, or 0.
        pub destination_port_be: u16,
        /// IP protocol; for IPv6 the one after the extension headers.
        pub protocol: u8,
        /// `FAMILY_V4` or `FAMILY_V6`.
        pub family: u8,
        /// Direction and kind, where the tuple is a connection's key. Reserved for connections.
        pub flags: u8,
        /// Zero.
        pub pad: u8,
    }
}

record! {
    /// What crosses slots. Its version is `STATE_VERSION`.
    pub struct PacketState [144] {
        /// `STATE_VERSION` of the chassis that wrote it; a slot program of another version must drop.
        pub version: u16,
        /// `ENTRY_*`: where the packet entered the pipeline.
        pub entry: u8,
        /// `STAGE_*`: the slot that runs.
        pub stage: u8,
        /// `STATE_*` bits.
        pub flags: u32,
        /// Bytes from the packet's start to the IP header: 14, or 0 on devices without link header.
        pub l3_offset: u16,
        /// Bytes from the packet's start to the transport header.
        pub l4_offset: u16,
        /// Length by the IP header in bytes, link header not counted.
        pub l3_length: u32,
        /// The packet's tuple.
        pub tuple: Tuple,
        /// `VERDICT_*`: what the route stage decided.
        pub verdict: u8,
        /// `CARRIER_*`, for `VERDICT_CARRY`.
        pub carrier: u8,
        /// `CONNTRACK_*` state.
        pub conntrack_state: u8,
        /// Why, for `VERDICT_DROP` and `CONTINUE_DROP`.
        pub reason: u8,
        /// Target device: host end of the endpoint, or uplink.
        pub ifindex: u32,
        /// MTU of the way out in bytes; 0 when not to be checked.
        pub mtu_bytes: u32,
        /// Mark for `VERDICT_TO_STACK`.
        pub mark: u32,
        /// Source's identity.
        pub source_identity: u32,
        /// Target's identity.
        pub target_identity: u32,
        /// Source's endpoint number; 0 when it is none of ours.
        pub source_endpoint: u16,
        /// Target's endpoint number; 0 when it is none of ours.
        pub target_endpoint: u16,
        /// Rule that decided. Reserved for policy.
        pub rule_cookie: u32,
        /// MAC of the target.
        pub target_mac: u64,
        /// MAC from which the target gets the packet.
        pub source_mac: u64,
        /// Node behind which the target is, for `VERDICT_CARRY`.
        pub node: Words,
        /// Family of `node`.
        pub node_family: u8,
        /// Zero.
        pub pad: u8,
        /// Port of the proxy, for `VERDICT_PROXY`.
        pub proxy_port_be: u16,
        /// Reverse NAT entry. Reserved for services.
        pub reverse_nat_be: u16,
        /// Cluster; 0 for our own.
        pub cluster_id: u16,
        /// Backend chosen. Reserved for services.
        pub backend: u32,
        /// For slot programs that want to leave each other a note; zero at the entry.
        pub scratch: [u32; 3],
    }
}

numbers! {
    /// Version of [`PacketState`].
    pub const STATE_VERSION: u16 = 1;

    /// The packet is a fragment.
    pub const STATE_FRAGMENT: u32 = 1 << 0;
    /// The packet is a fragment other than the first, and so has no ports.
    pub const STATE_LATER_FRAGMENT: u32 = 1 << 1;
    /// IPv4's "don't fragment".
    pub const STATE_DONT_FRAGMENT: u32 = 1 << 2;
    /// The packet itself is an ICMP error.
    pub const STATE_ICMP_ERROR: u32 = 1 << 3;
    /// Sent to a link-layer broadcast or multicast address.
    pub const STATE_LINK_BROADCAST: u32 = 1 << 4;

    /// Not decided yet.
    pub const VERDICT_NONE: u8 = 0;
    /// To an endpoint of this node.
    pub const VERDICT_DELIVER: u8 = 1;
    /// To another node by a carrier.
    pub const VERDICT_CARRY: u8 = 2;
    /// To the host's stack, with a mark.
    pub const VERDICT_TO_STACK: u8 = 3;
    /// To a proxy port. Reserved for L7.
    pub const VERDICT_PROXY: u8 = 4;
    /// Back out of the device it came from, as an answer.
    pub const VERDICT_ANSWER: u8 = 5;
    /// Nowhere.
    pub const VERDICT_DROP: u8 = 6;
    /// None of our business: on as if we were not there.
    pub const VERDICT_PASS: u8 = 7;
}
