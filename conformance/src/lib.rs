#![doc = include_str!("../README.md")]

pub mod outcome;

pub mod contract;

#[cfg(feature = "leaks")]
pub mod leaks;

#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod report;
#[cfg(feature = "cluster")]
pub mod target;

mod runner;

#[cfg(feature = "cluster")]
pub use cluster::hidden::{HIDDEN, hidden_main};
pub use runner::contracts;
