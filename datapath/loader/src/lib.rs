//! Loads, pins, attaches and replaces BPF programs and reads their maps.
//!
//! aya is the only loader at run time; this crate adds what the datapath needs around it: a pin directory with a layout
//! version, generations of program arrays, links that survive the agent and are replaced in place, and tables that are
//! brought to a desired content. It knows no map and no program by name; the backends do.
//!
//! Reading order: [`pins`], [`object`], [`link`], [`table`], [`events`], [`lock`].

pub mod error;
pub mod events;
pub mod link;
pub mod lock;
pub mod object;
pub mod pins;
mod sys;
pub mod table;

pub use error::LoaderError;
pub use events::EventRing;
pub use link::{Attached, Attachment, Direction, TcMode};
pub use lock::OwnerLock;
pub use object::{LoadSpec, Loaded, SharedMap};
pub use pins::Pins;
pub use table::{PerCpuTable, PrefixTable, Table};
