#![doc = include_str!("../README.md")]

mod config;
mod kernel;
mod modes;

mod constants;
mod entries;
mod host_device;
mod overlay_device;
mod prefixes;
mod tunnel_path;

mod attach;
mod datapath;
mod filters;
mod running;

mod backend;
mod error;
mod told;
mod trial;

pub use backend::EbpfChassis;
pub use config::{Config, EndpointAttach};
pub use trial::{Trial, Verified, trial};
pub use tunnel_path::TunnelPath;

/// The kernel programs, one object file; empty in a build without their toolchain.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kinesin-tc.o"));

kinesin_core::inventory::submit! {
    kinesin_core::registry::ChassisBackend {
        name: "ebpf",
        summary: "packet pipeline in eBPF at tc: direct delivery, no bridge, no netfilter",
        provides: kernel::PROVIDES,
        requires: kernel::REQUIRES,
        overhead_bytes: 0,
        defaults: include_str!("../default.toml"),
        build: backend::build,
    }
}
