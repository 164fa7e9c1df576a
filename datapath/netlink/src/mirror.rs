//! The kernel's devices, addresses and routes in memory, kept up to date by what the kernel announces.
//!
//! The kernel puts an announcement into the sockets of whoever listens before it answers the request that caused it. So
//! whoever empties such a socket without waiting knows everything that has happened before, and a list of thousands of
//! routes is asked for once and not at every look. It is asked for again when the socket overflowed (`ENOBUFS`), when an
//! announcement does not say enough, and after a while in any case.
//!
//! Source: Linux `net/netlink/af_netlink.c` (`netlink_broadcast_filtered`), `net/ipv4/fib_trie.c`, `net/ipv6/route.c`.

mod notices;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteFlags, RouteMessage, RouteType},
};
use rtnetlink::packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};

use self::notices::{Notice, Notices};
use crate::{Link, Netlink, NetlinkError, Route, address::parse_address, link::parse_link, route::parse_route};

/// How often everything is read again while one look lasts. Whatever is unsure after that is for the next one.
const ATTEMPTS: usize = 3;

/// Which routes are of interest, how often all of them are read, and how much may be announced between two looks.
#[derive(Debug, Clone, Copy)]
pub struct MirrorSpec {
    /// Whether a route is to be kept.
    pub keep: fn(&Route) -> bool,
    /// Everything is read again at the first look after this.
    pub reread: Duration,
    /// Room for announcements in bytes, each of which takes about one kilobyte; the kernel takes memory only for those
    /// that are there.
    pub buffer_bytes: usize,
}

impl Default for MirrorSpec {
    /// Every route, read again once a minute, with room for what some thousand nodes change at once.
    fn default() -> Self {
        Self { keep: |_| true, reread: Duration::from_secs(60), buffer_bytes: 8 << 20 }
    }
}

/// What is different from the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// This was the first look: everything is new.
    pub all: bool,
    /// Devices or addresses changed.
    pub devices: bool,
    /// Destinations whose routes may have changed, also back to what they were.
    pub routes: BTreeSet<IpNet>,
}

/// The routes to exactly this destination, out of many.
pub fn routes_to(routes: &BTreeSet<Route>, dst: IpNet) -> impl Iterator<Item = &Route> {
    // Routes are in order of their destinations first, and no device has number 0: this comes before all of them.
    let first = Route::new(dst, 0, 0);
    routes.range(first..).take_while(move |route| route.dst == dst)
}

/// Devices, addresses and routes of the namespace in which it was made.
#[derive(Debug)]
pub struct Mirror {
    spec: MirrorSpec,
    notices: Notices,
    links: Vec<Link>,
    addresses: Vec<(u32, IpNet)>,
    /// In order of their destinations.
    routes: BTreeSet<Route>,
    seen: Seen,
    /// Devices and addresses are to be read.
    devices_unsure: bool,
    /// Routes are to be read.
    routes_unsure: bool,
    /// When routes were read last, and how often.
    read: Option<Instant>,
    readings: u64,
}

impl Mirror {
    /// Begins to listen in the calling thread's network namespace; nothing is read before the first look.
    ///
    /// # Errors
    /// `Socket` when the kernel gives none.
    pub fn new(spec: MirrorSpec) -> Result<Self, NetlinkError> {
        Ok(Self {
            spec,
            notices: Notices::open(spec.buffer_bytes)?,
            links: Vec::new(),
            addresses: Vec::new(),
            routes: BTreeSet::new(),
            seen: Seen::default(),
            devices_unsure: true,
            routes_unsure: true,
            read: None,
            readings: 0,
        })
    }

    /// Takes over what the kernel has announced, and reads what is not known by that. Called from the namespace in which
    /// it was made.
    ///
    /// # Errors
    /// `Refused` or `Socket`; the next look makes up for it.
    pub async fn look(&mut self) -> Result<Seen, NetlinkError> {
        self.follow()?;
        if self.read.is_none_or(|read| read.elapsed() >= self.spec.reread) {
            self.distrust();
        }
        for _ in 0..ATTEMPTS {
            if !self.devices_unsure && !self.routes_unsure {
                break;
            }
            let netlink = Netlink::new()?;
            if self.devices_unsure {
                self.read_devices(&netlink).await?;
            }
            if self.routes_unsure {
                self.read_routes(&netlink).await?;
            }
            // What was announced meanwhile may be newer than what was read, and never older than what follows it.
            self.follow()?;
        }
        Ok(std::mem::take(&mut self.seen))
    }

    /// Makes the next look read everything.
    pub fn distrust(&mut self) {
        self.devices_unsure = true;
        self.routes_unsure = true;
    }

    /// Every device.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Every address with the index of its device.
    #[must_use]
    pub fn addresses(&self) -> &[(u32, IpNet)] {
        &self.addresses
    }

    /// The routes that are kept; those with several next hops are left out.
    #[must_use]
    pub fn routes(&self) -> &BTreeSet<Route> {
        &self.routes
    }

    /// The routes to exactly this destination.
    pub fn routes_to(&self, dst: IpNet) -> impl Iterator<Item = &Route> {
        routes_to(&self.routes, dst)
    }

    /// How often all routes were read.
    #[must_use]
    pub fn readings(&self) -> u64 {
        self.readings
    }

    async fn read_devices(&mut self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let (links, addresses) = (netlink.links().await?, netlink.addresses().await?);
        self.devices_unsure = false;
        self.seen.devices |= links != self.links || addresses != self.addresses;
        (self.links, self.addresses) = (links, addresses);
        Ok(())
    }

    async fn read_routes(&mut self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let routes: BTreeSet<Route> = netlink.routes().await?.into_iter().filter(self.spec.keep).collect();
        self.routes_unsure = false;
        self.seen.all |= self.read.is_none();
        self.seen.routes.extend(routes.symmetric_difference(&self.routes).map(|route| route.dst));
        self.routes = routes;
        self.read = Some(Instant::now());
        self.readings += 1;
        Ok(())
    }

    /// Empties the socket.
    fn follow(&mut self) -> Result<(), NetlinkError> {
        while let Some(notice) = self.notices.next()? {
            match notice {
                Notice::Told(message) => self.learn(message),
                Notice::Missed => self.distrust(),
            }
        }
        Ok(())
    }

    fn learn(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        let replaces = message.header.flags & NLM_F_REPLACE != 0;
        let NetlinkPayload::InnerMessage(told) = message.payload else { return };
        match told {
            // Bridges tell of their ports in messages of their own, which say less.
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec => {}
            RouteNetlinkMessage::NewLink(link) => {
                let link = parse_link(&link);
                if !link.up {
                    self.forget_routes_by(link.index);
                }
                self.devices_unsure |= !self.links.contains(&link);
            }
            RouteNetlinkMessage::DelLink(link) => {
                self.forget_routes_by(link.header.index);
                self.devices_unsure = true;
            }
            RouteNetlinkMessage::NewAddress(told) => {
                let known = parse_address(&told).is_some_and(|ip| self.addresses.contains(&(told.header.index, ip)));
                self.devices_unsure |= !known;
            }
            RouteNetlinkMessage::DelAddress(told) => {
                self.devices_unsure = true;
                // IPv4 removes the routes with this source, and IPv6 takes the source from them: neither says so
                // (`fib_sync_down_addr`, `fib6_remove_prefsrc`).
                let source = parse_address(&told).map(|net| net.addr());
                self.routes_unsure |= source.is_none_or(|source| self.has_routes_from(source));
            }
            RouteNetlinkMessage::NewRoute(route) if replaces => self.learn_replaced(&route),
            RouteNetlinkMessage::NewRoute(route) => {
                if let Some(route) = self.understand(&route) {
                    self.insert(route);
                }
            }
            RouteNetlinkMessage::DelRoute(route) => {
                if let Some(route) = self.understand(&route)
                    && !self.remove(&route)
                {
                    // In other words than before, it may be one that is known.
                    let is_like = |found: &Route| (found.dev, found.via) == (route.dev, route.via);
                    let may_be_known = self.at_place_of(&route).any(is_like);
                    self.routes_unsure |= may_be_known;
                }
            }
            // Next hops that are objects of their own take their routes along when they go, without a word of them.
            _ => self.routes_unsure = true,
        }
    }

    /// Takes one route for the one that it replaced. The kernel tells only the new one.
    fn learn_replaced(&mut self, message: &RouteMessage) {
        if message.header.kind != RouteType::Unicast {
            // It may have taken the place of one that is known.
            self.routes_unsure = true;
            return;
        }
        let Some(route) = self.understand(message) else { return };
        let replaced: Vec<Route> = self.at_place_of(&route).cloned().collect();
        // Which of several it was, the kernel does not tell.
        self.routes_unsure |= replaced.len() > 1;
        for old in &replaced {
            self.remove(old);
        }
        self.insert(route);
    }

    /// The route that a message tells of. One with several next hops makes the list unsure: it may have been one with a
    /// single next hop before, or become one.
    fn understand(&mut self, message: &RouteMessage) -> Option<Route> {
        let is_ip = matches!(message.header.address_family, AddressFamily::Inet | AddressFamily::Inet6);
        let is_copy = message.header.flags.contains(RouteFlags::Cloned);
        if !is_ip || is_copy || message.header.kind != RouteType::Unicast {
            return None;
        }
        let found = parse_route(message);
        self.routes_unsure |= found.is_none();
        found
    }

    /// Takes over a route that is to be kept.
    fn insert(&mut self, route: Route) {
        if (self.spec.keep)(&route) {
            self.seen.routes.insert(route.dst);
            self.routes.insert(route);
        }
    }

    /// Says whether it was there.
    fn remove(&mut self, route: &Route) -> bool {
        let was_there = self.routes.remove(route);
        if was_there {
            self.seen.routes.insert(route.dst);
        }
        was_there
    }

    /// Routes that differ from this one in nothing that tells routes apart.
    fn at_place_of(&self, route: &Route) -> impl Iterator<Item = &Route> {
        let (table, metric) = (route.table, route.metric);
        self.routes_to(route.dst).filter(move |found| found.table == table && found.metric == metric)
    }

    fn has_routes_from(&self, source: IpAddr) -> bool {
        self.routes.iter().any(|route| route.src == Some(source))
    }

    /// A device that goes down loses its routes, of which IPv4 tells nothing (`fib_table_flush`).
    fn forget_routes_by(&mut self, device: u32) {
        let seen = &mut self.seen.routes;
        self.routes.retain(|route| {
            let stays = route.dev != device;
            if !stays {
                seen.insert(route.dst);
            }
            stays
        });
    }
}
