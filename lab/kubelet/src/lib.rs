#![doc = include_str!("../README.md")]

mod backoff;
mod cni;
mod config;
mod container;
mod error;
mod events;
mod expand;
mod files;
mod images;
mod kubelet;
mod launch;
mod logs;
mod node;
mod probes;
mod record;
mod remote;
mod sandbox;
mod server;
mod status;
mod sys;
mod volumes;
mod worker;
mod workload;

pub use config::Config;
pub use error::KubeletError;
pub use kubelet::run;
pub use launch::launch_main;
pub use workload::workload_main;
