//! Load-time constants of a node, as the object file names them.

use kinesin_abi::{Constants, MAX_TUNNEL_PORTS, feature};
use kinesin_core::{chassis::NodeSpec, values::Family};

use crate::entries;

/// The constants for a node whose first uplink has this index and MTU in bytes.
pub(crate) fn of_node(node: &NodeSpec, uplink: u32, mtu: u32, slot_mask: u32) -> Constants {
    let mut constants = Constants { slot_mask, uplink, mtu, ..Constants::default() };
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
    constants
}

/// Symbol and bytes of each constant.
pub(crate) fn symbols(constants: &Constants) -> Vec<(&'static str, Vec<u8>)> {
    let word = |value: u32| value.to_ne_bytes().to_vec();
    vec![
        ("KIN_FEATURES", word(constants.features)),
        ("KIN_SLOT_MASK", word(constants.slot_mask)),
        ("KIN_UPLINK", word(constants.uplink)),
        ("KIN_MTU", word(constants.mtu)),
        ("KIN_ROUTER4", word(constants.router4)),
        ("KIN_ROUTER6", constants.router6.iter().flat_map(|part| part.to_ne_bytes()).collect()),
        ("KIN_TUNNEL_PORTS", constants.tunnel_ports.iter().flat_map(|port| port.to_ne_bytes()).collect()),
    ]
}
