//! Devices: found, made, changed, removed.

use std::os::fd::{AsRawFd, RawFd};

use futures::TryStreamExt;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

use crate::{NetNs, Netlink, NetlinkError};

/// A device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zero where the device has none.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`), whatever its carrier.
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Whether it resolves no neighbours (`IFF_NOARP`).
    pub noarp: bool,
    /// What it is.
    pub kind: LinkKind,
    /// Index of its peer or lower device, which may be in another namespace.
    pub peer_index: Option<u32>,
    /// Index of the bridge or bond that it belongs to.
    pub master_index: Option<u32>,
}

/// Kinds of devices that callers tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkKind {
    /// No `IFLA_LINKINFO`: a physical device or loopback.
    Physical,
    /// One end of a veth pair.
    Veth,
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Vxlan,
    /// Anything else, by the kernel's word for it.
    Other(String),
}

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
    /// Every device of the namespace.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        let messages = messages.map_err(|error| NetlinkError::from_request("list devices", error))?;
        Ok(messages.iter().map(parse_link).collect())
    }

    /// The device of this name, if there is one.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = self.handle.link().get().match_name(name.to_owned());
        match request.execute().try_next().await {
            Ok(found) => Ok(found.as_ref().map(parse_link)),
            Err(error) => {
                let error = NetlinkError::from_request(format!("find device {name:?}"), error);
                if error.is_missing() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// The device of this name.
    ///
    /// # Errors
    /// `NoSuchLink` when there is none.
    pub async fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        self.find_link(name).await?.ok_or_else(|| NetlinkError::NoSuchLink { name: name.to_owned() })
    }

    /// The device of this index, if there is one.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn find_link_by_index(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        match self.handle.link().get().match_index(index).execute().try_next().await {
            Ok(found) => Ok(found.as_ref().map(parse_link)),
            Err(error) => {
                let error = NetlinkError::from_request(format!("find device {index}"), error);
                if error.is_missing() { Ok(None) } else { Err(error) }
            }
        }
    }

    /// Makes a veth pair.
    ///
    /// # Errors
    /// `Refused` with `EEXIST` when either name is taken.
    pub async fn add_veth(&self, spec: &VethSpec<'_>) -> Result<(), NetlinkError> {
        let mut peer = end(spec.peer_name, spec.peer_mac, spec.mtu);
        if let Some(netns) = spec.peer_netns {
            peer = peer.setns_by_fd(raw(netns));
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
        self.change(action, by_index(index).setns_by_fd(raw(netns)).build()).await
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

    async fn change(&self, action: String, message: LinkMessage) -> Result<(), NetlinkError> {
        let request = self.handle.link().set(message);
        request.execute().await.map_err(|error| NetlinkError::from_request(action, error))
    }
}

fn by_index(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
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

fn raw(netns: &NetNs) -> RawFd {
    netns.as_raw_fd()
}

fn parse_link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        kind: LinkKind::Physical,
        peer_index: None,
        master_index: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                if let Ok(mac) = <[u8; 6]>::try_from(bytes.as_slice()) {
                    link.mac = mac;
                }
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(index) => link.peer_index = Some(*index),
            LinkAttribute::Controller(index) => link.master_index = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = parse_kind(kind);
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn parse_kind(kind: &InfoKind) -> LinkKind {
    match kind {
        InfoKind::Veth => LinkKind::Veth,
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Vxlan => LinkKind::Vxlan,
        other => LinkKind::Other(other.to_string()),
    }
}
