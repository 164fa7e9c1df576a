//! The CNI plugin: a thin client of the agent.
//!
//! A runtime starts the plugin once per command, with parameters in the environment and the network configuration on
//! stdin, and reads one JSON answer from stdout (CNI spec 1.1.0). The plugin makes the veth pair, lets the agent lease
//! addresses and attach the host end in one request, and sets up the pod's side; it keeps no state of its own.
//!
//! Modules in reading order:
//! [`versions`] which spec versions are spoken, [`request`] the environment, [`config`] stdin, [`names`] device names,
//! [`agent`] the requests to the agent, [`plan`] what the pod gets, [`pair`] and [`pod`] the kernel's side,
//! [`commands`] one file per command, [`result`] the answers' shapes, [`error`] the one table of error codes,
//! [`log`] and [`stdout`] the ways out.

pub mod agent;
pub mod commands;
pub mod config;
pub mod error;
pub mod log;
pub mod names;
pub mod pair;
pub mod plan;
pub mod pod;
pub mod request;
pub mod result;
mod run;
pub mod stdout;
pub mod versions;

pub use error::CniError;
pub use run::{Answer, run};
