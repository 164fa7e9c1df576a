//! What this node is, as the kernel tells it: devices that lead to other nodes, and its own addresses.

mod no_uplink;

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::config::Config;
use kinesin_netlink::{Link, Mirror, MirrorSpec, NetlinkError, Route, TABLE_MAIN};

use crate::health;

/// Devices and addresses of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NodeLinks {
    /// Devices that carry traffic to other nodes, the preferred one first.
    pub(crate) uplinks: Vec<Link>,
    /// Addresses that pods may reach, link-local ones left out.
    pub(crate) addresses: Vec<IpAddr>,
    /// Networks of those addresses.
    pub(crate) networks: Vec<IpNet>,
    /// Why there is no uplink, if there is none, and the way out.
    pub(crate) no_uplink: Option<String>,
}

/// The node's devices now; `internal_ips` are its addresses in Kubernetes, as far as they are known. What the kernel has is
/// known from one call to the next (`followed`) and asked for only where it changed: most routes lead to other nodes' pods.
pub(crate) async fn links(
    followed: &mut Option<Mirror>,
    config: &Config,
    internal_ips: &[IpAddr],
) -> Result<NodeLinks, NetlinkError> {
    let mirror = match followed {
        Some(mirror) => mirror,
        None => followed.insert(Mirror::new(MirrorSpec { keep: is_default, ..MirrorSpec::default() })?),
    };
    mirror.look().await?;
    let mut routes: Vec<&Route> = mirror.routes().iter().collect();
    // As the kernel lists them: the preferred one of a family first.
    routes.sort_by_key(|route| (route.dst.addr().is_ipv6(), route.metric));
    Ok(fold_links(config, internal_ips, mirror.links(), mirror.addresses(), &routes))
}

fn is_default(route: &Route) -> bool {
    route.dst.prefix_len() == 0 && route.table == TABLE_MAIN
}

fn fold_links(
    config: &Config,
    internal_ips: &[IpAddr],
    links: &[Link],
    addresses: &[(u32, IpNet)],
    routes: &[&Route],
) -> NodeLinks {
    let candidates: BTreeMap<u32, &Link> = links
        .iter()
        .filter(|link| link.up && !link.loopback && !is_ours(&link.name) && link.master_index.is_none())
        .map(|link| (link.index, link))
        .collect();
    let own: Vec<(u32, IpNet)> = addresses
        .iter()
        .filter(|(index, address)| {
            let of_node = links.iter().any(|link| link.index == *index && !link.loopback && !is_ours(&link.name));
            of_node && !is_link_local(address.addr())
        })
        .copied()
        .collect();

    let mut uplinks: Vec<&Link> = Vec::new();
    let mut add = |index: u32| {
        if let Some(link) = candidates.get(&index)
            && !uplinks.iter().any(|found| found.index == index)
        {
            uplinks.push(link);
        }
    };
    if config.devices.is_empty() || config.force_device_detection {
        // The device with the node's own address comes first: peers are reached by theirs.
        for (index, _) in own.iter().filter(|(_, address)| internal_ips.contains(&address.addr())) {
            add(*index);
        }
        for route in routes.iter().filter(|route| is_default(route)) {
            add(route.dev);
        }
    }
    for pattern in &config.devices {
        for link in candidates.values().filter(|link| matches_pattern(pattern, &link.name)) {
            add(link.index);
        }
    }
    NodeLinks {
        no_uplink: uplinks.is_empty().then(|| no_uplink::reason(config, internal_ips, links, addresses)),
        uplinks: uplinks.into_iter().cloned().collect(),
        addresses: own.iter().map(|(_, address)| address.addr()).collect(),
        networks: own.iter().map(|(_, address)| address.trunc()).collect(),
    }
}

/// Devices of the pod network are no uplinks, and their addresses are not the node's.
fn is_ours(name: &str) -> bool {
    is_pod_device(name) || name.starts_with("cilium_")
}

/// Whether a device has the name of a pod's host end, or is the health endpoint's. LXC's bridge is called `lxcbr0`.
pub(crate) fn is_pod_device(name: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_host_end = |rest: &str| rest.len() == 12 && rest.bytes().all(is_digit);
    name == health::DEVICE || name.strip_prefix("lxc").is_some_and(is_host_end)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        // fe80::/10 (RFC 4291 section 2.5.6).
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// `eth0` or `eth+`.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use kinesin_core::config::Sources;
    use kinesin_netlink::LinkKind;

    use super::*;

    pub(super) fn config(flags: &[(&str, &str)]) -> Config {
        let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::load(&Sources { flags, ..Sources::default() }).expect("valid")
    }

    pub(crate) fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            up: true,
            loopback: name == "lo",
            noarp: false,
            ethernet: true,
            kind: LinkKind::Physical,
            peer_index: None,
            master_index: None,
        }
    }

    fn found(flags: &[(&str, &str)], internal: &str) -> (Vec<String>, Vec<String>) {
        let links: Vec<_> = [(1, "lo"), (2, "eth0"), (3, "eth1"), (4, "cilium_host"), (5, "lxc_health")]
            .map(|(i, n)| link(i, n))
            .into();
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let addresses = [
            (1, net("127.0.0.1/8")),
            (2, net("10.0.2.15/24")),
            (3, net("192.168.10.100/24")),
            (3, net("fe80::1/64")),
            (4, net("10.244.0.7/32")),
        ];
        let routes = [&Route::new(net("0.0.0.0/0"), 2, 3)];
        let internal: Vec<_> = internal.parse().into_iter().collect();
        let found = fold_links(&config(flags), &internal, &links, &addresses, &routes);
        let names = found.uplinks.iter().map(|link| link.name.clone()).collect();
        (names, found.addresses.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_nodes_address_makes_the_first_uplink() {
        let (uplinks, addresses) = found(&[], "192.168.10.100");
        assert_eq!(uplinks, ["eth1", "eth0"]);
        assert_eq!(addresses, ["10.0.2.15", "192.168.10.100"]);
        assert_eq!(found(&[], "").0, ["eth0"]);
    }

    #[test]
    fn named_devices_replace_what_is_detected() {
        assert_eq!(found(&[("devices", "eth1")], "10.0.2.15").0, ["eth1"]);
        assert_eq!(found(&[("devices", "eth+")], "10.0.2.15").0, ["eth0", "eth1"]);
        let both = [("devices", "eth1"), ("force-device-detection", "true")];
        assert_eq!(found(&both, "10.0.2.15").0, ["eth0", "eth1"]);
    }

    #[test]
    fn bridge_of_lxc_is_no_pods() {
        for name in ["lxc_health", "lxc6a98cfd6ff60"] {
            assert!(is_pod_device(name), "{name}");
        }
        for name in ["lxcbr0", "lxc", "lxc6A98CFD6FF60", "lxc6a98cfd6ff60a", "eth0"] {
            assert!(!is_pod_device(name), "{name}");
        }
    }
}
