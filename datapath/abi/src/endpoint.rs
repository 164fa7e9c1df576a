//! The endpoint table: which addresses live on this node, and on which device.

use core::net::IpAddr;

use crate::{
    address::{self, FAMILY_DEVICE, Words},
    record::{numbers, record},
};

record! {
    /// Key of the endpoint table: an address, or a device ([`EndpointKey::device`]).
    #[derive(Hash, PartialOrd, Ord)]
    pub struct EndpointKey [20] {
        /// Address, network order; IPv4 in word 0. A device's index in word 0 for `FAMILY_DEVICE`.
        pub address: Words,
        /// `FAMILY_V4`, `FAMILY_V6` or `FAMILY_DEVICE`.
        pub family: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
}

impl EndpointKey {
    /// The key of an address.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let (address, family) = address::words(address);
        Self { address, family, pad: [0; 3] }
    }

    /// The key under which an endpoint is also found by its host end's index.
    ///
    /// Every pod endpoint has this entry beside those of its addresses; the neighbour answers need the device's MAC
    /// when a pod asks from its link-local address, which no other entry knows.
    #[must_use]
    pub const fn device(ifindex: u32) -> Self {
        Self { address: [ifindex, 0, 0, 0], family: FAMILY_DEVICE, pad: [0; 3] }
    }

    /// The address, or nothing for a device's entry.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        address::ip(self.address, self.family)
    }
}

record! {
    /// Value of the endpoint table.
    pub struct EndpointValue [64] {
        /// Host end's index; for the node's own addresses that of the device that has it.
        pub ifindex: u32,
        /// `ENDPOINT_*` bits.
        pub flags: u32,
        /// Number on this node; 0 for the node's own addresses.
        pub id: u16,
        /// Zero.
        pub pad: u16,
        /// Security identity.
        pub identity: u32,
        /// MAC in the pod, as [`crate::address::mac`] stores it.
        pub mac: u64,
        /// MAC of the host end: what the pod believes its router to have.
        pub node_mac: u64,
        /// Cookie of the pod's network namespace; 0 when unknown.
        pub netns_cookie: u64,
        /// Generation of the policy that is installed for it. Reserved for policy.
        pub policy_generation: u32,
        /// MTU of the pod's device in bytes; 0 when not to be checked.
        pub mtu_bytes: u32,
        /// Zero.
        pub reserved: [u32; 4],
    }
}

numbers! {
    /// The endpoint's datapath is complete: packets may reach and leave it. Written last.
    pub const ENDPOINT_READY: u32 = 1 << 0;
    /// An address of the node itself: packets go to the stack.
    pub const ENDPOINT_HOST: u32 = 1 << 1;
    /// The node's health endpoint.
    pub const ENDPOINT_HEALTH: u32 = 1 << 2;
}
