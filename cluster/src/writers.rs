//! Writers: what an agent says about its node and its endpoints.

mod endpoints;
mod node;
mod node_ipam;

use std::net::IpAddr;

pub use endpoints::{EndpointPublication, EndpointPublisher, publish_endpoints};
pub use node::{NodePublication, publish_node};
pub use node_ipam::{NodeIpamChange, update_node_ipam};

/// The first address of each family.
fn of_families(addresses: &[IpAddr]) -> (Option<String>, Option<String>) {
    let first = |wanted: fn(&IpAddr) -> bool| addresses.iter().find(|ip| wanted(ip)).map(ToString::to_string);
    (first(IpAddr::is_ipv4), first(IpAddr::is_ipv6))
}
