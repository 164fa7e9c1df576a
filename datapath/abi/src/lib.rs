//! Keys, values and records that the kernel programs and user space share.
//!
//! Everything here is laid out as C lays it out, has no implicit padding and a size that is checked at compile time:
//! the verifier accepts keys with uninitialised padding from a privileged loader, and look-ups then merely miss.
//! Addresses and ports are in network order, everything else in host order. [`LAYOUT`] is the version of all of it:
//! it is part of the path under which maps are pinned, and changes with any change here that an older or newer program
//! would misread.
//!
//! Many fields are reserved for stages that are not built yet (services, policy, encryption, the proxy); they are here
//! so that nothing has to move when those come. They are zero until then.
#![cfg_attr(not(feature = "user"), no_std)]

mod config;
mod event;
#[cfg(feature = "user")]
pub mod header;
mod mark;
mod reason;
mod record;
mod stage;
mod state;
mod table;
pub mod tunnel;
#[cfg(feature = "user")]
mod user;

pub use config::{Constants, ERRORS_PER_SECOND, MAX_TUNNEL_PORTS, STAND_IN, feature};
pub use event::{DropEvent, Observation};
pub use mark::Mark;
pub use reason::{Direction, DropReason, FIRST_DROP, FORWARDED, SIGNALLING, text_of};
pub use stage::{Continuation, Entry, STAGES, Stage};
pub use state::{PacketState, STATE_VERSION};
pub use table::{
    Address, Bucket, ConntrackKey, ConntrackValue, DeviceValue, EndpointKey, EndpointValue, FAMILY_V4, FAMILY_V6,
    IpcacheKey, IpcacheValue, Metric, PathMtuValue, PolicyKey, PolicyValue, carrier, endpoint_flag, identity,
    ipcache_flag, map, metric_index,
};
#[cfg(feature = "user")]
pub use user::read_record;

/// Version of the layout of every record in this crate.
pub const LAYOUT: u32 = 1;
