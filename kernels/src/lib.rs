#![doc = include_str!("../README.md")]

pub mod args;
mod error;
pub mod guest;
mod labs;
mod machine;
mod message;

mod findings;
mod page;
mod tunnels;

pub mod run;
pub mod trial;

pub use error::KernelsError;
