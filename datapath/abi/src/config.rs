//! The constants of a loaded pipeline: written before load, frozen, and used by the verifier to prune.

use crate::{
    address::Words,
    record::{numbers, record},
};

record! {
    /// Load-time constants; the global `KIN_CONFIG`.
    pub struct DatapathConfig [160] {
        /// `LAYOUT_VERSION` of whoever loads.
        pub layout: u32,
        /// `CONFIG_*` bits.
        pub flags: u32,
        /// Bit n: the slot of stage n holds a program.
        pub slot_mask: u32,
        /// Index of `cilium_host`.
        pub host_ifindex: u32,
        /// Index of `cilium_net`.
        pub net_ifindex: u32,
        /// Device to other nodes where an ipcache entry names none.
        pub uplink_ifindex: u32,
        /// MAC of `cilium_host`.
        pub host_mac: u64,
        /// Cookie of the node's own network namespace.
        pub netns_cookie: u64,
        /// Router address, IPv6; zero for none.
        pub router_v6: Words,
        /// Router address, IPv4, network order; zero for none.
        pub router_v4: u32,
        /// Identity of sources outside the cluster, IPv4.
        pub world_v4_identity: u32,
        /// Identity of sources outside the cluster, IPv6.
        pub world_v6_identity: u32,
        /// MTU of the way to other nodes in bytes; 0 when not to be checked.
        pub route_mtu_bytes: u32,
        /// MTU of pod devices in bytes; 0 when not to be checked.
        pub device_mtu_bytes: u32,
        /// UDP ports of every carrier, closed to pods; 0 fills the rest.
        pub tunnel_ports_be: [u16; 4],
        /// ICMP errors that one CPU sends per second; 0 for none at all.
        pub icmp_rate_per_second: u32,
        /// ICMP errors that one CPU sends at once.
        pub icmp_burst: u32,
        /// Zero.
        pub pad: u32,
        /// Zero.
        pub reserved: [u32; 16],
    }
}

numbers! {
    /// Pods use IPv4.
    pub const CONFIG_IPV4: u32 = 1 << 0;
    /// Pods use IPv6.
    pub const CONFIG_IPV6: u32 = 1 << 1;
    /// Drops are also reported to the ring buffer.
    pub const CONFIG_EVENTS: u32 = 1 << 2;
    /// Every final state is left in `KIN_STATE`, where a test reads it.
    pub const CONFIG_RECORD_STATE: u32 = 1 << 3;
}
