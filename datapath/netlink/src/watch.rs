//! What the kernel announces of devices, addresses and routes.

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    sys::SocketAddr,
};
use tokio::task::JoinHandle;

use crate::{Link, NetlinkError, address::parse_address, link::parse_link, route::parse_route};

/// Kinds of announcements that are asked for (rtnetlink(7)).
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Something that has changed in the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Announcement {
    /// A device is there, new or changed or only told again.
    Link(Link),
    /// A device is gone.
    LinkGone(Link),
    /// A device has an address, perhaps only with another lifetime.
    Address(u32, IpNet),
    /// A device has an address no longer.
    AddressGone(u32, IpNet),
    /// A default route over this device came, changed or went. Other routes are not told.
    DefaultRoute(u32),
    /// The kernel had more to tell than the socket could hold (`ENOBUFS`): anything may have changed.
    Missed,
}

/// A socket on which the kernel announces changes, in the namespace in which it was opened.
///
/// Must be used within a Tokio runtime.
#[derive(Debug)]
pub struct Watch {
    connection: JoinHandle<()>,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Watch {
    /// Opens the socket in the calling thread's network namespace; what happens from now on is announced.
    ///
    /// # Errors
    /// `Socket` when the kernel gives none.
    pub fn new() -> Result<Self, NetlinkError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS).map_err(|error| {
            NetlinkError::Socket { action: "watch devices, addresses and routes".to_owned(), reason: error.to_string() }
        })?;
        Ok(Self { connection: tokio::spawn(connection), messages })
    }

    /// The next change; nothing when the socket has broken.
    pub async fn next(&mut self) -> Option<Announcement> {
        while let Some((message, _)) = self.messages.next().await {
            if let Some(found) = understood(message.payload) {
                return Some(found);
            }
        }
        None
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn understood(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Announcement> {
    use RouteNetlinkMessage as Told;
    match payload {
        NetlinkPayload::Overrun(_) => Some(Announcement::Missed),
        NetlinkPayload::InnerMessage(told) => match told {
            Told::NewLink(link) => Some(Announcement::Link(parse_link(&link))),
            Told::DelLink(link) => Some(Announcement::LinkGone(parse_link(&link))),
            Told::NewAddress(told) => Some(Announcement::Address(told.header.index, parse_address(&told)?)),
            Told::DelAddress(told) => Some(Announcement::AddressGone(told.header.index, parse_address(&told)?)),
            Told::NewRoute(route) | Told::DelRoute(route) => parse_route(&route)
                .filter(|route| route.dst.prefix_len() == 0)
                .map(|route| Announcement::DefaultRoute(route.dev)),
            _ => None,
        },
        _ => None,
    }
}
