#![doc = include_str!("../README.md")]

mod config;

mod backend;

pub use backend::MultiPool;
pub use config::{Config, Settings};

use kinesin_core::capability::Capability;

/// Registry name.
pub(crate) const NAME: &str = "multi_pool";

kinesin_core::inventory::submit! {
    kinesin_core::registry::IpamBackend {
        name: NAME,
        summary: "addresses from pools that pods choose, by blocks that follow the demand",
        provides: &[Capability::IPV4, Capability::IPV6, Capability::NAMED_POOLS, Capability::BLOCKS_GIVEN_POOLS],
        requires: &[],
        overhead_bytes: 0,
        defaults: include_str!("../default.toml"),
        build: backend::build,
    }
}
