//! Keys, values and records that the kernel programs and user space share.
//!
//! Every record is `repr(C)`, has no implicit padding and a size that the compiler checks. Numbers are in the machine's
//! order unless a name ends in `_be` (network order, stored as read). The feature `user` adds `aya::Pod` and the C
//! header of slot programs; the kernel crate builds without it.
//!
//! What the maps hold, who writes it: [`layout`]. What crosses slots: [`state`] and [`stage`].

#![cfg_attr(not(feature = "user"), no_std)]
#![expect(unsafe_code, reason = "all-zero records, and aya::Pod, which records without padding uphold")]

mod record;

pub mod address;
pub mod carrier;
pub mod config;
pub mod conntrack;
pub mod endpoint;
pub mod event;
#[cfg(feature = "user")]
pub mod header;
pub mod identity;
pub mod ipcache;
pub mod layout;
pub mod mark;
pub mod metrics;
pub mod policy;
pub mod reason;
pub mod stage;
pub mod state;

pub use address::{FAMILY_DEVICE, FAMILY_V4, FAMILY_V6};
pub use config::DatapathConfig;
pub use endpoint::{EndpointKey, EndpointValue};
pub use event::Event;
pub use ipcache::{IpcacheKey, IpcacheValue};
pub use metrics::MetricsValue;
pub use reason::DropReason;
#[cfg(feature = "user")]
pub use record::{Field, Record};
pub use state::{PacketState, Tuple};
