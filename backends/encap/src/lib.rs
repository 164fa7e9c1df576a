#![doc = include_str!("../README.md")]

mod config;

mod way;

mod backend;

pub use backend::{Encap, Format, registration};
pub use config::{Config, Settings};
