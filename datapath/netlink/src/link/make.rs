//! Devices: made and removed.

use std::os::fd::AsRawFd;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan};

use crate::{NetNs, Netlink, NetlinkError};

/// A veth pair to be made; both ends are down at first.
#[derive(Debug, Clone, Copy)]
pub struct VethSpec<'a> {
    /// Name of the end in the namespace of the socket.
    pub name: &'a str,
    /// Its Ethernet address; the kernel draws one when absent.
    pub mac: Option<[u8; 6]>,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// The other end's Ethernet address.
    pub peer_mac: Option<[u8; 6]>,
    /// Namespace in which the other end is born; the socket's own when absent.
    pub peer_netns: Option<&'a NetNs>,
    /// MTU of both ends in bytes; the kernel's default when absent.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Makes a veth pair.
    ///
    /// # Errors
    /// `Refused` with `EEXIST` when either name is taken.
    pub async fn add_veth(&self, spec: &VethSpec<'_>) -> Result<(), NetlinkError> {
        let mut peer = end(spec.peer_name, spec.peer_mac, spec.mtu);
        if let Some(netns) = spec.peer_netns {
            peer = peer.setns_by_fd(netns.as_raw_fd());
        }
        let mut message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(spec.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
        if let Some(mac) = spec.mac {
            message = message.address(mac.to_vec());
        }
        if let Some(mtu) = spec.mtu {
            message = message.mtu(mtu);
        }
        let action = || format!("make veth pair {:?} and {:?}", spec.name, spec.peer_name);
        let request = self.handle.link().add(message.build());
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }

    /// Makes a bridge; one that is there already is fine.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn ensure_bridge(&self, name: &str) -> Result<(), NetlinkError> {
        let request = self.handle.link().add(LinkBridge::new(name).build());
        match request
            .execute()
            .await
            .map_err(|error| NetlinkError::from_request(format!("make bridge {name:?}"), error))
        {
            Err(error) if !error.is_existing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a VXLAN device that leads nowhere of its own accord: each packet brings its destination and network with it
    /// (`external`). It takes and sends UDP over IPv6 without checksum too.
    ///
    /// # Errors
    /// `Refused` with `EEXIST` when the name is taken, `EOPNOTSUPP` when the kernel has no such devices.
    pub async fn add_vxlan(&self, name: &str, port: u16) -> Result<(), NetlinkError> {
        let message = LinkMessageBuilder::<LinkVxlan>::new(name)
            .port(port)
            .collect_metadata(true)
            .learning(false)
            .udp_zero_csum6_tx(true)
            .udp_zero_csum6_rx(true)
            .build();
        let request = self.handle.link().add(message);
        let action = || format!("make VXLAN device {name:?} on port {port}");
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }

    /// Removes a device; one that is gone already is fine.
    ///
    /// # Errors
    /// `Refused` when the device cannot be removed.
    pub async fn delete_link(&self, index: u32) -> Result<(), NetlinkError> {
        match self.handle.link().del(index).execute().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = NetlinkError::from_request(format!("remove device {index}"), error);
                if error.is_missing() { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Removes the device of this name; the answer tells whether there was one.
    ///
    /// # Errors
    /// `Refused` when the device cannot be removed.
    pub async fn delete_link_by_name(&self, name: &str) -> Result<bool, NetlinkError> {
        match self.find_link(name).await? {
            Some(link) => self.delete_link(link.index).await.map(|()| true),
            None => Ok(false),
        }
    }
}

fn end(name: &str, mac: Option<[u8; 6]>, mtu: Option<u32>) -> LinkMessageBuilder<LinkUnspec> {
    let mut message = LinkUnspec::new_with_name(name);
    if let Some(mac) = mac {
        message = message.address(mac.to_vec());
    }
    if let Some(mtu) = mtu {
        message = message.mtu(mtu);
    }
    message
}
