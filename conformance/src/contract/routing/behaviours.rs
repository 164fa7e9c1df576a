//! One story per behaviour.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    routing::{Path, Peer, Routing, RoutingDesired, RoutingReport},
    values::Family,
};
use kinesin_netlink::Route;
use proptest::prelude::*;

use super::{
    damage::damages,
    harness::{Harness, Node, UPLINK, ip, net, peer},
    view::View,
};
use crate::{
    contract::property::{holds, lines},
    outcome::{Judged, Stop, ensure},
};

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
        clusters(node, 1, |states| match node.try_apply(routing.as_ref(), &states[0])? {
            Some(report) => complete(routing.as_ref(), &states[0], &report),
            None => Ok(()),
        })
    })
}

pub(super) fn routing_2(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        let routing = node.start()?;
        clusters(node, 1, |states| {
            let Some(first) = node.try_apply(routing.as_ref(), &states[0])? else { return Ok(()) };
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
                let (Some(after), Some(fresh)) = (after, &fresh) else { continue };
                ensure!(after == *fresh, "earlier states left a trace; {}", after.against(fresh));
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
    })?;
    // Whatever peers there are, there is an answer.
    harness.on_node(|node| {
        let routing = node.start()?;
        clusters(node, 1, |states| node.apply(routing.as_ref(), &states[0]).map(drop))
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

pub(super) fn routing_8(harness: &Harness) -> Judged {
    harness.on_node(|node| {
        // What is planned first, on a node with nothing on it, then from one state to another.
        let state = node.cluster(&[("w1", peer(1)), ("w2", peer(2))]);
        planned(node, node.start()?.as_ref(), &state)?;
        clusters(node, 2, |states| {
            let routing = node.start()?;
            if node.try_apply(routing.as_ref(), &states[0])?.is_none() {
                return Ok(());
            }
            planned(node, routing.as_ref(), &states[1])
        })
    })
}

fn planned(node: &Node<'_>, routing: &dyn Routing, state: &RoutingDesired) -> Judged {
    let (before, files) = (node.view()?, node.files()?);
    node.changes()?;
    let plan = node.plan(routing, state)?;
    let changes = node.changes()?;
    ensure!(changes.is_empty(), "plan made changes: {changes:?}");
    let after = node.view()?;
    ensure!(after == before, "plan changed the kernel; {}", after.against(&before));
    let now = node.files()?;
    ensure!(now == files, "plan left the files {now:?}, before there were {files:?}");
    let (Some(plan), Some(report)) = (plan, node.try_apply(routing, state)?) else { return Ok(()) };
    let ways = |paths: &[Path]| {
        let mut ways: Vec<_> = paths.iter().map(|path| (path.prefix, path.node, path.carrier)).collect();
        ways.sort();
        ways
    };
    let (planned, done) = (ways(&plan), ways(&report.paths));
    ensure!(planned == done, "the plan was {planned:?}, and apply of the same state reports {done:?}");
    Ok(())
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

pub(super) fn sorted(report: &RoutingReport) -> Vec<Path> {
    let mut paths = report.paths.clone();
    paths.sort();
    paths
}

/// What the kernel has after a sequence of states, all given to one instance or each to a new one; none if one failed.
fn history(node: &Node<'_>, states: &[RoutingDesired], restarts: bool) -> Result<Option<View>, Stop> {
    let mut routing = node.start()?;
    for state in states {
        if node.try_apply(routing.as_ref(), state)?.is_none() {
            return Ok(None);
        }
        if restarts {
            routing = node.start()?;
        }
    }
    node.view().map(Some)
}

fn untouched(node: &Node<'_>, others: &View, step: &str) -> Judged {
    let missing = others.without(&node.view()?);
    ensure!(missing.is_empty(), "{step} removed or altered what others had made: {missing}");
    Ok(())
}

/// Judges a property of any sequence of clusters.
fn clusters(node: &Node<'_>, length: usize, judge: impl Fn(&[RoutingDesired]) -> Judged) -> Judged {
    let show = |sequence: &Vec<Vec<Peer>>| {
        let states = sequence.iter().enumerate();
        states.map(|(number, peers)| format!("state {}:\n{}", number + 1, lines(peers))).collect::<Vec<_>>().join("\n")
    };
    holds(CLUSTERS, &prop::collection::vec(peers(), length), show, |sequence| {
        let named = |peers: &Vec<Peer>| {
            let names: Vec<String> = (1..=peers.len()).map(|number| format!("w{number}")).collect();
            let named = names.iter().map(String::as_str).zip(peers.iter().cloned());
            node.cluster(&named.collect::<Vec<_>>())
        };
        judge(&sequence.iter().map(named).collect::<Vec<_>>())
    })
}

/// Peers as a cluster has them, and as it should not: far away, without address, with another's pod CIDR.
fn peers() -> impl Strategy<Value = Vec<Peer>> {
    let number = 1_u8..6;
    let age = prop::option::of(1_i64..3);
    let peer = (number.clone(), number, 0_u8..10, age).prop_map(|(address, cidr, oddity, created_unix_seconds)| {
        let (addresses, pod_cidrs) = (peer(address).addresses, peer(cidr).pod_cidrs);
        let (addresses, pod_cidrs) = match oddity {
            0 => (vec![], pod_cidrs),
            1 => (addresses, vec![]),
            2 => (vec![ip("203.0.113.7"), ip("2001:db8::7")], pod_cidrs),
            3 => (of(&addresses, Family::V4), pod_cidrs),
            4 => (of(&addresses, Family::V6), pod_cidrs),
            5 => (addresses, pod_cidrs.into_iter().chain([net("0.0.0.0/0")]).collect()),
            _ => (addresses, pod_cidrs),
        };
        Peer { addresses, pod_cidrs, created_unix_seconds, ..Peer::default() }
    });
    prop::collection::vec(peer, 0..6)
}

fn of(addresses: &[IpAddr], family: Family) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|ip| Family::of(ip) == family).collect()
}
