//! The ipcache: which identity a prefix has, and which way leads to it. Longest prefix wins.

use core::net::IpAddr;

use crate::{
    address::{self, Words},
    record::{numbers, record},
};

record! {
    /// Key of the ipcache, an LPM trie.
    #[derive(Hash, PartialOrd, Ord)]
    pub struct IpcacheKey [24] {
        /// Bits that count: `IPCACHE_STATIC_BITS` plus the prefix's own length.
        pub prefix_length: u32,
        /// Cluster; 0 for our own.
        pub cluster_id: u16,
        /// Zero.
        pub pad: u8,
        /// `FAMILY_V4` or `FAMILY_V6`.
        pub family: u8,
        /// Network address, network order; IPv4 in word 0.
        pub address: Words,
    }
}

impl IpcacheKey {
    /// The key of a prefix of this cluster; bits of `network` beyond `length` must be zero.
    #[must_use]
    pub fn new(network: IpAddr, length: u8) -> Self {
        let (address, family) = address::words(network);
        Self { prefix_length: IPCACHE_STATIC_BITS + u32::from(length), cluster_id: 0, pad: 0, family, address }
    }

    /// The network address and prefix length.
    #[must_use]
    pub fn prefix(&self) -> Option<(IpAddr, u8)> {
        let length = u8::try_from(self.prefix_length.checked_sub(IPCACHE_STATIC_BITS)?).ok()?;
        Some((address::ip(self.address, self.family)?, length))
    }
}

record! {
    /// Value of the ipcache.
    pub struct IpcacheValue [36] {
        /// Security identity of the prefix's addresses.
        pub identity: u32,
        /// Address of the node behind which the prefix is; zero when there is none.
        pub node: Words,
        /// Family of `node`; 0 when there is none.
        pub node_family: u8,
        /// `CARRIER_*`.
        pub carrier: u8,
        /// Encryption key; 0 for none. Reserved for encryption.
        pub key: u8,
        /// `IPCACHE_*` bits.
        pub flags: u8,
        /// Device that leads to the node; 0 for `DatapathConfig::uplink_ifindex`.
        pub ifindex: u32,
        /// MTU of the way there in bytes; 0 for `DatapathConfig::route_mtu_bytes`.
        pub mtu_bytes: u32,
        /// Zero.
        pub reserved: u32,
    }
}

numbers! {
    /// Bits of the key before the address, all of which always count.
    pub const IPCACHE_STATIC_BITS: u32 = 32;
    /// The prefix is a node's own address.
    pub const IPCACHE_NODE: u8 = 1 << 0;
}
