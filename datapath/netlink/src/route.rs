//! Routes.

use std::net::IpAddr;

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteScope as WireScope, RouteType,
    RouteVia,
};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use crate::{Netlink, NetlinkError};

/// The main routing table (`RT_TABLE_MAIN`).
pub const TABLE_MAIN: u32 = 254;

/// A unicast route with one next hop.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination; a prefix length of 0 is the default route.
    pub dst: IpNet,
    /// Next hop; none on a directly connected route.
    pub via: Option<IpAddr>,
    /// Index of the device.
    pub dev: u32,
    /// Preferred source address.
    pub src: Option<IpAddr>,
    /// MTU of the route in bytes.
    pub mtu: Option<u32>,
    /// How far the destination is.
    pub scope: RouteScope,
    /// Who made it (`RTPROT_*`): 2 kernel, 4 static, above 128 free for programs.
    pub protocol: u8,
    /// Table number.
    pub table: u32,
    /// Priority; lower wins. IPv6 routes get 1024 from the kernel when 0.
    pub metric: u32,
    /// Whether the next hop counts as reachable although no route says so.
    pub onlink: bool,
}

/// How far a route's destination is (`RT_SCOPE_*`); the kernel ignores it for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// On the device's own link.
    Link,
    /// This host.
    Host,
}

impl Route {
    /// A route in the main table, made by `protocol`.
    #[must_use]
    pub fn new(dst: IpNet, dev: u32, protocol: u8) -> Self {
        Self {
            dst: dst.trunc(),
            via: None,
            dev,
            src: None,
            mtu: None,
            scope: RouteScope::Universe,
            protocol,
            table: TABLE_MAIN,
            metric: 0,
            onlink: false,
        }
    }
}

impl Netlink {
    /// Every unicast route of both families and all tables; routes with several next hops are left out.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let mut all = Vec::new();
        for version in [IpVersion::V4, IpVersion::V6] {
            let query = match version {
                IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            };
            let messages = self.handle.route().get(query).execute().try_collect::<Vec<_>>().await;
            let messages = messages.map_err(|error| NetlinkError::from_request("list routes", error))?;
            all.extend(messages.iter().filter_map(parse_route));
        }
        Ok(all)
    }

    /// Adds a route where there is none with the same destination, table and metric.
    ///
    /// # Errors
    /// `Refused`: as for `replace_route`, and `EEXIST` ([`NetlinkError::is_existing`]) when there is one.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let action = || format!("add route {}", describe(route));
        let request = self.handle.route().add(message(route));
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }

    /// Adds a route, or replaces the one with the same destination, table and metric.
    ///
    /// # Errors
    /// `Refused`: `ENETUNREACH` when the next hop is not on the device's link, `ENODEV` when the device is gone.
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let request = self.handle.route().add(message(route)).replace();
        let action = || format!("set route {}", describe(route));
        request.execute().await.map_err(|error| NetlinkError::from_request(action(), error))
    }

    /// Removes a route; one that is gone already is fine.
    ///
    /// # Errors
    /// `Refused` or `Socket`.
    pub async fn delete_route(&self, route: &Route) -> Result<(), NetlinkError> {
        match self.handle.route().del(message(route)).execute().await {
            Ok(()) => Ok(()),
            Err(error) => {
                let error = NetlinkError::from_request(format!("remove route {}", describe(route)), error);
                if error.is_missing() { Ok(()) } else { Err(error) }
            }
        }
    }
}

fn describe(route: &Route) -> String {
    let via = route.via.map(|hop| format!(" via {hop}")).unwrap_or_default();
    format!("to {}{via} on device {}", route.dst, route.dev)
}

fn message(route: &Route) -> RouteMessage {
    let scope = match route.scope {
        RouteScope::Universe => WireScope::Universe,
        RouteScope::Link => WireScope::Link,
        RouteScope::Host => WireScope::Host,
    };
    let prefix = route.dst.prefix_len();
    macro_rules! build {
        ($address:ty, $dst:expr, $variant:path) => {{
            let mut builder = RouteMessageBuilder::<$address>::new()
                .destination_prefix($dst, prefix)
                .output_interface(route.dev)
                .protocol(RouteProtocol::from(route.protocol))
                .scope(scope)
                .kind(RouteType::Unicast)
                .table_id(route.table);
            if let Some($variant(hop)) = route.via {
                builder = builder.gateway(hop);
            }
            if let Some($variant(source)) = route.src {
                builder = builder.pref_source(source);
            }
            if route.metric != 0 {
                builder = builder.priority(route.metric);
            }
            if route.onlink {
                builder = builder.onlink();
            }
            builder
        }};
    }
    let mut message = match route.dst.addr() {
        IpAddr::V4(dst) => build!(std::net::Ipv4Addr, dst, IpAddr::V4).build(),
        IpAddr::V6(dst) => build!(std::net::Ipv6Addr, dst, IpAddr::V6).build(),
    };
    if let Some(mtu) = route.mtu {
        message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message
}

pub(crate) fn parse_route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let unspecified: IpAddr = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        netlink_packet_route::AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut dst = unspecified;
    let mut dev = None;
    let mut table = u32::from(message.header.table);
    let (mut via, mut src, mut mtu, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => dst = address(found)?,
            RouteAttribute::Gateway(found) => via = address(found),
            RouteAttribute::Via(RouteVia::Inet6(hop)) => via = Some(IpAddr::V6(*hop)),
            RouteAttribute::PrefSource(found) => src = address(found),
            RouteAttribute::Oif(index) => dev = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|found| match found {
                    RouteMetric::Mtu(bytes) => Some(*bytes),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(Route {
        dst: IpNet::new(dst, message.header.destination_prefix_length).ok()?,
        via,
        dev: dev?,
        src,
        mtu,
        scope: match message.header.scope {
            WireScope::Link => RouteScope::Link,
            WireScope::Host => RouteScope::Host,
            _ => RouteScope::Universe,
        },
        protocol: message.header.protocol.into(),
        table,
        metric,
        onlink: message.header.flags.contains(netlink_packet_route::route::RouteFlags::Onlink),
    })
}

fn address(found: &RouteAddress) -> Option<IpAddr> {
    match found {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
