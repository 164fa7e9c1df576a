//! The fixed order of the packet pipeline.

/// Number of stages.
pub const STAGES: usize = 11;

/// A stage of the pipeline; built in, or filled by a slot program. The numbers never change.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Service address to backend.
    Lb = 0,
    /// May the endpoint send this?
    EgressPolicy = 1,
    /// Which way out.
    Route = 2,
    /// Encryption towards a peer.
    Encrypt = 3,
    /// Reverse NAT of what comes in.
    RevNat = 4,
    /// May the node receive this?
    HostFwIn = 5,
    /// May the endpoint receive this?
    IngressPolicy = 6,
    /// Hand over to a local proxy.
    Proxy = 7,
    /// Into the endpoint.
    Deliver = 8,
    /// May the node send this?
    HostFwOut = 9,
    /// The node's address for what leaves the cluster.
    Masquerade = 10,
}

impl Stage {
    /// Every stage in order.
    pub const ALL: [Self; STAGES] = [
        Self::Lb,
        Self::EgressPolicy,
        Self::Route,
        Self::Encrypt,
        Self::RevNat,
        Self::HostFwIn,
        Self::IngressPolicy,
        Self::Proxy,
        Self::Deliver,
        Self::HostFwOut,
        Self::Masquerade,
    ];

    /// The stage with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        if (number as usize) < STAGES { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The stage's bit in the slot mask.
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// The stage's name in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lb => "lb",
            Self::EgressPolicy => "egress_policy",
            Self::Route => "route",
            Self::Encrypt => "encrypt",
            Self::RevNat => "rev_nat",
            Self::HostFwIn => "host_fw_in",
            Self::IngressPolicy => "ingress_policy",
            Self::Proxy => "proxy",
            Self::Deliver => "deliver",
            Self::HostFwOut => "host_fw_out",
            Self::Masquerade => "masquerade",
        }
    }
}

/// What a slot program tail-calls when it is done.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Continuation {
    /// Go on with the stage after the slot's.
    Next = 0,
    /// Deliver to the device in `PacketState::ifindex`, skipping the stages in between.
    Deliver = 1,
    /// Drop for the reason in `PacketState::reason`.
    Drop = 2,
}

/// Where a packet met the pipeline.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// Out of a pod: tc ingress of its host end.
    FromContainer = 0,
    /// Into a pod through the host's stack: tc egress of its host end.
    ToContainer = 1,
    /// In from the network: tc ingress of an uplink.
    FromNetdev = 2,
    /// From the node's own stack to pods: tc egress of `cilium_host`.
    FromHost = 3,
    /// Out of a tunnel: what `FromNetdev` has taken out of its encapsulation.
    FromOverlay = 4,
}

impl Entry {
    /// The entry with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::FromContainer),
            1 => Some(Self::ToContainer),
            2 => Some(Self::FromNetdev),
            3 => Some(Self::FromHost),
            4 => Some(Self::FromOverlay),
            _ => None,
        }
    }
}
