#![doc = include_str!("../README.md")]
//!
//! Reading order: [`Spec`] (what is asked), `up` and `down`; `start` (how processes come to be in their namespaces),
//! `init` and `rootfs` (a node from inside), `network` (the underlay), `control` (the API server), `cluster` and
//! `manifests` (what runs in it), `check` and `probe` (whether pods reach each other).

mod cgroup;
mod check;
mod cluster;
mod control;
mod down;
mod enter;
mod error;
mod init;
mod kubeconfig;
mod kubelet;
mod lab;
mod layout;
mod lock;
mod logs;
mod manifests;
mod network;
mod node;
mod plan;
mod probe;
mod process;
mod progress;
mod rootfs;
mod spec;
mod start;
mod state;
mod up;

pub use check::{PodInfo, Probe, Protocol, Report};
pub use cluster::{NodeRow, apply, parse_manifest};
pub use error::LabError;
pub use lab::{Lab, Summary};
pub use layout::Layout;
pub use logs::Log;
pub use network::UPLINK;
pub use node::Node;
pub use process::Process;
pub use progress::{Progress, Silent};
pub use spec::{DEFAULT_BASE, DEFAULT_NAME, Families, PodRange, Spec};
pub use start::hidden_main;
