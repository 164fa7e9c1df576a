//! Whether a node is a neighbour on one of the uplinks, by the node's own routing table.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use kinesin_netlink::{Route, TABLE_MAIN, routes_to};

/// How a node is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is on the link of the device with this index.
    OnLink(u32),
    /// It is behind this router.
    Gateway(IpAddr),
    /// It is reached by a device that is no uplink.
    OtherDevice(u32),
    /// No route leads there.
    Nowhere,
}

/// The main table, looked up by longest prefix.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    routes: &'a BTreeSet<Route>,
    /// Prefix lengths that occur, the longest first.
    lengths: Vec<u8>,
    uplinks: &'a [u32],
}

impl<'a> Table<'a> {
    /// Routes of other tables are left out of account.
    pub(crate) fn new(routes: &'a BTreeSet<Route>, uplinks: &'a [u32]) -> Self {
        let mut occurs = [false; u8::MAX as usize + 1];
        for route in routes.iter().filter(|route| route.table == TABLE_MAIN) {
            occurs[usize::from(route.dst.prefix_len())] = true;
        }
        Self { routes, lengths: (0..=u8::MAX).rev().filter(|length| occurs[usize::from(*length)]).collect(), uplinks }
    }

    /// How a node is reached.
    pub(crate) fn reach(&self, node: IpAddr) -> Reach {
        let found = self.lengths.iter().find_map(|length| {
            // Lengths beyond 32 make no IPv4 network.
            let network = IpNet::new(node, *length).ok()?.trunc();
            let there = routes_to(self.routes, network).filter(|route| route.table == TABLE_MAIN);
            // Of several routes to one network, the kernel takes the one with the lowest metric. It has one IPv6 link-local or
            // multicast route per device; among equals an uplink's counts.
            there.min_by_key(|route| (route.metric, !self.uplinks.contains(&route.dev)))
        });
        match found {
            None => Reach::Nowhere,
            Some(Route { via: Some(gateway), .. }) => Reach::Gateway(*gateway),
            Some(route) if self.uplinks.contains(&route.dev) => Reach::OnLink(route.dev),
            Some(route) => Reach::OtherDevice(route.dev),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str, dev: u32, via: Option<&str>, metric: u32) -> Route {
        let via = via.map(|hop| hop.parse().expect("an address"));
        Route { via, metric, ..Route::new(dst.parse().expect("a network"), dev, 2) }
    }

    #[test]
    fn the_longest_prefix_and_the_lowest_metric_decide() {
        let other_table = Route { table: 255, ..route("10.0.0.7/32", 9, None, 0) };
        let routes = [
            route("0.0.0.0/0", 2, Some("10.0.0.1"), 0),
            route("10.0.0.0/24", 2, None, 0),
            route("10.0.0.9/32", 2, Some("10.0.0.1"), 0),
            route("10.1.0.0/24", 5, None, 0),
            route("10.2.0.0/24", 3, Some("10.0.0.2"), 50),
            route("10.2.0.0/24", 3, None, 100),
            route("fd00::/64", 2, None, 256),
            other_table,
        ];
        let routes = BTreeSet::from(routes);
        let table = Table::new(&routes, &[2, 3]);
        for (node, expected) in [
            ("10.0.0.7", Reach::OnLink(2)),
            ("10.0.0.9", Reach::Gateway("10.0.0.1".parse().expect("an address"))),
            ("192.0.2.1", Reach::Gateway("10.0.0.1".parse().expect("an address"))),
            ("10.1.0.7", Reach::OtherDevice(5)),
            ("10.2.0.7", Reach::Gateway("10.0.0.2".parse().expect("an address"))),
            ("fd00::7", Reach::OnLink(2)),
            ("fd01::7", Reach::Nowhere),
        ] {
            assert_eq!(table.reach(node.parse().expect("an address")), expected, "{node}");
        }
    }
}
