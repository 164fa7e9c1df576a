//! Maps: their names and sizes, keys and values.

use crate::record::record;

/// An address as four words in network order; IPv4 stands in the first, and the others are zero.
pub type Address = [u32; 4];

/// Value of every `family` field for IPv4.
pub const FAMILY_V4: u8 = 1;
/// Value of every `family` field for IPv6.
pub const FAMILY_V6: u8 = 2;

/// Names and sizes of the maps. Map names in the kernel have at most 15 characters (`BPF_OBJ_NAME_LEN`).
pub mod map {
    /// Hash: device index of a host end to [`DeviceValue`](super::DeviceValue).
    pub const DEVICES: &str = "KIN_DEVICES";
    /// Hash: address to [`EndpointValue`](super::EndpointValue).
    pub const ENDPOINTS: &str = "KIN_ENDPOINTS";
    /// Longest-prefix match: prefix to [`IpcacheValue`](super::IpcacheValue).
    pub const IPCACHE: &str = "KIN_IPCACHE";
    /// Hash: underlay address of a node to [`PathMtuValue`](super::PathMtuValue).
    pub const PATH_MTU: &str = "KIN_PATH_MTU";
    /// Per-CPU array: [`metric_index`](super::metric_index) to [`Metric`](super::Metric).
    pub const METRICS: &str = "KIN_METRICS";
    /// Ring buffer of [`DropEvent`](crate::DropEvent).
    pub const EVENTS: &str = "KIN_EVENTS";
    /// Per-CPU array with one [`PacketState`](crate::PacketState).
    pub const STATE: &str = "KIN_STATE";
    /// Per-CPU array with one [`Bucket`](super::Bucket) for ICMP errors.
    pub const BUCKET: &str = "KIN_BUCKET";
    /// Program array, indexed by stage: programs that fill slots. One per generation.
    pub const SLOTS: &str = "KIN_SLOTS";
    /// Program array, indexed by continuation. Each slot program has one of its own by this name, which the chassis fills.
    pub const CONT: &str = "KIN_CONT";

    /// Entries of [`DEVICES`]: one per endpoint; endpoint numbers have 16 bits.
    pub const DEVICES_SIZE: usize = 65_536;
    /// Entries of [`ENDPOINTS`]: two families per endpoint and the node's own addresses.
    pub const ENDPOINTS_SIZE: usize = 131_072;
    /// Entries of [`IPCACHE`], as in the reference (7.1).
    pub const IPCACHE_SIZE: usize = 512_000;
    /// Entries of [`PATH_MTU`]: one per node that a narrow way leads to.
    pub const PATH_MTU_SIZE: usize = 16_384;
    /// Entries of [`METRICS`]: 256 reasons in two directions.
    pub const METRICS_SIZE: usize = 512;
    /// Bytes of [`EVENTS`]; a power of two and a multiple of the page size.
    pub const EVENTS_SIZE: usize = 1 << 20;
}

/// Security identities with a fixed meaning (reference, section 4).
pub mod identity {
    /// The node itself.
    pub const HOST: u32 = 1;
    /// Everything outside the cluster.
    pub const WORLD: u32 = 2;
    /// The health endpoints.
    pub const HEALTH: u32 = 4;
    /// An endpoint whose identity is not known yet.
    pub const INIT: u32 = 5;
    /// Any other node of the cluster.
    pub const REMOTE_NODE: u32 = 6;
}

/// Numbers of the carriers in [`IpcacheValue::carrier`].
pub mod carrier {
    /// On this node.
    pub const LOCAL: u8 = 0;
    /// The network itself.
    pub const NATIVE: u8 = 1;
    /// VXLAN (RFC 7348).
    pub const VXLAN: u8 = 2;
    /// Geneve (RFC 8926).
    pub const GENEVE: u8 = 3;

    /// Bytes that an IP packet grows by in a carrier over an underlay of `family`: IP, UDP and tunnel header, and an
    /// Ethernet header inside. None where nothing encapsulates.
    #[must_use]
    pub const fn overhead(carrier: u8, family: u8) -> u32 {
        match (carrier, family) {
            (VXLAN | GENEVE, super::FAMILY_V4) => 20 + 8 + 8 + 14,
            (VXLAN | GENEVE, _) => 40 + 8 + 8 + 14,
            _ => 0,
        }
    }
}

/// Bits of [`EndpointValue::flags`] and [`DeviceValue::flags`].
pub mod endpoint_flag {
    /// The address belongs to the node's own stack.
    pub const HOST: u16 = 1;
    /// Everything about the endpoint is in place; written last.
    pub const READY: u16 = 2;
    /// The node's health endpoint.
    pub const HEALTH: u16 = 4;
    /// The broadcast address of a link of the node: set with [`HOST`], since the node's sockets hear what is sent there.
    pub const BROADCAST: u16 = 8;
}

/// Bits of [`IpcacheValue::flags`].
pub mod ipcache_flag {
    /// The address is a node's: its tunnel ports are closed to pods.
    pub const NODE: u16 = 1;
    /// The prefix is a pod CIDR of this node.
    pub const LOCAL_CIDR: u16 = 2;
    /// The way there is looked up in the node's routing tables; without it `node` is a neighbour on the uplink.
    pub const ROUTED: u16 = 4;
}

record! {
    /// What `from_container` and `to_container` know of the device they run on.
    DeviceValue, "kinesin_device", size 56 {
        /// IPv6 address of the endpoint; zero when it has none.
        addr6: [u32; 4],
        /// IPv4 address of the endpoint; zero when it has none.
        addr4: u32,
        /// Security identity.
        identity: u32,
        /// Endpoint number.
        id: u16,
        /// See [`endpoint_flag`].
        flags: u16,
        /// The Ethernet header's first twelve bytes towards the pod: its MAC, then the host end's.
        eth: [u32; 3],
        /// Generation of the endpoint's policy; reserved.
        policy_generation: u32,
        /// Zero.
        pad: u32,
        /// Cookie of the pod's network namespace; 0 when unknown.
        netns_cookie: u64,
    }
}

record! {
    /// Key of the endpoint table.
    EndpointKey, "kinesin_endpoint_key", size 20 {
        /// The address.
        addr: [u32; 4],
        /// [`FAMILY_V4`] or [`FAMILY_V6`].
        family: u8,
        /// Zero.
        pad: [u8; 3],
    }
}

record! {
    /// Where an address of this node lives.
    EndpointValue, "kinesin_endpoint", size 40 {
        /// Index of the host end; 0 for the node's own addresses.
        ifindex: u32,
        /// Endpoint number; 0 for the node's own addresses.
        id: u16,
        /// See [`endpoint_flag`].
        flags: u16,
        /// Security identity.
        identity: u32,
        /// Generation of the endpoint's policy; reserved.
        policy_generation: u32,
        /// The Ethernet header's first twelve bytes towards the pod: its MAC, then the host end's.
        eth: [u32; 3],
        /// Index of the device underneath the host end; reserved.
        parent_ifindex: u32,
        /// Cookie of the pod's network namespace; 0 when unknown.
        netns_cookie: u64,
    }
}

record! {
    /// Key of the prefix table: the number of bits that count, then the data that they are counted in.
    IpcacheKey, "kinesin_ipcache_key", size 20 {
        /// [`FAMILY_V4`] or [`FAMILY_V6`], in network order, since prefixes count from the first byte on.
        family: [u8; 4],
        /// The address.
        addr: [u32; 4],
    }
}

record! {
    /// What is known of a prefix.
    IpcacheValue, "kinesin_ipcache", size 28 {
        /// Security identity of what lives there.
        identity: u32,
        /// Underlay address of its node, in the node's own family.
        node: [u32; 4],
        /// Family of `node`.
        node_family: u8,
        /// See [`carrier`].
        carrier: u8,
        /// See [`ipcache_flag`].
        flags: u16,
        /// Index of the encryption key; reserved.
        key: u8,
        /// Zero.
        pad: u8,
        /// MTU of the underlay on the way to `node` in bytes, a carrier's headers included; 0 where nothing less is known
        /// than the uplink's.
        mtu: u16,
    }
}

record! {
    /// What a router on the way to a node said of the underlay there. Keyed by [`EndpointKey`], like every single address.
    PathMtuValue, "kinesin_path_mtu", size 16 {
        /// When it said so, in nanoseconds on the boot clock (`CLOCK_BOOTTIME`).
        told: u64,
        /// MTU in bytes, a carrier's headers included.
        mtu: u32,
        /// Zero.
        pad: u32,
    }
}

record! {
    /// Key of an endpoint's policy; reserved.
    PolicyKey, "kinesin_policy_key", size 12 {
        /// Security identity of the other side; 0 is any.
        identity: u32,
        /// 0 ingress, 1 egress.
        direction: u8,
        /// IP protocol number; 0 is any.
        protocol: u8,
        /// Destination port, network order; 0 is any.
        port_be: u16,
        /// Endpoint number.
        endpoint: u16,
        /// Zero.
        pad: u16,
    }
}

record! {
    /// A policy verdict; reserved.
    PolicyValue, "kinesin_policy", size 12 {
        /// Names the rule in events and explanations.
        rule_cookie: u32,
        /// Proxy port, network order; 0 is none.
        proxy_port_be: u16,
        /// 1 denies.
        deny: u8,
        /// Required authentication; 0 is none.
        auth: u8,
        /// Higher wins.
        precedence: u8,
        /// Leading bits of the port that count.
        port_prefix: u8,
        /// Zero.
        pad: u16,
    }
}

record! {
    /// Key of the connection table; reserved.
    ConntrackKey, "kinesin_ct_key", size 40 {
        /// Source address.
        saddr: [u32; 4],
        /// Destination address.
        daddr: [u32; 4],
        /// Source port, network order.
        sport_be: u16,
        /// Destination port, network order.
        dport_be: u16,
        /// IP protocol number.
        protocol: u8,
        /// 0 out, 1 in, 2 related, 4 service.
        flags: u8,
        /// [`FAMILY_V4`] or [`FAMILY_V6`].
        family: u8,
        /// Zero.
        pad: u8,
    }
}

record! {
    /// A connection; reserved.
    ConntrackValue, "kinesin_ct", size 56 {
        /// Packets of both directions.
        packets: u64,
        /// Bytes of both directions.
        bytes: u64,
        /// Seconds on the boot clock after which it is stale.
        expires: u32,
        /// Closing, reply seen, DSR, NodePort, proxy, loopback.
        flags: u32,
        /// Backend chosen for a service connection.
        backend: u32,
        /// Security identity of the source.
        source_identity: u32,
        /// Reverse NAT number, network order; 0 is none.
        rev_nat_be: u16,
        /// TCP flags seen from the initiator.
        tx_flags: u8,
        /// TCP flags seen from the responder.
        rx_flags: u8,
        /// Rule that allowed the connection.
        rule_cookie: u32,
        /// Policy generation that allowed it.
        policy_generation: u32,
        /// Last report, seconds on the boot clock.
        last_report: u32,
        /// Zero.
        pad: [u32; 2],
    }
}

record! {
    /// Packets and bytes with one fate, per CPU.
    Metric, "kinesin_metric", size 16 {
        /// Packets.
        packets: u64,
        /// Bytes, link header included.
        bytes: u64,
    }
}

record! {
    /// Token bucket for ICMP errors, per CPU.
    Bucket, "kinesin_bucket", size 16 {
        /// Nanoseconds on the monotonic clock at the last refill.
        refilled: u64,
        /// Tokens left.
        tokens: u64,
    }
}

/// Index of a counter in the metrics map.
#[must_use]
pub const fn metric_index(reason: u8, direction: crate::Direction) -> u32 {
    // Lossless: a u8 and a one-bit direction.
    (direction as u32) << 8 | reason as u32
}
