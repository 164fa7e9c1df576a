#![doc = include_str!("../README.md")]

mod config;

mod backend;

pub use backend::ClusterPool;
pub use config::Config;

use kinesin_core::capability::Capability;

/// Registry name.
pub(crate) const NAME: &str = "cluster_pool";

kinesin_core::inventory::submit! {
    kinesin_core::registry::IpamBackend {
        name: NAME,
        summary: "addresses from blocks that the operator cuts out of the cluster's pod CIDRs",
        provides: &[Capability::IPV4, Capability::IPV6, Capability::BLOCKS_GIVEN_POD_CIDRS],
        requires: &[],
        overhead_bytes: 0,
        defaults: include_str!("../default.toml"),
        build: backend::build,
    }
}
