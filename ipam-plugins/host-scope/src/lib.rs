#![doc = include_str!("../README.md")]

mod config;

mod backend;

pub use backend::HostScope;
pub use config::Config;

use kinesin_core::capability::Capability;

/// Registry name.
pub(crate) const NAME: &str = "host_scope";

kinesin_core::inventory::submit! {
    kinesin_core::registry::IpamBackend {
        name: NAME,
        summary: "addresses from the node's pod CIDRs in Kubernetes",
        provides: &[Capability::IPV4, Capability::IPV6, Capability::BLOCKS_NODE_POD_CIDRS],
        requires: &[],
        overhead_bytes: 0,
        defaults: include_str!("../default.toml"),
        build: backend::build,
    }
}
