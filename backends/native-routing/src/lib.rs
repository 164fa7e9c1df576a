#![doc = include_str!("../README.md")]

mod config;

mod neighbours;

mod backend;

pub use backend::NativeRouting;
pub use config::Config;

use kinesin_core::capability::Capability;

/// Registry name.
pub(crate) const NAME: &str = "native";

kinesin_core::inventory::submit! {
    kinesin_core::registry::RoutingBackend {
        name: NAME,
        summary: "the network itself: direct routes to other nodes, or the network's own",
        provides: &[Capability::IPV4, Capability::IPV6],
        requires: &[],
        overhead_bytes: 0,
        defaults: include_str!("../default.toml"),
        build: backend::build,
    }
}
