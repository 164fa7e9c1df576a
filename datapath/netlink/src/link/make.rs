//! Devices: made and removed.

use std::os::fd::AsRawFd;

use netlink_packet_route::link::{InfoData, InfoGeneve, InfoKind, InfoVeth};
use rtnetlink::{LinkBridge, LinkGeneve, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, packet_core::DefaultNla};

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

/// A tunnel's device that leads nowhere of its own accord, since each packet brings its destination and network with it
/// (`external`); it is down at first.
#[derive(Debug, Clone, Copy)]
pub struct TunnelSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it puts around packets.
    pub kind: TunnelKind,
    /// Its UDP port.
    pub port: u16,
    /// First and last of the source ports that it takes. Kernel: 6.15 for Geneve, before which it takes any.
    pub source_ports: (u16, u16),
    /// Its Ethernet address; the kernel draws one when absent.
    pub mac: Option<[u8; 6]>,
}

/// Kinds of [`TunnelSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelKind {
    /// RFC 7348.
    Vxlan,
    /// RFC 8926.
    Geneve,
}

/// `IFLA_GENEVE_PORT_RANGE`, Linux `include/uapi/linux/if_link.h`: two ports in network order. Kernels that do not know it
/// pass over it.
const GENEVE_PORT_RANGE: u16 = 15;

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

    /// Makes a tunnel's device. It takes and sends UDP over IPv6 without checksum too.
    ///
    /// # Errors
    /// `Refused` with `EEXIST` when the name is taken, `EOPNOTSUPP` when the kernel has no such devices
    /// ([`NetlinkError::is_unsupported`]).
    pub async fn add_tunnel(&self, spec: &TunnelSpec<'_>) -> Result<(), NetlinkError> {
        let (low, high) = spec.source_ports;
        let message = match spec.kind {
            TunnelKind::Vxlan => with_mac(LinkMessageBuilder::<LinkVxlan>::new(spec.name), spec.mac)
                .port(spec.port)
                .port_range(low, high)
                .collect_metadata(true)
                .learning(false)
                .udp_zero_csum6_tx(true)
                .udp_zero_csum6_rx(true)
                .build(),
            TunnelKind::Geneve => {
                let range = [low.to_be_bytes(), high.to_be_bytes()].concat();
                with_mac(LinkMessageBuilder::<LinkGeneve>::new(spec.name), spec.mac)
                    .port(spec.port)
                    .append_info_data(InfoGeneve::Other(DefaultNla::new(GENEVE_PORT_RANGE, range)))
                    .collect_metadata()
                    .udp_zero_csum6_tx(true)
                    .udp_zero_csum6_rx(true)
                    .build()
            }
        };
        let request = self.handle.link().add(message);
        let action = || format!("make {:?} device {:?} on port {}", spec.kind, spec.name, spec.port);
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

fn with_mac<T>(builder: LinkMessageBuilder<T>, mac: Option<[u8; 6]>) -> LinkMessageBuilder<T> {
    match mac {
        Some(mac) => builder.address(mac.to_vec()),
        None => builder,
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
