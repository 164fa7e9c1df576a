//! What has to change in the kernel; pure.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kinesin_netlink::{Route, TABLE_MAIN};

use crate::ledger::Entry;

/// `RTPROT_KERNEL`: what the reference shows for direct node routes (6.8).
pub(crate) const PROTOCOL: u8 = 2;
/// What the kernel makes of metric 0 in IPv6 (`IP6_RT_PRIO_USER`, Linux `include/uapi/linux/ipv6_route.h`).
const IPV6_METRIC: u32 = 1024;

/// A step towards the desired routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Makes a route where there must be none.
    Add(Route),
    /// Puts a route of ours back in place of whatever has replaced it.
    PutBack(Route),
    /// Removes a route of ours.
    Remove(Route),
}

impl Change {
    /// The destination of a route that this step makes.
    pub(crate) fn made(&self) -> Option<IpNet> {
        match self {
            Self::Add(route) | Self::PutBack(route) => Some(route.dst),
            Self::Remove(_) => None,
        }
    }
}

/// The steps, and what another program's routes stand in the way of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    pub(crate) blocked: BTreeMap<IpNet, Route>,
}

/// A route as a backend makes it.
pub(crate) fn route_of(dst: IpNet, entry: &Entry, dev: u32) -> Route {
    Route { via: entry.via, src: entry.src, mtu: entry.mtu_bytes, ..bare_route(dst, dev) }
}

/// A route of this node to another one's pod CIDR by a device: what says how is to be added.
#[must_use]
pub fn bare_route(dst: IpNet, dev: u32) -> Route {
    let metric = if dst.addr().is_ipv6() { IPV6_METRIC } else { 0 };
    Route { metric, ..Route::new(dst, dev, PROTOCOL) }
}

/// Compares the desired routes with the kernel's; `listed` are those that an earlier `apply` made, `others` those that other
/// backends of this node made.
///
/// - A listed route that is no longer desired goes, unless it has been altered, or another backend has listed it as it
///   stands: then it is somebody else's now.
/// - A listed route that is missing or altered is put back.
/// - What another backend of this node made is replaced without a gap: a peer changes its carrier.
/// - Whatever else holds the place of a desired route stays; the destination is blocked, unless that route does the
///   same job.
pub(crate) fn plan(
    desired: &BTreeMap<IpNet, Route>,
    listed: &BTreeMap<IpNet, Route>,
    others: &[Route],
    actual: &[Route],
) -> Plan {
    let mut plan = Plan::default();
    let wanted: BTreeSet<IpNet> = desired.keys().chain(listed.keys()).copied().collect();
    let mut places: BTreeMap<IpNet, Vec<&Route>> = BTreeMap::new();
    for route in actual.iter().filter(|route| route.table == TABLE_MAIN && wanted.contains(&route.dst)) {
        places.entry(route.dst).or_default().push(route);
    }
    let at = |dst: &IpNet| places.get(dst).map(Vec::as_slice).unwrap_or_default();

    for (dst, ours) in listed {
        let next = desired.get(dst);
        // One that only leads elsewhere now is replaced below, without a gap.
        if next.is_none() && at(dst).contains(&ours) && !others.contains(ours) {
            plan.changes.push(Change::Remove(ours.clone()));
        }
    }
    for (dst, route) in desired {
        if at(dst).contains(&route) {
            continue;
        }
        let holder = at(dst).iter().find(|found| found.metric == route.metric);
        match holder {
            _ if listed.contains_key(dst) => plan.changes.push(Change::PutBack(route.clone())),
            None => plan.changes.push(Change::Add(route.clone())),
            Some(other) if others.contains(other) => plan.changes.push(Change::PutBack(route.clone())),
            Some(other) if (other.via, other.dev) == (route.via, route.dev) => {}
            Some(other) => {
                plan.blocked.insert(*dst, (*other).clone());
            }
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn route(dst: &str, via: &str) -> Route {
        Route { via: Some(via.parse().expect("an address")), ..bare_route(net(dst), 2) }
    }

    fn by_dst(routes: &[Route]) -> BTreeMap<IpNet, Route> {
        routes.iter().map(|route| (route.dst, route.clone())).collect()
    }

    #[test]
    fn each_state_of_one_route_has_its_step() {
        let ours = route("10.244.1.0/24", "10.0.0.11");
        let elsewhere = route("10.244.1.0/24", "10.0.0.99");
        let by_hand = Route { protocol: 4, ..ours.clone() };
        let other_metric = Route { metric: 100, ..elsewhere.clone() };
        let other_table = Route { table: 100, ..ours.clone() };
        let altered = Route { mtu: Some(1280), ..ours.clone() };
        let add = || vec![Change::Add(ours.clone())];
        let put_back = || vec![Change::PutBack(ours.clone())];
        let none: &[Route] = &[];
        let one = std::slice::from_ref(&ours);
        type Case<'a> = (&'a str, &'a [Route], &'a [Route], &'a [Route], Vec<Change>, usize);
        let cases: [Case<'_>; 14] = [
            ("new", one, none, none, add(), 0),
            ("there", one, one, one, vec![], 0),
            ("there, list lost", one, none, one, vec![], 0),
            ("lost from the kernel", one, one, none, put_back(), 0),
            ("next hop altered", one, one, std::slice::from_ref(&elsewhere), put_back(), 0),
            ("mtu altered", one, one, std::slice::from_ref(&altered), put_back(), 0),
            ("protocol altered", one, one, std::slice::from_ref(&by_hand), put_back(), 0),
            (
                "moved by the cluster",
                std::slice::from_ref(&elsewhere),
                one,
                one,
                vec![Change::PutBack(elsewhere.clone())],
                0,
            ),
            ("foreign in its place", one, none, std::slice::from_ref(&elsewhere), vec![], 1),
            ("foreign that does the same job", one, none, std::slice::from_ref(&by_hand), vec![], 0),
            ("foreign with another metric", one, none, std::slice::from_ref(&other_metric), add(), 0),
            ("foreign in another table", one, none, std::slice::from_ref(&other_table), add(), 0),
            ("no longer wanted", none, one, one, vec![Change::Remove(ours.clone())], 0),
            ("no longer wanted and altered", none, one, std::slice::from_ref(&elsewhere), vec![], 0),
        ];
        for (what, desired, listed, actual, changes, blocked) in cases {
            let plan = plan(&by_dst(desired), &by_dst(listed), &[], actual);
            assert_eq!((plan.changes, plan.blocked.len()), (changes, blocked), "{what}");
        }
    }

    #[test]
    fn foreign_routes_that_nobody_wants_are_not_touched() {
        let foreign = [route("10.9.0.0/16", "10.0.0.1"), route("fd09::/64", "fd00::1")];
        assert_eq!(plan(&BTreeMap::new(), &BTreeMap::new(), &[], &foreign), Plan::default());
    }

    #[test]
    fn a_route_changes_hands_in_one_step() {
        let native = route("10.244.1.0/24", "10.0.0.11");
        let tunnel = Route { dev: 7, mtu: Some(1450), ..route("10.244.1.0/24", "10.244.0.5") };
        let none = BTreeMap::new();
        let taken = plan(
            &by_dst(std::slice::from_ref(&tunnel)),
            &none,
            std::slice::from_ref(&native),
            std::slice::from_ref(&native),
        );
        assert_eq!(taken, Plan { changes: vec![Change::PutBack(tunnel.clone())], blocked: BTreeMap::new() });
        // The one that had it finds it altered, and leaves it.
        assert_eq!(
            plan(&none, &by_dst(std::slice::from_ref(&native)), &[], std::slice::from_ref(&tunnel)),
            Plan::default()
        );
        // Two tunnels' routes may be the same: then nothing changes, and who loses it leaves it.
        let same = by_dst(std::slice::from_ref(&tunnel));
        let one = std::slice::from_ref(&tunnel);
        assert_eq!(plan(&same, &none, one, one), Plan::default());
        assert_eq!(plan(&none, &same, one, one), Plan::default());
        assert_eq!(plan(&none, &same, &[], one).changes, [Change::Remove(tunnel.clone())]);
    }

    #[test]
    fn ipv6_routes_have_the_metric_that_the_kernel_gives() {
        assert_eq!(route("fd00::/64", "fd01::1").metric, 1024);
    }
}
