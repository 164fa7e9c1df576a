//! The trait's behaviours on real kernels, in network namespaces of the test's own. Needs root.

use std::{collections::BTreeMap, future::Future, net::IpAddr, path::Path, sync::Arc, time::Instant};

use ipnet::IpNet;
use kinesin_core::{
    config::Section,
    registry::{BuildContext, Registry},
    routing::{LocalNode, Peer, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Families, Family},
};
use kinesin_native_routing as _;
use kinesin_netlink::{NetNs, Netlink, Route, RouteScope, VethSpec};
use tempfile::TempDir;

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A node with one uplink, on 192.168.10.0/24 and fd00:10::/64.
struct Node {
    netns: NetNs,
    state: TempDir,
}

impl Node {
    /// Runs `test` in the node's namespace.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send) {
        let node = Self { netns: NetNs::anonymous().expect("root"), state: tempfile::tempdir().expect("directory") };
        let (netns, state) = (&node.netns, node.state.path());
        netns
            .run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
                runtime.block_on(async move { test(World::new(state).await).await });
            })
            .expect("the test in the namespace");
    }
}

struct World {
    netlink: Netlink,
    uplink: u32,
    state: std::path::PathBuf,
}

impl World {
    async fn new(state: &Path) -> Self {
        let netlink = Netlink::new().expect("socket");
        let spec = VethSpec { name: "eth0", mac: None, peer_name: "wire", peer_mac: None, peer_netns: None, mtu: None };
        netlink.add_veth(&spec).await.expect("veth");
        let uplink = netlink.link("eth0").await.expect("there").index;
        for name in ["lo", "eth0", "wire"] {
            let index = netlink.link(name).await.expect("there").index;
            netlink.set_up(index).await.expect("up");
        }
        for address in ["192.168.10.100/16", "fd00:10::100/48"] {
            netlink.add_address(uplink, net(address)).await.expect("address");
        }
        Self { netlink, uplink, state: state.to_owned() }
    }

    fn backend_with(&self, direct: bool, skip: bool) -> Arc<dyn Routing> {
        let registry = Registry::collect().expect("one backend is linked");
        let context = BuildContext {
            node_name: "local".to_owned(),
            families: Families::DUAL,
            state_dir: self.state.clone(),
            bpffs: "/nonexistent".into(),
            enable_tcx: true,
            auto_direct_node_routes: direct,
            direct_routing_skip_unreachable: skip,
            underlay: kinesin_core::values::Underlay::Auto,
            section: Section::new("native", serde_json::Map::new()),
        };
        (registry.routing("native").expect("registered").build)(&context).expect("valid")
    }

    fn backend(&self) -> Arc<dyn Routing> {
        self.backend_with(true, false)
    }

    async fn routes(&self) -> Vec<Route> {
        let mut routes = self.netlink.routes().await.expect("list");
        // The kernel makes these whenever it gets round to it.
        let link_local = net("fe80::/10");
        routes.retain(|route| !link_local.contains(&route.dst));
        routes.sort();
        routes
    }

    /// Next hop of the one route to a network.
    async fn via(&self, dst: &str) -> Option<IpAddr> {
        let routes = self.routes().await;
        let mut found = routes.iter().filter(|route| route.dst == net(dst));
        let via = found.next().and_then(|route| route.via);
        assert!(found.next().is_none(), "one route to {dst}");
        via
    }

    fn route(&self, dst: &str, via: &str, protocol: u8) -> Route {
        let metric = if dst.contains(':') { 1024 } else { 0 };
        Route { via: Some(ip(via)), metric, ..Route::new(net(dst), self.uplink, protocol) }
    }
}

fn peer(addresses: &[&str], cidrs: &[&str]) -> Peer {
    Peer {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        pod_cidrs: cidrs.iter().map(|text| net(text)).collect(),
        ..Peer::default()
    }
}

fn desired(peers: &[(&str, Peer)]) -> RoutingDesired {
    RoutingDesired {
        local: LocalNode {
            name: "local".to_owned(),
            created_unix_seconds: None,
            families: Families::DUAL,
            addresses: vec![ip("192.168.10.100"), ip("fd00:10::100")],
            pod_cidrs: vec![net("10.244.0.0/24"), net("fd00:244::/64")],
            uplinks: vec!["eth0".to_owned()],
            host_device: "cilium_host".to_owned(),
            router: vec![],
            mtu_bytes: 1500,
        },
        peers: peers.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect(),
    }
}

fn w1() -> Peer {
    peer(&["192.168.10.101", "fd00:10::101"], &["10.244.1.0/24", "fd00:244:1::/64"])
}

fn w2() -> Peer {
    peer(&["192.168.10.102", "fd00:10::102"], &["10.244.2.0/24", "fd00:244:2::/64"])
}

/// ROUTING-1 of any report.
fn assert_complete(desired: &RoutingDesired, report: &RoutingReport) {
    for (name, peer) in &desired.peers {
        let reached = report.paths.iter().any(|path| peer.addresses.contains(&path.node));
        assert!(
            reached || report.unreachable.contains_key(name),
            "{name} is neither reached nor reported: {report:#?}"
        );
    }
}

async fn apply(backend: &dyn Routing, desired: &RoutingDesired) -> RoutingReport {
    let report = backend.apply(desired).await.expect("the node itself is fine");
    assert_complete(desired, &report);
    report
}

#[test]
fn as_root_the_way_to_a_narrower_node_is_as_wide_as_that_node() {
    Node::run(|world| async move {
        let backend = world.backend();
        for (said, noted) in [(Some(1400), Some(1400)), (Some(1500), None), (Some(1280), Some(1280)), (None, None)] {
            let state = desired(&[("w1", Peer { mtu_bytes: said, ..w1() }), ("w2", w2())]);
            let report = apply(backend.as_ref(), &state).await;
            for path in &report.paths {
                let is_narrow = path.node == ip("192.168.10.101") || path.node == ip("fd00:10::101");
                assert_eq!(path.mtu_bytes, noted.filter(|_| is_narrow), "{said:?}: {path:?}");
            }
            let routes = world.routes().await;
            for (dst, via) in [("10.244.1.0/24", "192.168.10.101"), ("fd00:244:1::/64", "fd00:10::101")] {
                let route = Route { mtu: noted, ..world.route(dst, via, 2) };
                assert!(routes.contains(&route), "{said:?}: {route:?} not in {routes:#?}");
            }
            assert_eq!(apply(world.backend().as_ref(), &state).await.changes, 0, "{said:?}");
        }
    });
}

#[test]
fn as_root_routing_1_and_2_each_peer_gets_a_route_once() {
    Node::run(|world| async move {
        let backend = world.backend();
        assert_eq!((backend.carrier(), backend.overhead_bytes(Family::V4)), (Carrier::Native, 0));
        let state = desired(&[("w1", w1()), ("w2", w2())]);
        let report = apply(backend.as_ref(), &state).await;
        assert_eq!((report.changes, report.paths.len(), report.unreachable.len()), (4, 4, 0));
        for path in &report.paths {
            assert_eq!(path.next_hop, Some(path.node), "a neighbour on the first uplink");
        }
        let routes = world.routes().await;
        for route in [
            world.route("10.244.1.0/24", "192.168.10.101", 2),
            world.route("fd00:244:1::/64", "fd00:10::101", 2),
            world.route("10.244.2.0/24", "192.168.10.102", 2),
        ] {
            assert!(routes.contains(&route), "{route:?} not in {routes:#?}");
        }
        // The same backend, and one of a later run of the agent.
        for backend in [backend, world.backend()] {
            assert_eq!(apply(backend.as_ref(), &state).await.changes, 0);
            assert_eq!(world.routes().await, routes);
        }
    });
}

#[test]
fn as_root_routing_3_what_left_the_state_is_removed_and_nothing_else() {
    Node::run(|world| async move {
        apply(world.backend().as_ref(), &desired(&[("w1", w1()), ("w2", w2())])).await;
        // A later run, in which w2 is gone and w1 has another pod CIDR and another address.
        let moved = peer(&["192.168.10.201", "fd00:10::101"], &["10.244.1.0/24", "10.244.9.0/24"]);
        let report = apply(world.backend().as_ref(), &desired(&[("w1", moved)])).await;
        assert_eq!(report.changes, 5, "{report:#?}");
        assert_eq!(world.via("10.244.1.0/24").await, Some(ip("192.168.10.201")));
        assert_eq!(world.via("10.244.9.0/24").await, Some(ip("192.168.10.201")));
        for dst in ["fd00:244:1::/64", "10.244.2.0/24", "fd00:244:2::/64"] {
            assert_eq!(world.via(dst).await, None, "{dst}");
        }
    });
}

#[test]
fn as_root_routing_4_missing_and_altered_routes_are_put_back() {
    Node::run(|world| async move {
        let backend = world.backend();
        let state = desired(&[("w1", w1()), ("w2", w2())]);
        apply(backend.as_ref(), &state).await;
        let before = world.routes().await;
        world.netlink.delete_route(&world.route("10.244.1.0/24", "192.168.10.101", 2)).await.expect("removed");
        world.netlink.replace_route(&world.route("10.244.2.0/24", "192.168.10.77", 4)).await.expect("altered");
        world.netlink.replace_route(&world.route("fd00:244:2::/64", "fd00:10::77", 4)).await.expect("altered");
        assert_ne!(world.routes().await, before);
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 3);
        assert_eq!(world.routes().await, before);
        // The device went down and came up: the kernel has dropped all of them.
        world.netlink.set_down(world.uplink).await.expect("down");
        let error = backend.apply(&state).await.expect_err("no uplink is up");
        assert!(matches!(&error, RoutingError::Uplink { device, .. } if device == "eth0"), "{error}");
        world.netlink.set_up(world.uplink).await.expect("up");
        world.netlink.add_address(world.uplink, net("fd00:10::100/48")).await.expect("address");
        apply(backend.as_ref(), &state).await;
        for dst in ["10.244.1.0/24", "10.244.2.0/24", "fd00:244:1::/64", "fd00:244:2::/64"] {
            assert!(world.via(dst).await.is_some(), "{dst}");
        }
    });
}

#[test]
fn as_root_routing_5_one_bad_peer_does_not_harm_the_others() {
    Node::run(|world| async move {
        let gateway = Route { via: Some(ip("192.168.10.1")), ..Route::new(net("0.0.0.0/0"), world.uplink, 4) };
        world.netlink.replace_route(&gateway).await.expect("default route");
        let state = desired(&[
            ("a-default", peer(&["192.168.10.111"], &["0.0.0.0/0", "::/0"])),
            ("b-ours", peer(&["192.168.10.112"], &["10.244.0.0/24"])),
            ("c-far", peer(&["203.0.113.7"], &["10.244.3.0/24"])),
            ("d-nowhere", peer(&["2001:db8::7"], &["fd00:244:4::/64"])),
            ("e-twin", peer(&["192.168.10.115"], &["10.244.5.0/24"])),
            ("f-twin", peer(&["192.168.10.116"], &["10.244.5.0/24"])),
            ("g-nodes", peer(&["192.168.10.117"], &["192.168.10.0/24"])),
            ("h-family", peer(&["192.168.10.118"], &["fd00:244:8::/64"])),
            ("i-self", peer(&["192.168.10.100"], &["10.244.10.0/24"])),
            ("j-empty", Peer::default()),
            ("w1", w1()),
        ]);
        let before = world.routes().await;
        let report = apply(world.backend().as_ref(), &state).await;
        assert_eq!((report.changes, report.paths.len(), report.unreachable.len()), (3, 3, 9), "{report:#?}");
        for (name, reason) in [
            ("a-default", "is the default route"),
            ("b-ours", "overlaps this node's pod CIDR"),
            ("c-far", "203.0.113.7 is behind the router 192.168.10.1"),
            ("d-nowhere", "no route leads to 2001:db8::7"),
            ("f-twin", "overlaps 10.244.5.0/24 of node e-twin"),
            ("g-nodes", "an address of node"),
            ("h-family", "has no IPv6 address"),
            ("i-self", "is this node's own"),
            ("j-empty", "has no pod CIDR yet"),
        ] {
            assert!(report.unreachable[name].contains(reason), "{name}: {}", report.unreachable[name]);
        }
        let added: Vec<_> = world.routes().await.into_iter().filter(|route| !before.contains(route)).collect();
        assert_eq!(added.len(), 3, "only w1's and e-twin's: {added:#?}");
    });
}

#[test]
fn as_root_skipped_peers_are_listed_and_have_no_route() {
    Node::run(|world| async move {
        let gateway = Route { via: Some(ip("192.168.10.1")), ..Route::new(net("0.0.0.0/0"), world.uplink, 4) };
        world.netlink.replace_route(&gateway).await.expect("default route");
        let state = desired(&[("far", peer(&["203.0.113.7"], &["10.244.3.0/24"])), ("w1", w1())]);
        let report = apply(world.backend_with(true, true).as_ref(), &state).await;
        assert!(report.unreachable["far"].contains("left to the network"), "{report:#?}");
        assert_eq!(world.via("10.244.3.0/24").await, None);
        assert_eq!(report.paths.len(), 2);
    });
}

#[test]
fn as_root_without_direct_routes_paths_force_no_next_hop() {
    Node::run(|world| async move {
        let state = desired(&[("w1", w1()), ("w2", w2())]);
        apply(world.backend().as_ref(), &state).await;
        // The key was switched off: what an earlier run made goes.
        let report = apply(world.backend_with(false, false).as_ref(), &state).await;
        assert_eq!((report.changes, report.paths.len()), (4, 4));
        assert!(report.paths.iter().all(|path| path.next_hop.is_none() && path.carrier == Carrier::Native));
        assert_eq!(world.via("10.244.1.0/24").await, None);
    });
}

#[test]
fn as_root_routing_6_routes_of_other_programs_are_never_touched() {
    Node::run(|world| async move {
        let on_link = Route { scope: RouteScope::Link, ..Route::new(net("10.99.0.0/16"), world.uplink, 2) };
        let foreign = [
            // In the way of w2, with the same protocol number as ours.
            world.route("10.244.2.0/24", "192.168.10.77", 2),
            world.route("fd00:244:2::/64", "fd00:10::77", 17),
            // Does for w1 what ours would do.
            world.route("10.244.1.0/24", "192.168.10.101", 4),
            // Nothing to do with any peer.
            world.route("10.98.0.0/16", "192.168.10.77", 2),
            world.route("fd98::/64", "fd00:10::77", 2),
            on_link,
        ];
        for route in &foreign {
            world.netlink.add_route(route).await.expect("nothing is there");
        }
        let state = desired(&[("w1", w1()), ("w2", w2())]);
        for state in [&state, &state, &desired(&[])] {
            let report = apply(world.backend().as_ref(), state).await;
            if !state.peers.is_empty() {
                assert!(report.unreachable["w2"].contains("another program's route"), "{report:#?}");
                assert_eq!(report.paths.len(), 2, "both of w1");
            }
            let routes = world.routes().await;
            for route in &foreign {
                assert!(routes.contains(route), "{route:?} not in {routes:#?}");
            }
        }
        world.backend().retire().await.expect("retired");
        let routes = world.routes().await;
        assert!(foreign.iter().all(|route| routes.contains(route)), "{routes:#?}");
    });
}

#[test]
fn as_root_routing_7_retire_removes_what_an_earlier_run_made() {
    Node::run(|world| async move {
        let before = world.routes().await;
        apply(world.backend().as_ref(), &desired(&[("w1", w1()), ("w2", w2())])).await;
        let later = world.backend();
        later.retire().await.expect("retired");
        assert_eq!(world.routes().await, before);
        assert_eq!(std::fs::read_dir(&world.state).expect("there").count(), 0, "no file is left");
        later.retire().await.expect("again");
        let report = apply(later.as_ref(), &desired(&[("w1", w1())])).await;
        assert_eq!(report.changes, 2, "it can be used again");
    });
}

#[test]
fn as_root_crash_between_list_and_kernel_heals() {
    Node::run(|world| async move {
        // The list names routes that the kernel never got, on a device that exists and on one that does not.
        let list = "10.244.2.0/24 via 192.168.10.102 dev eth0\n10.244.7.0/24 via 192.168.10.107 dev gone0\n";
        std::fs::write(world.state.join("native-routes"), list).expect("written");
        let report = apply(world.backend().as_ref(), &desired(&[("w1", w1()), ("w2", w2())])).await;
        assert_eq!((report.changes, report.paths.len()), (4, 4));
        // The list is lost: what is still wanted is taken over as it stands, and known again.
        std::fs::remove_file(world.state.join("native-routes")).expect("there");
        let report = apply(world.backend().as_ref(), &desired(&[("w1", w1()), ("w2", w2())])).await;
        assert_eq!(report.changes, 0);
        world.backend().retire().await.expect("retired");
        assert_eq!(world.via("10.244.1.0/24").await, None);
    });
}

#[test]
fn as_root_a_thousand_peers_are_fast_and_incremental() {
    Node::run(|world| async move {
        let peers: BTreeMap<String, Peer> = (0..1000_u32)
            .map(|number| {
                let (high, low) = (number / 250, number % 250);
                let addresses = [format!("192.168.{}.{}", 20 + high, low + 1), format!("fd00:10::{high:x}:{low:x}")];
                let cidrs = [format!("10.{}.{low}.0/24", 100 + high), format!("fd00:244:{high:x}:{low:x}::/64")];
                let peer = peer(&addresses.each_ref().map(String::as_str), &cidrs.each_ref().map(String::as_str));
                (format!("node{number}"), peer)
            })
            .collect();
        let mut state = desired(&[]);
        state.local.pod_cidrs = vec![net("10.99.0.0/24")];
        state.peers = peers;
        let backend = world.backend();
        let mut timed = Vec::new();
        let first = state.peers.keys().next().cloned().expect("a peer");
        for (what, peers, expected) in [("first", 1000, 2000), ("nothing to do", 1000, 0), ("one peer less", 999, 2)] {
            if peers == 999 {
                state.peers.remove(&first);
            }
            let start = Instant::now();
            let report = apply(backend.as_ref(), &state).await;
            let took = start.elapsed();
            assert_eq!(
                (report.changes, report.paths.len(), report.unreachable.len()),
                (expected, peers * 2, 0),
                "{what}"
            );
            timed.push((what, took));
        }
        let start = Instant::now();
        backend.retire().await.expect("retired");
        timed.push(("retire", start.elapsed()));
        for (what, took) in timed {
            eprintln!("1000 peers, dual stack, {what}: {took:?}");
            // Generous for a loaded machine.
            assert!(took.as_secs() < 10, "{what}: {took:?}");
        }
    });
}
