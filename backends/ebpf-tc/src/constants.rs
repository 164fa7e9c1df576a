//! Load-time constants of a node, as the object file names them.

use std::collections::BTreeMap;

use kinesin_abi::{Constants, MAX_TUNNEL_PORTS, STAND_IN, feature};
use kinesin_core::{
    chassis::NodeSpec,
    values::{Carrier, Family, Mac},
};
use kinesin_netlink::Link;

use crate::{entries, overlay_device::TunnelDevice};

/// The constants for a node with these devices: `cilium_host`, the first uplink's index and MTU in bytes, and by carrier
/// the kernel's tunnel devices.
pub(crate) fn of_node(
    node: &NodeSpec,
    host: &Link,
    (uplink, mtu): (u32, u32),
    overlays: &BTreeMap<Carrier, TunnelDevice>,
    slot_mask: u32,
) -> Constants {
    let mut constants = Constants { slot_mask, uplink, mtu, ..Constants::default() };
    constants.host_device = host.index;
    constants.host_eth = entries::ethernet(Mac(host.mac), Mac(host.mac));
    if node.families.v4 {
        constants.features |= feature::IPV4;
    }
    if node.families.v6 {
        constants.features |= feature::IPV6;
    }
    // From the back, so that the first address of a family, which is the one in use, is the one that stays.
    for router in node.router.iter().rev() {
        let (addr, _) = entries::address(*router);
        match Family::of(router) {
            Family::V4 => constants.router4 = addr[0],
            Family::V6 => constants.router6 = addr,
        }
    }
    for (slot, port) in constants.tunnel_ports.iter_mut().zip(node.tunnel_ports.iter().take(MAX_TUNNEL_PORTS)) {
        *slot = port.to_be();
    }
    tunnels(node, &mut constants);
    for (carrier, device) in overlays {
        constants.overlays |= match device {
            TunnelDevice::Used(_) | TunnelDevice::Idle => 1 << entries::carrier_number(*carrier),
            TunnelDevice::StandIn => STAND_IN,
        };
        match (carrier, device) {
            (Carrier::Vxlan, TunnelDevice::Used(index)) => constants.vxlan_device = *index,
            (Carrier::Geneve, TunnelDevice::Used(index)) => constants.geneve_device = *index,
            _ => {}
        }
    }
    constants
}

/// A node without tunnels keeps the zeros, and with them the programs that the verifier has cut down to the rest.
fn tunnels(node: &NodeSpec, constants: &mut Constants) {
    for tunnel in &node.tunnels {
        match tunnel.carrier {
            Carrier::Vxlan => constants.vxlan_port = tunnel.port.to_be(),
            Carrier::Geneve => constants.geneve_port = tunnel.port.to_be(),
            Carrier::Native => {}
        }
    }
    if constants.vxlan_port == 0 && constants.geneve_port == 0 {
        return;
    }
    // The first of a family, as for the router.
    for own in node.underlay.iter().rev() {
        let (addr, _) = entries::address(*own);
        match Family::of(own) {
            Family::V4 => constants.underlay4 = addr[0],
            Family::V6 => constants.underlay6 = addr,
        }
    }
}

/// Symbol and bytes of each constant.
pub(crate) fn symbols(constants: &Constants) -> Vec<(&'static str, Vec<u8>)> {
    let word = |value: u32| value.to_ne_bytes().to_vec();
    let half = |value: u16| value.to_ne_bytes().to_vec();
    let words = |values: &[u32]| values.iter().flat_map(|part| part.to_ne_bytes()).collect();
    vec![
        ("KIN_FEATURES", word(constants.features)),
        ("KIN_SLOT_MASK", word(constants.slot_mask)),
        ("KIN_UPLINK", word(constants.uplink)),
        ("KIN_MTU", word(constants.mtu)),
        ("KIN_ROUTER4", word(constants.router4)),
        ("KIN_ROUTER6", words(&constants.router6)),
        ("KIN_TUNNEL_PORTS", constants.tunnel_ports.iter().flat_map(|port| port.to_ne_bytes()).collect()),
        ("KIN_VXLAN_PORT", half(constants.vxlan_port)),
        ("KIN_GENEVE_PORT", half(constants.geneve_port)),
        ("KIN_VXLAN_DEVICE", word(constants.vxlan_device)),
        ("KIN_GENEVE_DEVICE", word(constants.geneve_device)),
        ("KIN_OVERLAYS", word(constants.overlays)),
        ("KIN_UNDERLAY4", word(constants.underlay4)),
        ("KIN_UNDERLAY6", words(&constants.underlay6)),
        ("KIN_HOST_DEVICE", word(constants.host_device)),
        ("KIN_HOST_ETH", words(&constants.host_eth)),
    ]
}
