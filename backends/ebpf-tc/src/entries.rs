//! The content of the tables as it should be.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_abi::{
    Address, DeviceValue, EndpointKey, EndpointValue, FAMILY_V4, FAMILY_V6, IpcacheKey, IpcacheValue, carrier,
    endpoint_flag, ipcache_flag,
};
use kinesin_core::{
    chassis::{EndpointSpec, NodeSpec},
    routing::Path,
    values::{Carrier, Identity, Mac},
};

use crate::prefixes::Content;

/// Bits of a prefix key before the address: its family.
const FAMILY_BITS: u32 = 32;

/// An address as the tables have it.
pub(crate) fn address(ip: IpAddr) -> (Address, u8) {
    let word = |bytes: [u8; 4]| u32::from_ne_bytes(bytes);
    match ip {
        IpAddr::V4(ip) => ([word(ip.octets()), 0, 0, 0], FAMILY_V4),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ip.octets();
            ([word([a, b, c, d]), word([e, f, g, h]), word([i, j, k, l]), word([m, n, o, p])], FAMILY_V6)
        }
    }
}

/// An address out of the tables; nothing when the family is unknown.
pub(crate) fn ip(address: &Address, family: u8) -> Option<IpAddr> {
    match family {
        FAMILY_V4 => Some(IpAddr::from(address[0].to_ne_bytes())),
        FAMILY_V6 => {
            let mut octets = [0; 16];
            for (chunk, word) in octets.chunks_exact_mut(4).zip(address) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            Some(IpAddr::from(octets))
        }
        _ => None,
    }
}

/// The key of an address in the endpoint table.
pub(crate) fn endpoint_key(ip: IpAddr) -> EndpointKey {
    let (addr, family) = address(ip);
    EndpointKey { addr, family, pad: [0; 3] }
}

/// The first twelve bytes of an Ethernet header.
pub(crate) fn ethernet(destination: Mac, source: Mac) -> [u32; 3] {
    let [a, b, c, d, e, f] = destination.0;
    let [g, h, i, j, k, l] = source.0;
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l])]
}

/// Destination and source out of the first twelve bytes of an Ethernet header.
pub(crate) fn macs(eth: [u32; 3]) -> (Mac, Mac) {
    let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (eth[0].to_ne_bytes(), eth[1].to_ne_bytes(), eth[2].to_ne_bytes());
    (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l]))
}

fn flags(endpoint: &EndpointSpec) -> u16 {
    endpoint_flag::READY | if endpoint.health { endpoint_flag::HEALTH } else { 0 }
}

/// What the programs on an endpoint's device know of it.
pub(crate) fn device(endpoint: &EndpointSpec) -> DeviceValue {
    let mut value = DeviceValue {
        identity: endpoint.identity.0,
        id: endpoint.id.0,
        flags: flags(endpoint),
        eth: ethernet(endpoint.mac, endpoint.host_mac),
        netns_cookie: endpoint.netns_cookie,
        ..DeviceValue::default()
    };
    for ip in &endpoint.addresses {
        match address(*ip) {
            (addr, FAMILY_V4) => value.addr4 = addr[0],
            (addr, _) => value.addr6 = addr,
        }
    }
    value
}

/// The entries of an endpoint's addresses.
pub(crate) fn endpoint(endpoint: &EndpointSpec) -> impl Iterator<Item = (EndpointKey, EndpointValue)> {
    let value = EndpointValue {
        ifindex: endpoint.ifindex,
        id: endpoint.id.0,
        flags: flags(endpoint),
        identity: endpoint.identity.0,
        eth: ethernet(endpoint.mac, endpoint.host_mac),
        netns_cookie: endpoint.netns_cookie,
        ..EndpointValue::default()
    };
    endpoint.addresses.iter().map(move |ip| (endpoint_key(*ip), value))
}

/// The entries of the node's own addresses.
///
/// `links` are the addresses of its devices with their prefixes: what is sent to the broadcast address of one reaches the
/// node's sockets too, its tunnel's among them. They stand here, marked, and not among the prefixes, because a packet in
/// from the network with such a source is refused by this table.
pub(crate) fn host(node: &NodeSpec, links: &[IpNet]) -> BTreeMap<EndpointKey, EndpointValue> {
    let value = EndpointValue { flags: endpoint_flag::HOST, identity: Identity::HOST.0, ..EndpointValue::default() };
    let group = EndpointValue { flags: endpoint_flag::HOST | endpoint_flag::BROADCAST, ..value };
    let has_broadcast = |net: &&IpNet| net.addr().is_ipv4() && net.prefix_len() < 31 && !net.addr().is_loopback();
    let groups = links.iter().filter(has_broadcast).flat_map(|net| [net.network(), net.broadcast()]);
    let own = node.addresses.iter().chain(&node.router).map(|ip| (endpoint_key(*ip), value));
    // Later ones win: an address of the node's is that in the first place.
    groups.map(|ip| (endpoint_key(ip), group)).chain(own).collect()
}

/// The whole endpoint table.
pub(crate) fn endpoints<'a>(
    node: &NodeSpec,
    links: &[IpNet],
    all: impl Iterator<Item = &'a EndpointSpec>,
) -> BTreeMap<EndpointKey, EndpointValue> {
    // An address that is the node's own stays the node's own, whatever an endpoint says.
    let mut table: BTreeMap<_, _> = all.flat_map(endpoint).collect();
    table.extend(host(node, links));
    table
}

/// The whole prefix table.
pub(crate) fn prefixes(node: &NodeSpec, paths: &[Path]) -> Content {
    let mut table = BTreeMap::new();
    for cidr in &node.pod_cidrs {
        let value = IpcacheValue {
            identity: Identity::INIT.0,
            carrier: carrier::LOCAL,
            flags: ipcache_flag::LOCAL_CIDR,
            ..IpcacheValue::default()
        };
        table.insert(prefix_key(cidr), value);
    }
    for path in paths {
        let (addr, family) = address(path.node);
        let value = IpcacheValue {
            identity: Identity::INIT.0,
            node: addr,
            node_family: family,
            carrier: carrier_number(path.carrier),
            flags: if path.next_hop == Some(path.node) { 0 } else { ipcache_flag::ROUTED },
            mtu: mtu(path.mtu_bytes),
            ..IpcacheValue::default()
        };
        table.insert(prefix_key(&path.prefix), value);
    }
    for peer in &node.peer_addresses {
        let (addr, family) = address(*peer);
        let value = IpcacheValue {
            identity: Identity::REMOTE_NODE.0,
            node: addr,
            node_family: family,
            // Nodes are reached as the network is, in every mode.
            carrier: carrier::NATIVE,
            flags: ipcache_flag::NODE | ipcache_flag::ROUTED,
            mtu: mtu(node.narrow_peers.get(peer).copied()),
            ..IpcacheValue::default()
        };
        table.insert(prefix_key(&IpNet::from(*peer)), value);
    }
    table
}

/// An MTU as the tables have it; no packet is longer than they can say.
fn mtu(bytes: Option<u32>) -> u16 {
    bytes.map_or(0, |bytes| u16::try_from(bytes).unwrap_or(u16::MAX))
}

fn prefix_key(cidr: &IpNet) -> (u32, IpcacheKey) {
    let (addr, family) = address(cidr.trunc().addr());
    (FAMILY_BITS + u32::from(cidr.prefix_len()), IpcacheKey { family: [family, 0, 0, 0], addr })
}

pub(crate) fn carrier_number(carrier: Carrier) -> u8 {
    match carrier {
        Carrier::Native => carrier::NATIVE,
        Carrier::Vxlan => carrier::VXLAN,
        Carrier::Geneve => carrier::GENEVE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_tables() {
        for text in ["10.244.1.7", "fd00:10:244:1::7", "::1", "255.255.255.255"] {
            let expected: IpAddr = text.parse().expect("an address");
            let (addr, family) = address(expected);
            assert_eq!(ip(&addr, family), Some(expected));
        }
        assert_eq!(ip(&[0; 4], 0), None);
    }

    #[test]
    fn broadcast_addresses_are_marked_and_loopback_has_none() {
        let node = NodeSpec {
            name: "node".to_owned(),
            families: kinesin_core::values::Families::DUAL,
            addresses: vec![[192, 168, 10, 255].into()],
            peer_addresses: Vec::new(),
            narrow_peers: BTreeMap::new(),
            router: Vec::new(),
            pod_cidrs: Vec::new(),
            uplinks: Vec::new(),
            device_mtu_bytes: 1500,
            route_mtu_bytes: 1500,
            tunnel_ports: Vec::new(),
            underlay: Vec::new(),
            tunnels: Vec::new(),
        };
        let links = ["127.0.0.1/8", "192.168.10.1/24", "192.168.11.9/22", "10.0.0.1/31", "10.0.0.2/32", "fd00::1/64"];
        let table = host(&node, &links.map(|link| link.parse().expect("a network")));
        let found: BTreeMap<_, _> = table
            .iter()
            .map(|(key, value)| {
                let ip = ip(&key.addr, key.family).expect("an address").to_string();
                (ip, value.flags & endpoint_flag::BROADCAST != 0)
            })
            .collect();
        // The node has the first link's broadcast address, wherever from: then it is an address like any other.
        let expected =
            [("192.168.10.0", true), ("192.168.10.255", false), ("192.168.8.0", true), ("192.168.11.255", true)];
        assert_eq!(found, expected.map(|(ip, is_broadcast)| (ip.to_owned(), is_broadcast)).into());
    }

    #[test]
    fn ethernet_header_holds_both_addresses() {
        let (pod, host) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(macs(ethernet(pod, host)), (pod, host));
    }
}
