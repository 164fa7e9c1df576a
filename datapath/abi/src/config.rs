//! Constants that are set when a program is loaded, so that the verifier removes what they rule out.

/// How many tunnel ports can be closed to pods.
pub const MAX_TUNNEL_PORTS: usize = 4;

/// ICMP errors per second and CPU that the pipeline answers with; as many may come at once after a quiet second.
pub const ERRORS_PER_SECOND: u64 = 100;

/// Bits of [`Constants::features`].
pub mod feature {
    /// Pods have IPv4 addresses.
    pub const IPV4: u32 = 1;
    /// Pods have IPv6 addresses.
    pub const IPV6: u32 = 2;
}

/// Bit of [`Constants::overlays`]: at Geneve's port a VXLAN device listens, since the kernel has no Geneve devices.
pub const STAND_IN: u32 = 1 << 31;

/// Every load-time constant by the name of its symbol in the object file.
///
/// Each is a symbol of its own, not a field of one struct: reading a struct from read-only data loads all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Constants {
    /// `KIN_FEATURES`: see [`feature`].
    pub features: u32,
    /// `KIN_SLOT_MASK`: bits of the stages whose slots are filled.
    pub slot_mask: u32,
    /// `KIN_UPLINK`: index of the device that leads to other nodes; 0 when there is none.
    pub uplink: u32,
    /// `KIN_MTU`: MTU of that device in bytes.
    pub mtu: u32,
    /// `KIN_ROUTER4`: router address; source of ICMP errors. Network order.
    pub router4: u32,
    /// `KIN_ROUTER6`: the same for IPv6.
    pub router6: [u32; 4],
    /// `KIN_TUNNEL_PORTS`: UDP ports closed to pods on nodes, network order; 0 is unused.
    pub tunnel_ports: [u16; MAX_TUNNEL_PORTS],
    /// `KIN_VXLAN_PORT`: UDP port of VXLAN, network order; 0 when the node has no such tunnel.
    pub vxlan_port: u16,
    /// `KIN_GENEVE_PORT`: the same for Geneve.
    pub geneve_port: u16,
    /// `KIN_VXLAN_DEVICE`: index of the kernel's device that packets of VXLAN go through; 0 where programs put the tunnel
    /// on and take it off themselves.
    pub vxlan_device: u32,
    /// `KIN_GENEVE_DEVICE`: the same for Geneve.
    pub geneve_device: u32,
    /// `KIN_OVERLAYS`: tunnels whose kernel's device is there, used or idle: a bit for each, 1 shifted by its number in
    /// `carrier`; and [`STAND_IN`].
    pub overlays: u32,
    /// `KIN_UNDERLAY4`: the node's address to other nodes, which tunnels end at. Network order; 0 when it has none.
    pub underlay4: u32,
    /// `KIN_UNDERLAY6`: the same for IPv6.
    pub underlay6: [u32; 4],
    /// `KIN_HOST_DEVICE`: index of `cilium_host`, by which the node's stack gets what came out of a tunnel.
    pub host_device: u32,
    /// `KIN_HOST_ETH`: the Ethernet header's first twelve bytes towards it.
    pub host_eth: [u32; 3],
}
