#![doc = include_str!("../README.md")]

mod backend;

use kinesin_core::{capability::Capability, registry::IpamBackend};

/// Registry name.
const NAME: &str = "sticky";

kinesin_core::inventory::submit! {
    IpamBackend {
        name: NAME,
        summary: "the node's pod CIDRs; a Pod that comes back under its name gets its address back",
        provides: &[Capability::IPV4, Capability::IPV6],
        requires: &[],
        overhead_bytes: 0,
        defaults: "",
        build: backend::build,
    }
}
