//! Names and sizes of maps and programs, and the version under which they are pinned.
//!
//! | map | kind | key | value | written by |
//! |---|---|---|---|---|
//! | `KIN_ENDPOINTS` | hash | `EndpointKey` | `EndpointValue` | agent: one entry per pod address, one per pod device (`EndpointKey::device`), one per address of the node (`ENDPOINT_HOST \| ENDPOINT_READY`) |
//! | `KIN_IPCACHE` | LPM trie | `IpcacheKey` | `IpcacheValue` | agent: other nodes' pod CIDRs, node addresses, and this node's pod CIDRs with `CARRIER_LOCAL` (an address there without endpoint is answered "unreachable"; without that entry it goes to the stack) |
//! | `KIN_METRICS` | per-CPU array | `metrics::index` | `MetricsValue` | programs |
//! | `KIN_EVENTS` | ring buffer | | `Event` | programs |
//! | `KIN_STATE` | per-CPU array, one entry | 0 | `PacketState` | programs and slot programs |
//! | `KIN_RATELIMIT` | per-CPU array, one entry | 0 | `Bucket` | programs |
//! | `KIN_SLOTS` | program array | `STAGE_*` | program | loader, per generation |
//! | `KIN_CONT` | program array | `CONTINUE_*` | program | loader, per generation |
//!
//! The first six are pinned for the layout's life; the program arrays belong to a generation of the pipeline.

use crate::record::{numbers, record};

/// Version of every record and name here; pins lie under `kinesin/v<LAYOUT_VERSION>/`.
pub const LAYOUT_VERSION: u32 = 1;

/// The endpoint table.
pub const MAP_ENDPOINTS: &str = "KIN_ENDPOINTS";
/// The ipcache.
pub const MAP_IPCACHE: &str = "KIN_IPCACHE";
/// The packet counters.
pub const MAP_METRICS: &str = "KIN_METRICS";
/// The event ring.
pub const MAP_EVENTS: &str = "KIN_EVENTS";
/// The record that crosses slots.
pub const MAP_STATE: &str = "KIN_STATE";
/// The token bucket of ICMP errors.
pub const MAP_RATELIMIT: &str = "KIN_RATELIMIT";
/// The slot array.
pub const MAP_SLOTS: &str = "KIN_SLOTS";
/// The continuation array.
pub const MAP_CONT: &str = "KIN_CONT";
/// Maps that outlive a generation.
pub const STATE_MAPS: [&str; 6] = [MAP_ENDPOINTS, MAP_IPCACHE, MAP_METRICS, MAP_EVENTS, MAP_STATE, MAP_RATELIMIT];
/// Maps that belong to one generation.
pub const GENERATION_MAPS: [&str; 2] = [MAP_SLOTS, MAP_CONT];
/// The global of load-time constants, a `DatapathConfig`.
pub const GLOBAL_CONFIG: &str = "KIN_CONFIG";

/// tc ingress of an endpoint's host end.
pub const PROGRAM_FROM_CONTAINER: &str = "from_container";
/// tc egress of an endpoint's host end.
pub const PROGRAM_TO_CONTAINER: &str = "to_container";
/// tc ingress of an uplink.
pub const PROGRAM_FROM_NETDEV: &str = "from_netdev";
/// tc egress of `cilium_host`.
pub const PROGRAM_FROM_HOST: &str = "from_host";
/// Continuations, by their number in `KIN_CONT`.
pub const PROGRAM_CONTINUATIONS: [&str; 3] = ["cont_next", "cont_deliver", "cont_drop"];

record! {
    /// A token bucket.
    pub struct Bucket [16] {
        /// When tokens were last added: nanoseconds of the monotonic clock.
        pub filled_ns: u64,
        /// Tokens left.
        pub tokens: u32,
        /// Zero.
        pub pad: u32,
    }
}

numbers! {
    /// Entries of `KIN_ENDPOINTS`.
    pub const ENDPOINTS_ENTRIES: u32 = 65536;
    /// Entries of `KIN_IPCACHE`.
    pub const IPCACHE_ENTRIES: u32 = 512_000;
    /// Bytes of `KIN_EVENTS`.
    pub const EVENTS_BYTES: u32 = 1 << 20;
}
