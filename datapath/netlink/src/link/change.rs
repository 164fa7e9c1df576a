//! Devices: changed.

use std::os::fd::AsRawFd;

use netlink_packet_route::link::LinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::{NetNs, Netlink, NetlinkError};

impl Netlink {
    /// Sets a device up.
    ///
    /// # Errors
    /// `Refused` when the device is gone.
    pub async fn set_up(&self, index: u32) -> Result<(), NetlinkError> {
        self.change(format!("set device {index} up"), by_index(index).up().build()).await
    }

    /// Sets a device down.
    ///
    /// # Errors
    /// `Refused` when the device is gone.
    pub async fn set_down(&self, index: u32) -> Result<(), NetlinkError> {
        self.change(format!("set device {index} down"), by_index(index).down().build()).await
    }

    /// Switches neighbour resolution off on a device (`IFF_NOARP`).
    ///
    /// # Errors
    /// `Refused` when the device is gone.
    pub async fn set_noarp(&self, index: u32) -> Result<(), NetlinkError> {
        self.change(format!("switch ARP off on device {index}"), by_index(index).arp(false).build()).await
    }

    /// Sets a device's MTU in bytes.
    ///
    /// # Errors
    /// `Refused` when the device cannot have it.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change(format!("set the MTU of device {index} to {mtu}"), by_index(index).mtu(mtu).build()).await
    }

    /// Sets a device's Ethernet address.
    ///
    /// # Errors
    /// `Refused` when the device cannot have it.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> Result<(), NetlinkError> {
        self.change(format!("set the address of device {index}"), by_index(index).address(mac.to_vec()).build()).await
    }

    /// Renames a device, which must be down.
    ///
    /// # Errors
    /// `Refused` with `EEXIST` when the name is taken.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), NetlinkError> {
        self.change(format!("rename device {index} to {name:?}"), by_index(index).name(name).build()).await
    }

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    /// `Refused` when either is gone.
    pub async fn set_master(&self, index: u32, bridge_index: u32) -> Result<(), NetlinkError> {
        let action = format!("make device {index} a port of bridge {bridge_index}");
        self.change(action, by_index(index).controller(bridge_index).build()).await
    }

    /// Moves a device into another namespace.
    ///
    /// # Errors
    /// `Refused` when its name is taken there.
    pub async fn move_to(&self, index: u32, netns: &NetNs) -> Result<(), NetlinkError> {
        let action = format!("move device {index} to {}", netns.path().display());
        self.change(action, by_index(index).setns_by_fd(netns.as_raw_fd()).build()).await
    }

    async fn change(&self, action: String, message: LinkMessage) -> Result<(), NetlinkError> {
        let request = self.handle.link().set(message);
        request.execute().await.map_err(|error| NetlinkError::from_request(action, error))
    }
}

fn by_index(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}
