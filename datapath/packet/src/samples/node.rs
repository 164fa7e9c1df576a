//! The node on which the table's packets meet the pipeline: its tables' content.

use std::{net::IpAddr, vec::Vec};

use kinesin_abi::{
    Constants, DeviceValue, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, carrier, endpoint_flag, feature,
    identity, ipcache_flag,
};

use super::packets::{HOST_MAC, POD_MAC};
use crate::host::{HostTables, table_address};

/// Index of the device that packets come from: `lo`, the one device that every network namespace has.
pub const DEVICE: u32 = 1;
/// Index of the other pod's device; it need not exist, since a test run carries out no redirect.
pub const NEIGHBOUR: u32 = 2;
/// MTU of the way to other nodes.
pub const MTU: u32 = 1400;
/// MTU of the way to some of them.
pub const NARROW_MTU: u16 = 1360;
/// The other pod's MAC and its device's.
pub const NEIGHBOUR_ETH: [u8; 12] = [2, 0, 0, 0, 1, 11, 2, 0, 0, 0, 0, 11];

/// Towards the node's own stack.
pub const STACK_ETH: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1];

/// Identity of the pod on that device; wider than 16 bits, so that the mark shows both its parts.
pub const POD_IDENTITY: u32 = 0x01_2345;

fn words(text: &str) -> [u32; 4] {
    table_address(text.parse().unwrap()).0
}

fn eth(bytes: &[u8]) -> [u32; 3] {
    let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    [word(0), word(4), word(8)]
}

fn endpoint(text: &str, ifindex: u32, flags: u16, identity: u32, macs: &[u8]) -> (EndpointKey, EndpointValue) {
    let (addr, family) = table_address(text.parse().unwrap());
    let value = EndpointValue { ifindex, id: ifindex as u16, flags, identity, eth: eth(macs), ..Default::default() };
    (EndpointKey { addr, family, pad: [0; 3] }, value)
}

fn prefix(text: &str, node: &str, carrier: u8, flags: u16, identity: u32) -> ((u8, IpcacheKey), IpcacheValue) {
    let (address, length) = text.split_once('/').unwrap();
    let (addr, family) = table_address(address.parse().unwrap());
    let (node, node_family) = node.parse::<IpAddr>().map_or(([0; 4], 0), table_address);
    let value = IpcacheValue { identity, node, node_family, carrier, flags, ..Default::default() };
    ((length.parse().unwrap(), IpcacheKey { family: [family, 0, 0, 0], addr }), value)
}

/// The same by a narrower way.
fn narrow((key, value): ((u8, IpcacheKey), IpcacheValue)) -> ((u8, IpcacheKey), IpcacheValue) {
    (key, IpcacheValue { mtu: NARROW_MTU, ..value })
}

/// The same by a way that carries more than this node's uplink.
fn wide((key, value): ((u8, IpcacheKey), IpcacheValue)) -> ((u8, IpcacheKey), IpcacheValue) {
    (key, IpcacheValue { mtu: 9000, ..value })
}

/// The content of every table on a node without tunnels, nor peers that are reached by one.
#[must_use]
pub fn native_tables() -> HostTables {
    let mut tables = tables();
    let by_tunnel = [words("192.168.10.103"), words("fd00:192:168:10::103")];
    tables.ipcache.retain(|_, value| !by_tunnel.contains(&value.node));
    let without = Constants { vxlan_port: 0, geneve_port: 0, underlay4: 0, underlay6: [0; 4], ..tables.constants };
    tables.constants = without;
    tables
}

/// The content of every table, on a node with both tunnels over both families.
#[must_use]
pub fn tables() -> HostTables {
    let macs: Vec<u8> = POD_MAC.into_iter().chain(HOST_MAC).collect();
    let ready = endpoint_flag::READY;
    let host = endpoint_flag::READY | endpoint_flag::HOST;
    let peer = ipcache_flag::NODE | ipcache_flag::ROUTED;
    let mut tables = HostTables {
        constants: Constants {
            features: feature::IPV4 | feature::IPV6,
            slot_mask: 0,
            uplink: DEVICE,
            mtu: MTU,
            router4: words("10.244.1.1")[0],
            router6: words("fd00:10:244:1::1"),
            tunnel_ports: [8472_u16.to_be(), 6081_u16.to_be(), 0, 0],
            vxlan_port: 8472_u16.to_be(),
            geneve_port: 6081_u16.to_be(),
            vxlan_device: 0,
            geneve_device: 0,
            overlays: 0,
            underlay4: words("192.168.10.101")[0],
            underlay6: words("fd00:192:168:10::101"),
            host_device: DEVICE,
            host_eth: eth(&STACK_ETH),
        },
        ..HostTables::default()
    };
    let pod = DeviceValue {
        addr4: words("10.244.1.10")[0],
        addr6: words("fd00:10:244:1::a"),
        identity: POD_IDENTITY,
        id: 10,
        flags: ready,
        eth: eth(&macs),
        ..Default::default()
    };
    tables.devices.insert(DEVICE, pod);
    tables.endpoints.extend([
        endpoint("10.244.1.10", DEVICE, ready, POD_IDENTITY, &macs),
        endpoint("fd00:10:244:1::a", DEVICE, ready, POD_IDENTITY, &macs),
        endpoint("10.244.1.11", NEIGHBOUR, ready, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("fd00:10:244:1::b", NEIGHBOUR, ready, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("10.244.1.12", 3, 0, identity::INIT, &NEIGHBOUR_ETH),
        endpoint("10.244.1.1", 0, host, identity::HOST, &[0; 12]),
        endpoint("fd00:10:244:1::1", 0, host, identity::HOST, &[0; 12]),
        endpoint("192.168.10.101", 0, host, identity::HOST, &[0; 12]),
        endpoint("fd00:192:168:10::101", 0, host, identity::HOST, &[0; 12]),
    ]);
    tables.ipcache.extend([
        prefix("10.244.1.0/24", "", carrier::LOCAL, ipcache_flag::LOCAL_CIDR, identity::INIT),
        prefix("fd00:10:244:1::/64", "", carrier::LOCAL, ipcache_flag::LOCAL_CIDR, identity::INIT),
        prefix("10.244.2.0/24", "192.168.10.102", carrier::NATIVE, 0, identity::INIT),
        prefix("fd00:10:244:2::/64", "fd00:192:168:10::102", carrier::NATIVE, 0, identity::INIT),
        prefix("10.244.3.0/24", "192.168.10.103", carrier::VXLAN, 0, identity::INIT),
        prefix("fd00:10:244:3::/64", "192.168.10.103", carrier::VXLAN, 0, identity::INIT),
        prefix("10.244.5.0/24", "192.168.10.103", carrier::GENEVE, 0, identity::INIT),
        prefix("fd00:10:244:5::/64", "192.168.10.103", carrier::GENEVE, 0, identity::INIT),
        prefix("10.244.6.0/24", "fd00:192:168:10::103", carrier::VXLAN, 0, identity::INIT),
        prefix("fd00:10:244:6::/64", "fd00:192:168:10::103", carrier::GENEVE, ipcache_flag::ROUTED, identity::INIT),
        prefix("10.244.9.0/24", "192.168.10.103", 9, 0, identity::INIT),
        prefix("10.244.4.0/24", "192.168.20.104", carrier::NATIVE, ipcache_flag::ROUTED, identity::INIT),
        narrow(prefix("10.244.7.0/24", "192.168.10.103", carrier::VXLAN, 0, identity::INIT)),
        narrow(prefix("fd00:10:244:7::/64", "fd00:192:168:10::103", carrier::GENEVE, 0, identity::INIT)),
        narrow(prefix("10.244.8.0/24", "192.168.10.102", carrier::NATIVE, 0, identity::INIT)),
        narrow(prefix("fd00:10:244:8::/64", "fd00:192:168:10::102", carrier::NATIVE, 0, identity::INIT)),
        wide(prefix("10.244.10.0/24", "192.168.10.103", carrier::VXLAN, 0, identity::INIT)),
        prefix("192.168.10.102/32", "192.168.10.102", carrier::NATIVE, peer, identity::REMOTE_NODE),
        prefix("fd00:192:168:10::102/128", "fd00:192:168:10::102", carrier::NATIVE, peer, identity::REMOTE_NODE),
        prefix("192.168.10.103/32", "192.168.10.103", carrier::NATIVE, peer, identity::REMOTE_NODE),
        prefix("fd00:192:168:10::103/128", "fd00:192:168:10::103", carrier::NATIVE, peer, identity::REMOTE_NODE),
    ]);
    tables
}
