//! Devices, as the kernel tells of them.

mod change;
mod make;

use futures::TryStreamExt;
use netlink_packet_route::link::{
    InfoData, InfoGeneve, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use crate::{Netlink, NetlinkError};

pub use make::{TunnelKind, TunnelSpec, VethSpec};

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
    /// Whether its packets have an Ethernet header (`ARPHRD_ETHER`).
    pub ethernet: bool,
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
    Vxlan {
        /// Its UDP port; 0 when the kernel did not say.
        port: u16,
        /// Whether each packet brings its own destination and network (`external`).
        external: bool,
        /// First and last of the source ports that it takes; 0 and 0 for the kernel's own choice.
        source_ports: (u16, u16),
    },
    /// A Geneve device.
    Geneve {
        /// As for VXLAN.
        port: u16,
        /// As for VXLAN.
        external: bool,
    },
    /// Anything else, by the kernel's word for it.
    Other(String),
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
}

pub(crate) fn parse_link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        noarp: flags.contains(LinkFlags::Noarp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
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
                    match info {
                        LinkInfo::Kind(kind) => link.kind = parse_kind(kind),
                        // The kernel writes the kind before its data.
                        LinkInfo::Data(InfoData::Vxlan(attributes)) => link.kind = parse_vxlan(attributes),
                        LinkInfo::Data(InfoData::Geneve(attributes)) => link.kind = parse_geneve(attributes),
                        _ => {}
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
        InfoKind::Vxlan => parse_vxlan(&[]),
        InfoKind::Geneve => parse_geneve(&[]),
        other => LinkKind::Other(other.to_string()),
    }
}

fn parse_vxlan(attributes: &[InfoVxlan]) -> LinkKind {
    let (mut port, mut external, mut source_ports) = (0, false, (0, 0));
    for attribute in attributes {
        match attribute {
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::CollectMetadata(is_on) => external = *is_on,
            InfoVxlan::PortRange(range) => source_ports = *range,
            _ => {}
        }
    }
    LinkKind::Vxlan { port, external, source_ports }
}

fn parse_geneve(attributes: &[InfoGeneve]) -> LinkKind {
    let (mut port, mut external) = (0, false);
    for attribute in attributes {
        match attribute {
            InfoGeneve::Port(number) => port = *number,
            InfoGeneve::CollectMetadata => external = true,
            _ => {}
        }
    }
    LinkKind::Geneve { port, external }
}
