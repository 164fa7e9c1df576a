//! Why a node has no device that leads to others: what was looked for, what comes nearest to it, and the way out. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_core::config::Config;
use kinesin_netlink::Link;

use super::{is_ours, matches_pattern};

/// How many devices are named.
const NAMED: usize = 5;

/// The words for `status`; `internal_ips` are the node's addresses in Kubernetes, as far as they are known.
pub(super) fn reason(config: &Config, internal_ips: &[IpAddr], links: &[Link], addresses: &[(u32, IpNet)]) -> String {
    let could_be: Vec<&Link> = links.iter().filter(|link| !link.loopback && !is_ours(&link.name)).collect();
    let has_node_address = |link: &Link| {
        addresses.iter().any(|(index, address)| *index == link.index && internal_ips.contains(&address.addr()))
    };
    let is_named = |link: &Link| config.devices.iter().any(|pattern| matches_pattern(pattern, &link.name));
    let near: Vec<String> = could_be
        .iter()
        .filter(|link| is_named(link) || (config.devices.is_empty() && has_node_address(link)))
        .map(|link| {
            let state = match link.master_index {
                _ if !link.up => "is down; set it up".to_owned(),
                Some(master) => {
                    let name = links.iter().find(|found| found.index == master).map_or("another", |found| &found.name);
                    format!("belongs to {name:?}; name that in the key devices")
                }
                None => "is up".to_owned(),
            };
            format!("{:?} {state}", link.name)
        })
        .collect();
    let list = |texts: &[String], separator: &str| texts.join(separator);
    let looked_for = if config.devices.is_empty() {
        let ips: Vec<String> = internal_ips.iter().map(ToString::to_string).collect();
        let address =
            if ips.is_empty() { String::new() } else { format!("the node's address {} or ", list(&ips, " or ")) };
        format!("no device that is up has {address}a default route")
    } else {
        format!("no device that is up is one of the key devices ({})", list(&config.devices, " "))
    };
    if !near.is_empty() {
        return format!("{looked_for}: {}", list(&near, ", "));
    }
    let there: Vec<String> = could_be.iter().take(NAMED).map(|link| format!("{:?}", link.name)).collect();
    let there =
        if there.is_empty() { "there is none at all".to_owned() } else { format!("there is {}", there.join(", ")) };
    let remedy =
        if config.devices.is_empty() { "set one up, or name it in the key devices" } else { "correct the key devices" };
    format!("{looked_for}; {there}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::{config, link};

    fn told(devices: &str, internal: &str, links: &[Link]) -> String {
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let addresses = [(2, net("192.168.10.100/24")), (3, net("172.16.0.1/24"))];
        let internal: Vec<IpAddr> = internal.parse().into_iter().collect();
        reason(&config(&[("devices", devices)]), &internal, links, &addresses)
    }

    #[test]
    fn what_was_looked_for_is_named_with_what_comes_nearest_and_the_way_out() {
        let down = |index, name| Link { up: false, ..link(index, name) };
        let enslaved = Link { master_index: Some(4), ..link(2, "eth0") };
        let usual = [link(1, "lo"), down(2, "eth0"), link(3, "eth1"), link(6, "cilium_host")];
        let address = "no device that is up has the node's address 192.168.10.100 or a default route";
        for (devices, internal, links, expected) in [
            ("", "192.168.10.100", &usual[..], format!("{address}: \"eth0\" is down; set it up")),
            (
                "",
                "192.168.10.100",
                &[enslaved, link(4, "br0")],
                format!("{address}: \"eth0\" belongs to \"br0\"; name that in the key devices"),
            ),
            (
                "",
                "192.168.10.7",
                &usual,
                "no device that is up has the node's address 192.168.10.7 or a default route; there is \"eth0\", \"eth1\": \
                 set one up, or name it in the key devices"
                    .to_owned(),
            ),
            (
                "",
                "",
                &usual[..1],
                "no device that is up has a default route; there is none at all: set one up, or name it in the key devices"
                    .to_owned(),
            ),
            (
                "eth0 ens+",
                "192.168.10.100",
                &usual,
                "no device that is up is one of the key devices (eth0 ens+): \"eth0\" is down; set it up".to_owned(),
            ),
            (
                "ens+",
                "192.168.10.100",
                &usual,
                "no device that is up is one of the key devices (ens+); there is \"eth0\", \"eth1\": correct the key devices"
                    .to_owned(),
            ),
        ] {
            assert_eq!(told(devices, internal, links), expected);
        }
    }
}
