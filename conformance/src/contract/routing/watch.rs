//! Hears every change of a node's kernel, also one that is undone at once.

use std::{collections::BTreeSet, net::IpAddr};

use futures::{TryStreamExt as _, channel::mpsc::UnboundedReceiver};
use ipnet::IpNet;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressAttribute,
    route::{RouteAddress, RouteAttribute, RouteProtocol, RouteType},
};
use rtnetlink::{MulticastGroup, new_multicast_connection, packet_core::NetlinkPayload, sys::SocketAddr};
use tokio::task::JoinHandle;

use super::view::automatic;

type Message = (rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>, SocketAddr);

/// A socket that has joined the kernel's announcements of routes and addresses.
#[derive(Debug)]
pub(super) struct Watch {
    handle: rtnetlink::Handle,
    messages: UnboundedReceiver<Message>,
    connection: JoinHandle<()>,
    /// Addresses that are there, by device index. The kernel announces an IPv6 address a second time, whenever it gets
    /// round to it (`addrconf_dad_completed` in net/ipv6/addrconf.c), and that is no change.
    known: BTreeSet<(u32, IpNet)>,
}

impl Watch {
    /// Starts to listen in the calling thread's network namespace, which has these addresses.
    pub(super) fn start(known: BTreeSet<(u32, IpNet)>) -> std::io::Result<Self> {
        let groups = [
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, handle, messages) = new_multicast_connection(&groups)?;
        Ok(Self { handle, messages, connection: tokio::spawn(connection), known })
    }

    /// What changed since the last call, in words.
    pub(super) async fn changes(&mut self) -> Result<Vec<String>, rtnetlink::Error> {
        // Announcements and answers share the socket, so after an answer everything before it has been read.
        self.handle.link().get().execute().try_collect::<Vec<_>>().await?;
        let mut changes = Vec::new();
        while let Ok((message, _)) = self.messages.try_recv() {
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                changes.extend(told(&message, &mut self.known));
            }
        }
        Ok(changes)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A change in words; none for what the kernel does by itself.
fn told(message: &RouteNetlinkMessage, known: &mut BTreeSet<(u32, IpNet)>) -> Option<String> {
    let (verb, route) = match message {
        RouteNetlinkMessage::NewRoute(route) => ("set", route),
        RouteNetlinkMessage::DelRoute(route) => ("removed", route),
        RouteNetlinkMessage::NewAddress(found) => {
            let address = address(&found.attributes, found.header.prefix_len)?;
            let new = known.insert((found.header.index, address));
            return new.then(|| format!("the address {address} was set"));
        }
        RouteNetlinkMessage::DelAddress(found) => {
            let address = address(&found.attributes, found.header.prefix_len)?;
            known.remove(&(found.header.index, address));
            return Some(format!("the address {address} was removed"));
        }
        _ => return None,
    };
    let dst = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    });
    let length = route.header.destination_prefix_length;
    // The kernel's routes follow addresses and carriers, and may come late; whoever causes one is seen by the address.
    let own = route.header.protocol == RouteProtocol::Kernel;
    if own || route.header.kind != RouteType::Unicast || dst.is_some_and(automatic) {
        return None;
    }
    let dst = dst.map_or_else(|| format!("default/{length}"), |ip| format!("{ip}/{length}"));
    Some(format!("the route to {dst} was {verb}"))
}

fn address(attributes: &[AddressAttribute], length: u8) -> Option<IpNet> {
    let ip = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    })?;
    IpNet::new(ip, length).ok().filter(|_| !automatic(ip))
}
