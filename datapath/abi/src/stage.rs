//! Entry points, stages, slots and continuations of the pipeline.
//!
//! Stages run in the order of their numbers. A stage is built in, or its slot holds a program. A tail call never
//! returns, so a slot program ends by tail-calling one of the continuations with the same context; when that call fails
//! (an empty array), the program must return `TC_ACT_SHOT`.
//!
//! | entry point | stages |
//! |---|---|
//! | `from_container` | lb, egress_policy, route, encrypt (to another node), ingress_policy and proxy (to an endpoint here), deliver |
//! | `from_netdev` | lb, route, rev_nat, host_fw_in (to the host), ingress_policy and proxy (to an endpoint here), deliver |
//! | `from_host` | lb, route, deliver |
//! | `to_container` | ingress_policy, proxy, deliver |

use crate::record::numbers;

numbers! {
    /// Service address to backend.
    pub const STAGE_LB: u8 = 0;
    /// What the source endpoint may send.
    pub const STAGE_EGRESS_POLICY: u8 = 1;
    /// Where to. Built in: endpoint table, then ipcache.
    pub const STAGE_ROUTE: u8 = 2;
    /// Encryption towards another node.
    pub const STAGE_ENCRYPT: u8 = 3;
    /// Back from NAT.
    pub const STAGE_REV_NAT: u8 = 4;
    /// What may reach the host.
    pub const STAGE_HOST_FW_IN: u8 = 5;
    /// What the target endpoint may receive.
    pub const STAGE_INGRESS_POLICY: u8 = 6;
    /// To the proxy.
    pub const STAGE_PROXY: u8 = 7;
    /// Leave. Built in: MTU, TTL, MACs, redirect.
    pub const STAGE_DELIVER: u8 = 8;
    /// What the host may send.
    pub const STAGE_HOST_FW_OUT: u8 = 9;
    /// Source address of what leaves the cluster.
    pub const STAGE_MASQUERADE: u8 = 10;
    /// Number of stages, and size of the slot array.
    pub const STAGES: u32 = 11;

    /// Go on with the stage after the slot's.
    pub const CONTINUE_NEXT: u32 = 0;
    /// Skip what is left and deliver as the state's verdict says.
    pub const CONTINUE_DELIVER: u32 = 1;
    /// Drop; the state's `reason` says why.
    pub const CONTINUE_DROP: u32 = 2;
    /// Number of continuations, and size of their array.
    pub const CONTINUATIONS: u32 = 3;

    /// tc ingress of an endpoint's host end.
    pub const ENTRY_FROM_CONTAINER: u8 = 0;
    /// tc egress of an endpoint's host end.
    pub const ENTRY_TO_CONTAINER: u8 = 1;
    /// tc ingress of an uplink.
    pub const ENTRY_FROM_NETDEV: u8 = 2;
    /// tc egress of `cilium_host`.
    pub const ENTRY_FROM_HOST: u8 = 3;
}

/// Names of the stages, by number.
pub const STAGE_NAMES: [&str; STAGES as usize] = [
    "lb",
    "egress_policy",
    "route",
    "encrypt",
    "rev_nat",
    "host_fw_in",
    "ingress_policy",
    "proxy",
    "deliver",
    "host_fw_out",
    "masquerade",
];
