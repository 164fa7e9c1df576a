//! What the pipeline looks up: maps in the kernel, ordered maps on the host.

use kinesin_abi::{DeviceValue, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue, MAX_TUNNEL_PORTS};

/// The tables and constants of the pipeline.
pub trait Tables {
    /// The endpoint on a device.
    fn device(&self, ifindex: u32) -> Option<&DeviceValue>;
    /// Where an address of this node lives.
    fn endpoint(&self, key: &EndpointKey) -> Option<&EndpointValue>;
    /// What is known of the longest prefix that holds an address.
    fn ipcache(&self, key: &IpcacheKey) -> Option<&IpcacheValue>;
    /// Takes a token for one ICMP error; without one the error is not sent.
    fn take_error_token(&self) -> bool;
    /// Notes what the underlay carries in bytes to the longest prefix that holds an address, and to the node that it is
    /// reached by: less than was known.
    fn learn(&self, prefix: &IpcacheKey, node: &EndpointKey, mtu_bytes: u16);

    /// See `Constants::features`.
    fn features(&self) -> u32;
    /// See `Constants::slot_mask`.
    fn slot_mask(&self) -> u32;
    /// See `Constants::mtu`.
    fn mtu(&self) -> u32;
    /// See `Constants::router4`.
    fn router4(&self) -> u32;
    /// See `Constants::router6`.
    fn router6(&self) -> [u32; 4];
    /// See `Constants::vxlan_device`.
    fn vxlan_device(&self) -> u32;
    /// See `Constants::geneve_device`.
    fn geneve_device(&self) -> u32;
    /// See `Constants::overlays`.
    fn overlays(&self) -> u32;
    /// See `Constants::tunnel_ports`.
    fn tunnel_ports(&self) -> [u16; MAX_TUNNEL_PORTS];
    /// See `Constants::vxlan_port`.
    fn vxlan_port(&self) -> u16;
    /// See `Constants::geneve_port`.
    fn geneve_port(&self) -> u16;
    /// See `Constants::underlay4`.
    fn underlay4(&self) -> u32;
    /// See `Constants::underlay6`.
    fn underlay6(&self) -> [u32; 4];
    /// See `Constants::host_eth`.
    fn host_eth(&self) -> [u32; 3];
}
