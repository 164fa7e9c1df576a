//! One story per behaviour.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    routing::{Path, Peer, Routing, RoutingDesired, RoutingReport},
    values::Family,
};
use kinesin_netlink::{Route, TABLE_MAIN};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestError, TestRunner},
};

use super::{
    harness::{Harness, Node, UPLINK, ip, net, peer},
    view::View,
};
use crate::outcome::{Judged, Stop, ensure};

/// Random clusters per behaviour that states a property. A failing one is shortened before it is shown.
const CLUSTERS: u32 = 24;

pub(super) fn routing_1(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let state = node.cluster(&[("w1", peer(1)), ("w2", peer(2))]);
        let routing = node.start()?;
        let report = node.apply(routing.as_ref(), &state)?;
        ensure!(report.unreachable.is_empty(), "two ordinary neighbours are unreachable: {:?}", report.unreachable);
        complete(routing.as_ref(), &state, &report)?;
        ensure!(report.paths.len() == 2 * node.families.iter().count(), "a pod CIDR has no path: {:?}", report.paths);
        clusters(node, 1, |states| {
            let report = node.apply(routing.as_ref(), &states[0])?;
            complete(routing.as_ref(), &states[0], &report)
        })
    })
}

pub(super) fn routing_2(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let routing = node.start()?;
        clusters(node, 1, |states| {
            let first = node.apply(routing.as_ref(), &states[0])?;
            let before = node.view()?;
            node.changes()?;
            // The same instance, and one of a later run of the agent.
            for (who, routing) in [("it", routing.clone()), ("its successor", node.start()?)] {
                let second = node.apply(routing.as_ref(), &states[0])?;
                let changes = node.changes()?;
                ensure!(changes.is_empty(), "given the same state, {who} made changes: {changes:?}");
                ensure!(second.changes == 0, "given the same state, {who} reports {} changes", second.changes);
                let after = node.view()?;
                ensure!(after == before, "given the same state, {who} changed the kernel; {}", after.against(&before));
                let same = (sorted(&first), &first.unreachable) == (sorted(&second), &second.unreachable);
                ensure!(same, "given the same state, {who} reports {second:?} after {first:?}");
            }
            Ok(())
        })
    })
}

pub(super) fn routing_3(harness: &Harness) -> Judged {
    // Whatever was there before, the last state alone decides what the kernel has.
    harness.on_node(|node| {
        clusters(node, 3, |states| {
            let fresh = harness.on_node(|node| history(node, &states[states.len() - 1..], false))?;
            for restarts in [false, true] {
                let after = harness.on_node(|node| history(node, states, restarts))?;
                ensure!(after == fresh, "earlier states left a trace; {}", after.against(&fresh));
            }
            Ok(())
        })
    })
}

pub(super) fn routing_4(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let bare = node.view()?;
        let state = node.cluster(&[("w1", peer(1)), ("w2", peer(2))]);
        let routing = node.start()?;
        node.apply(routing.as_ref(), &state)?;
        let whole = node.view()?;
        for damage in damages(&whole.without(&bare)) {
            for successor in [false, true] {
                damage.inflict(node)?;
                ensure!(node.view()? != whole, "the suite could not {damage:?}");
                let routing = if successor { node.start()? } else { routing.clone() };
                node.apply(routing.as_ref(), &state)?;
                let healed = node.view()?;
                ensure!(healed == whole, "not healed after {damage:?}; {}", healed.against(&whole));
            }
        }
        Ok(())
    })
}

pub(super) fn routing_5(harness: &Harness) -> Judged {
    let good = || [("w1", peer(1)), ("w2", peer(2))];
    let bad = [
        ("a-homeless", Peer { addresses: vec![], ..peer(11) }),
        ("b-ourselves", Peer { addresses: vec![ip("192.168.10.100"), ip("fd00:10::100")], ..peer(12) }),
        ("c-our-pods", Peer { pod_cidrs: vec![net("10.244.0.0/24"), net("fd00:244::/64")], ..peer(13) }),
        ("d-everything", Peer { pod_cidrs: vec![net("0.0.0.0/0"), net("::/0")], ..peer(14) }),
    ];
    let (alone, expected) = harness.on_node(|node| {
        let report = node.apply(node.start()?.as_ref(), &node.cluster(&good()))?;
        Ok((node.view()?, sorted(&report)))
    })?;
    harness.on_node(|node| {
        let all: Vec<(&str, Peer)> = bad.iter().cloned().chain(good()).collect();
        let report = node.apply(node.start()?.as_ref(), &node.cluster(&all))?;
        ensure!(sorted(&report) == expected, "with bad peers the paths are {:?}, without {expected:?}", report.paths);
        for (name, _) in &bad {
            let reason = report.unreachable.get(*name).is_some_and(|reason| !reason.is_empty());
            ensure!(reason, "{name} cannot be routed, and no reason is told: {:?}", report.unreachable);
        }
        let view = node.view()?;
        ensure!(view == alone, "bad peers left a trace; {}", view.against(&alone));
        Ok(())
    })
}

pub(super) fn routing_6(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let uplink = node.kernel(node.netlink.link(UPLINK))?.index;
        let via = |dst: &str, hop: &str, protocol: u8| {
            let metric = if dst.contains(':') { 1024 } else { 0 };
            Route { via: Some(ip(hop)), metric, ..Route::new(net(dst), uplink, protocol) }
        };
        let foreign = [
            // In the way of w2: made by the kernel, by hand, and by a program with a number of its own.
            via("10.244.2.0/24", "192.168.10.77", 2),
            via("fd00:244:2::/64", "fd00:10::77", 4),
            // Nothing to do with any peer.
            via("10.98.0.0/16", "192.168.10.77", 4),
            via("fd98::/64", "fd00:10::77", 17),
            via("0.0.0.0/0", "192.168.10.77", 3),
        ];
        for route in &foreign {
            node.kernel(node.netlink.add_route(route))?;
        }
        node.kernel(node.netlink.ensure_bridge("foreign0"))?;
        let others = node.view()?;
        let full = node.cluster(&[("w1", peer(1)), ("w2", peer(2))]);
        let empty = node.cluster(&[]);
        for (step, state) in [("apply", &full), ("a second apply", &full), ("apply of no peers", &empty)] {
            let report = node.apply(node.start()?.as_ref(), state)?;
            complete(node.start()?.as_ref(), state, &report)?;
            untouched(node, &others, step)?;
            let reached = report.paths.iter().any(|path| peer(1).addresses.contains(&path.node));
            ensure!(reached || state.peers.is_empty(), "w1 is not reached, though nothing is in its way: {report:?}");
        }
        node.retire(node.start()?.as_ref())?;
        untouched(node, &others, "retire")
    })
}

pub(super) fn routing_7(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let bare = node.view()?;
        let state = node.cluster(&[("w1", peer(1)), ("w2", peer(2))]);
        for (who, successor) in [("retire", false), ("retire of a later run", true)] {
            let routing = node.start()?;
            node.apply(routing.as_ref(), &state)?;
            let routing = if successor { node.start()? } else { routing };
            for time in ["the first time", "the second time"] {
                node.retire(routing.as_ref())?;
                let left = node.view()?;
                ensure!(left == bare, "{who}, {time}, left a trace; {}", left.against(&bare));
                let files = node.files()?;
                ensure!(files.is_empty(), "{who}, {time}, left the files {files:?}");
            }
        }
        Ok(())
    })
}

/// ROUTING-1 of any report.
fn complete(routing: &dyn Routing, state: &RoutingDesired, report: &RoutingReport) -> Judged {
    for (name, peer) in &state.peers {
        let carried =
            |cidr: &IpNet| report.paths.iter().any(|path| path.prefix == *cidr && peer.addresses.contains(&path.node));
        let reason = report.unreachable.get(name).is_some_and(|reason| !reason.is_empty());
        let all = !peer.pod_cidrs.is_empty() && peer.pod_cidrs.iter().all(carried);
        ensure!(all || reason, "{name} ({peer:?}) has no path for each of its pod CIDRs and no reason: {report:?}");
    }
    let mut seen = BTreeMap::new();
    for path in &report.paths {
        let known =
            state.peers.values().any(|p| p.addresses.contains(&path.node) && p.pod_cidrs.contains(&path.prefix));
        ensure!(known, "{path:?} leads to no peer's pod CIDR");
        ensure!(path.carrier == routing.carrier(), "{path:?} is not carried by {:?}", routing.carrier());
        ensure!(seen.insert(path.prefix, path.node).is_none(), "{} has two paths", path.prefix);
    }
    Ok(())
}

fn sorted(report: &RoutingReport) -> Vec<Path> {
    let mut paths = report.paths.clone();
    paths.sort();
    paths
}

/// What the kernel has after a sequence of states, all given to one instance or each to a new one.
fn history(node: &Node<'_>, states: &[RoutingDesired], restarts: bool) -> Result<View, Stop> {
    let mut routing = node.start()?;
    for state in states {
        node.apply(routing.as_ref(), state)?;
        if restarts {
            routing = node.start()?;
        }
    }
    node.view()
}

fn untouched(node: &Node<'_>, others: &View, step: &str) -> Judged {
    let missing = others.without(&node.view()?);
    ensure!(missing.is_empty(), "{step} removed or altered what others had made: {missing}");
    Ok(())
}

/// Harm to one thing that the implementation has made.
#[derive(Debug)]
enum Damage {
    Remove(String, Route),
    Misdirect(String, Route),
    TakeAddress(String, IpNet),
    SetDown(String),
    RemoveDevice(String),
}

fn damages(made: &View) -> Vec<Damage> {
    let mut damages = Vec::new();
    for (device, route) in &made.routes {
        damages.push(Damage::Remove(device.clone(), route.clone()));
        if route.via.is_some() && route.table == TABLE_MAIN {
            damages.push(Damage::Misdirect(device.clone(), route.clone()));
        }
    }
    damages.extend(made.addresses.iter().map(|(device, address)| Damage::TakeAddress(device.clone(), *address)));
    for link in &made.links {
        if link.up {
            damages.push(Damage::SetDown(link.name.clone()));
        }
        damages.push(Damage::RemoveDevice(link.name.clone()));
    }
    damages
}

impl Damage {
    fn inflict(&self, node: &Node<'_>) -> Judged {
        let device = match self {
            Self::Remove(device, _) | Self::Misdirect(device, _) | Self::TakeAddress(device, _) => device,
            Self::SetDown(device) | Self::RemoveDevice(device) => device,
        };
        let dev = node.kernel(node.netlink.link(device))?.index;
        match self {
            Self::Remove(_, route) => node.kernel(node.netlink.delete_route(&Route { dev, ..route.clone() })),
            Self::Misdirect(_, route) => {
                let hop = if route.dst.addr().is_ipv4() { "192.168.10.77" } else { "fd00:10::77" };
                node.kernel(node.netlink.replace_route(&Route { dev, via: Some(ip(hop)), ..route.clone() }))
            }
            Self::TakeAddress(_, address) => node.kernel(node.netlink.delete_address(dev, *address)),
            Self::SetDown(_) => node.kernel(node.netlink.set_down(dev)),
            Self::RemoveDevice(_) => node.kernel(node.netlink.delete_link(dev)),
        }
    }
}

/// Judges a property of any sequence of clusters.
fn clusters(node: &Node<'_>, length: usize, judge: impl Fn(&[RoutingDesired]) -> Judged) -> Judged {
    let config = Config { cases: CLUSTERS, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(peers(), length), |sequence| {
        let states: Vec<RoutingDesired> = sequence
            .into_iter()
            .map(|peers| {
                let named: Vec<(String, Peer)> =
                    peers.into_iter().enumerate().map(|(number, peer)| (format!("w{number}"), peer)).collect();
                let named: Vec<(&str, Peer)> = named.iter().map(|(name, peer)| (name.as_str(), peer.clone())).collect();
                node.cluster(&named)
            })
            .collect();
        judge(&states).map_err(|stop| match stop {
            Stop::Broken(reason) => TestCaseError::fail(reason),
            Stop::Missing { reason, .. } => TestCaseError::fail(reason),
        })
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, sequence)) => Err(Stop::broken(format!("{reason}\nwith the peers {sequence:#?}"))),
        Err(TestError::Abort(reason)) => Err(Stop::broken(format!("the suite gave up: {reason}"))),
    }
}

/// Peers as a cluster has them, and as it should not: far away, without address, with another's pod CIDR.
fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let number = 1_u8..6;
    let peer = (number.clone(), number, 0_u8..10).prop_map(|(address, cidr, oddity)| {
        let (addresses, pod_cidrs) = (peer(address).addresses, peer(cidr).pod_cidrs);
        match oddity {
            0 => Peer { addresses: vec![], pod_cidrs },
            1 => Peer { addresses, pod_cidrs: vec![] },
            2 => Peer { addresses: vec![ip("203.0.113.7"), ip("2001:db8::7")], pod_cidrs },
            3 => Peer { addresses: of(&addresses, Family::V4), pod_cidrs },
            4 => Peer { addresses: of(&addresses, Family::V6), pod_cidrs },
            5 => Peer { addresses, pod_cidrs: pod_cidrs.into_iter().chain([net("0.0.0.0/0")]).collect() },
            _ => Peer { addresses, pod_cidrs },
        }
    });
    prop::collection::vec(peer, 0..6)
}

fn of(addresses: &[IpAddr], family: Family) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|ip| Family::of(ip) == family).collect()
}
