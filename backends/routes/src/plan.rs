//! What has to change in the kernel; pure.

use ipnet::IpNet;
use kinesin_netlink::Route;

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

/// What is to be done about one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: it is as it should be, or somebody else's now.
    Nothing,
    /// This.
    Do(Change),
    /// Another program's route stands in the way.
    Blocked(Route),
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

/// Compares the routes to one destination: the one that is desired, the one that an earlier `apply` made (`listed`), those
/// that other backends of this node made, and those that the kernel's main table has.
///
/// - A listed route that is no longer desired goes, unless it has been altered, or another backend has listed it as it
///   stands: then it is somebody else's now.
/// - A listed route that is missing or altered is put back.
/// - What another backend of this node made is replaced without a gap: a peer changes its carrier.
/// - Whatever else holds the place of a desired route stays; the destination is blocked, unless that route does the
///   same job.
pub(crate) fn plan(desired: Option<&Route>, listed: Option<&Route>, others: &[Route], actual: &[&Route]) -> Step {
    let Some(route) = desired else {
        return match listed {
            Some(ours) if actual.contains(&ours) && !others.contains(ours) => Step::Do(Change::Remove(ours.clone())),
            _ => Step::Nothing,
        };
    };
    if actual.contains(&route) {
        return Step::Nothing;
    }
    match actual.iter().find(|found| found.metric == route.metric) {
        _ if listed.is_some() => Step::Do(Change::PutBack(route.clone())),
        None => Step::Do(Change::Add(route.clone())),
        Some(other) if others.contains(other) => Step::Do(Change::PutBack(route.clone())),
        Some(other) if (other.via, other.dev) == (route.via, route.dev) => Step::Nothing,
        Some(other) => Step::Blocked((*other).clone()),
    }
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

    #[test]
    fn each_state_of_one_route_has_its_step() {
        let ours = &route("10.244.1.0/24", "10.0.0.11");
        let elsewhere = &route("10.244.1.0/24", "10.0.0.99");
        let by_hand = &Route { protocol: 4, ..ours.clone() };
        let other_metric = &Route { metric: 100, ..elsewhere.clone() };
        let altered = &Route { mtu: Some(1280), ..ours.clone() };
        let put_back = |route: &Route| Step::Do(Change::PutBack(route.clone()));
        let (add, remove) = (Step::Do(Change::Add(ours.clone())), Step::Do(Change::Remove(ours.clone())));
        type Case<'a> = (&'a str, Option<&'a Route>, Option<&'a Route>, &'a [&'a Route], Step);
        let cases: [Case<'_>; 14] = [
            ("new", Some(ours), None, &[], add.clone()),
            ("there", Some(ours), Some(ours), &[ours], Step::Nothing),
            ("there, list lost", Some(ours), None, &[ours], Step::Nothing),
            ("lost from the kernel", Some(ours), Some(ours), &[], put_back(ours)),
            ("next hop altered", Some(ours), Some(ours), &[elsewhere], put_back(ours)),
            ("mtu altered", Some(ours), Some(ours), &[altered], put_back(ours)),
            ("protocol altered", Some(ours), Some(ours), &[by_hand], put_back(ours)),
            ("moved by the cluster", Some(elsewhere), Some(ours), &[ours], put_back(elsewhere)),
            ("foreign in its place", Some(ours), None, &[elsewhere], Step::Blocked(elsewhere.clone())),
            ("foreign that does the same job", Some(ours), None, &[by_hand], Step::Nothing),
            ("foreign with another metric", Some(ours), None, &[other_metric], add),
            ("no longer wanted", None, Some(ours), &[ours], remove),
            ("no longer wanted and altered", None, Some(ours), &[elsewhere], Step::Nothing),
            ("foreign, and wanted by nobody", None, None, &[elsewhere], Step::Nothing),
        ];
        for (what, desired, listed, actual, step) in cases {
            assert_eq!(plan(desired, listed, &[], actual), step, "{what}");
        }
    }

    #[test]
    fn a_route_changes_hands_in_one_step() {
        let native = route("10.244.1.0/24", "10.0.0.11");
        let tunnel = Route { dev: 7, mtu: Some(1450), ..route("10.244.1.0/24", "10.244.0.5") };
        let taken = plan(Some(&tunnel), None, std::slice::from_ref(&native), &[&native]);
        assert_eq!(taken, Step::Do(Change::PutBack(tunnel.clone())));
        // The one that had it finds it altered, and leaves it.
        assert_eq!(plan(None, Some(&native), &[], &[&tunnel]), Step::Nothing);
        // Two tunnels' routes may be the same: then nothing changes, and who loses it leaves it.
        let one = std::slice::from_ref(&tunnel);
        assert_eq!(plan(Some(&tunnel), None, one, &[&tunnel]), Step::Nothing);
        assert_eq!(plan(None, Some(&tunnel), one, &[&tunnel]), Step::Nothing);
        assert_eq!(plan(None, Some(&tunnel), &[], &[&tunnel]), Step::Do(Change::Remove(tunnel.clone())));
    }

    #[test]
    fn ipv6_routes_have_the_metric_that_the_kernel_gives() {
        assert_eq!(route("fd00::/64", "fd01::1").metric, 1024);
    }
}
