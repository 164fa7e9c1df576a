//! What a tunnel backend does to a kernel, in network namespaces of the test's own. Needs root.

use std::{collections::BTreeMap, future::Future, net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use kinesin_core::{
    config::Section,
    registry::{BuildContext, Registry},
    routing::{LocalNode, Peer, Routing, RoutingDesired, RoutingReport},
    values::{Carrier, Families, Family, Underlay},
};
use kinesin_encap_vxlan as _;
use kinesin_netlink::{NetNs, Netlink, Route, VethSpec};

const HOST: &str = "cilium_host";

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A node with one uplink and the chassis' device.
struct World {
    netlink: Netlink,
    state: PathBuf,
}

impl World {
    /// Runs `test` in a node's namespace.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F + Send) {
        let netns = NetNs::anonymous().expect("root");
        let state = tempfile::tempdir().expect("directory");
        let path = state.path().to_owned();
        let inside = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move { test(World::new(path).await).await });
        };
        netns.run(inside).expect("the test in the namespace");
    }

    async fn new(state: PathBuf) -> Self {
        let world = Self { netlink: Netlink::new().expect("socket"), state };
        let uplink = world.pair("eth0", "wire").await;
        for address in ["192.168.10.100/16", "fd00:10::100/48"] {
            world.netlink.add_address(uplink, net(address)).await.expect("address");
        }
        world.make_host(&["10.244.0.5/32", "fd00:244::5/128"]).await;
        world
    }

    async fn pair(&self, name: &str, peer_name: &str) -> u32 {
        let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
        self.netlink.add_veth(&spec).await.expect("veth");
        for name in ["lo", peer_name, name] {
            let index = self.netlink.link(name).await.expect("there").index;
            self.netlink.set_up(index).await.expect("up");
        }
        self.netlink.link(name).await.expect("there").index
    }

    async fn make_host(&self, router: &[&str]) {
        let host = self.pair(HOST, "cilium_net").await;
        for address in router {
            self.netlink.add_address(host, net(address)).await.expect("address");
        }
    }

    fn backend(&self, underlay: Underlay) -> Arc<dyn Routing> {
        let context = BuildContext {
            node_name: "local".to_owned(),
            families: Families::DUAL,
            state_dir: self.state.clone(),
            bpffs: "/nonexistent".into(),
            enable_tcx: true,
            auto_direct_node_routes: false,
            direct_routing_skip_unreachable: false,
            underlay,
            section: Section::new("vxlan", serde_json::Map::new()),
        };
        let registry = Registry::collect().expect("one backend is linked");
        (registry.routing("vxlan").expect("registered").build)(&context).expect("valid")
    }

    /// The routes that lead to other nodes' pods.
    async fn routes(&self) -> BTreeMap<IpNet, Route> {
        let host = self.netlink.find_link(HOST).await.expect("list").map(|link| link.index);
        let routes = self.netlink.routes().await.expect("list").into_iter();
        routes.filter(|route| Some(route.dev) == host && route.mtu.is_some()).map(|route| (route.dst, route)).collect()
    }
}

fn peer(addresses: &[&str], cidrs: &[&str]) -> Peer {
    Peer {
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        pod_cidrs: cidrs.iter().map(|text| net(text)).collect(),
        ..Peer::default()
    }
}

fn w1() -> Peer {
    peer(&["192.168.10.101", "fd00:10::101"], &["10.244.1.0/24", "fd00:244:1::/64"])
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
            host_device: HOST.to_owned(),
            router: vec![ip("10.244.0.5"), ip("fd00:244::5")],
            mtu_bytes: 1500,
        },
        peers: peers.iter().map(|(name, peer)| ((*name).to_owned(), peer.clone())).collect(),
    }
}

async fn apply(backend: &dyn Routing, desired: &RoutingDesired) -> RoutingReport {
    backend.apply(desired).await.expect("the node itself is fine")
}

#[test]
fn as_root_the_way_to_a_narrower_node_is_as_wide_as_that_node() {
    World::run(|world| async move {
        let backend = world.backend(Underlay::Auto);
        let mtus = async |mtu_bytes| {
            let state = desired(&[("w1", Peer { mtu_bytes, ..w1() })]);
            let report = apply(backend.as_ref(), &state).await;
            let paths: Vec<_> = report.paths.iter().map(|path| path.mtu_bytes).collect();
            let routes: Vec<_> = world.routes().await.values().filter_map(|route| route.mtu).collect();
            (paths, routes)
        };
        assert_eq!(mtus(Some(1400)).await, (vec![Some(1400); 2], vec![1350; 2]));
        // IPv6 pods keep their least MTU; as wide as this node, or wider, is nothing to note.
        assert_eq!(mtus(Some(1300)).await, (vec![Some(1300), Some(1330)], vec![1250, 1280]));
        for wide in [None, Some(1500), Some(9000)] {
            assert_eq!(mtus(wide).await, (vec![None; 2], vec![1450; 2]), "{wide:?}");
        }
    });
}

#[test]
fn as_root_routes_are_those_of_the_reference() {
    World::run(|world| async move {
        let backend = world.backend(Underlay::Auto);
        let overhead = Family::ALL.map(|family| backend.overhead_bytes(family));
        assert_eq!((backend.carrier(), overhead), (Carrier::Vxlan, [50, 70]));
        let report = apply(backend.as_ref(), &desired(&[("w1", w1())])).await;
        assert_eq!((report.changes, report.paths.len(), report.unreachable.len()), (2, 2, 0), "{report:#?}");
        assert!(report.paths.iter().all(|path| path.node == ip("192.168.10.101") && path.carrier == Carrier::Vxlan));
        let routes = world.routes().await;
        let dev = world.netlink.link(HOST).await.expect("there").index;
        // Reference 6.8: via the router's address, dev cilium_host, src the router's address, proto kernel, mtu.
        let v4 = Route {
            via: Some(ip("10.244.0.5")),
            src: Some(ip("10.244.0.5")),
            mtu: Some(1450),
            ..Route::new(net("10.244.1.0/24"), dev, 2)
        };
        let v6 = Route {
            src: Some(ip("fd00:244::5")),
            mtu: Some(1450),
            metric: 1024,
            ..Route::new(net("fd00:244:1::/64"), dev, 2)
        };
        assert_eq!(routes.into_values().collect::<Vec<_>>(), [v4, v6]);
        assert_eq!(apply(world.backend(Underlay::Auto).as_ref(), &desired(&[("w1", w1())])).await.changes, 0);
    });
}

#[test]
fn as_root_the_underlay_is_a_family_that_both_nodes_have() {
    World::run(|world| async move {
        let only_v6 = peer(&["fd00:10::102"], &["10.244.2.0/24"]);
        let state = desired(&[("w1", w1()), ("w2", only_v6)]);
        let nodes = |report: &RoutingReport| report.paths.iter().map(|path| path.node).collect::<Vec<_>>();

        let report = apply(world.backend(Underlay::Auto).as_ref(), &state).await;
        assert_eq!(nodes(&report), [ip("192.168.10.101"), ip("fd00:10::102"), ip("192.168.10.101")]);
        let mtu = |routes: &BTreeMap<IpNet, Route>, dst: &str| routes.get(&net(dst)).and_then(|route| route.mtu);
        let routes = world.routes().await;
        assert_eq!((mtu(&routes, "10.244.1.0/24"), mtu(&routes, "10.244.2.0/24")), (Some(1450), Some(1430)));

        let report = apply(world.backend(Underlay::Ipv6).as_ref(), &state).await;
        assert_eq!(nodes(&report), [ip("fd00:10::101"), ip("fd00:10::102"), ip("fd00:10::101")]);
        assert_eq!(mtu(&world.routes().await, "10.244.1.0/24"), Some(1430));

        let report = apply(world.backend(Underlay::Ipv4).as_ref(), &state).await;
        assert_eq!(nodes(&report), [ip("192.168.10.101"), ip("192.168.10.101")]);
        let reason = &report.unreachable["w2"];
        assert!(reason.contains("no IPv4 address") && reason.contains("underlay-protocol"), "{reason}");

        let mut ours = state.clone();
        ours.local.addresses.retain(IpAddr::is_ipv6);
        let report = apply(world.backend(Underlay::Ipv4).as_ref(), &ours).await;
        assert!(
            report.paths.is_empty() && report.unreachable["w1"].contains("this node has no address"),
            "{report:#?}"
        );
        assert!(world.routes().await.is_empty());
    });
}

#[test]
fn as_root_routes_follow_the_host_device_its_address_and_the_mtu() {
    World::run(|world| async move {
        let backend = world.backend(Underlay::Auto);
        let mut state = desired(&[("w1", w1())]);
        apply(backend.as_ref(), &state).await;
        // The router is about to move: the chassis has not put the new address there yet.
        state.local.router.insert(0, ip("10.244.0.9"));
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 0);
        let host = world.netlink.link(HOST).await.expect("there").index;
        world.netlink.add_address(host, net("10.244.0.9/32")).await.expect("address");
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 1);
        let sources = |routes: BTreeMap<IpNet, Route>| routes.into_values().map(|route| route.src).collect::<Vec<_>>();
        assert_eq!(sources(world.routes().await), [Some(ip("10.244.0.9")), Some(ip("fd00:244::5"))]);
        world.netlink.delete_address(host, net("10.244.0.5/32")).await.expect("removed");
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 0);

        state.local.mtu_bytes = 1400;
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 2);
        assert!(world.routes().await.values().all(|route| route.mtu == Some(1350)));

        // Paths do not wait for the device, which only the node's own stack needs.
        world.netlink.delete_link_by_name(HOST).await.expect("removed");
        let report = apply(backend.as_ref(), &state).await;
        assert_eq!((report.paths.len(), report.changes, report.unreachable.len()), (2, 0, 0), "{report:#?}");
        world.make_host(&["10.244.0.9/32", "fd00:244::5/128"]).await;
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 2);
    });
}

#[test]
fn as_root_one_change_among_a_thousand_nodes_costs_one_change() {
    World::run(|world| async move {
        let backend = world.backend(Underlay::Auto);
        let node = |number: usize, cidr: usize| {
            let (high, low) = (number / 250, number % 250 + 1);
            peer(
                &[&format!("192.168.{}.{low}", 20 + high), &format!("fd00:10::{high:x}:{low:x}")],
                &[&format!("10.{}.{}.0/24", 100 + cidr / 250, cidr % 250), &format!("fd00:1:{cidr:x}::/64")],
            )
        };
        let mut state = desired(&[]);
        state.peers.extend((0..1_000).map(|number| (format!("n{number}"), node(number, number))));
        let report = apply(backend.as_ref(), &state).await;
        assert_eq!((report.changes, report.paths.len()), (2_000, 2_000), "{:?}", report.unreachable);
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 0);

        // One leaves, one comes, one moves to another address, one returns with the same name and another pod CIDR.
        state.peers.remove("n500");
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 2);
        state.peers.insert("new".to_owned(), node(1_001, 1_001));
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 2);
        // The address of a node is the path's and no route's.
        state.peers.insert("n7".to_owned(), Peer { addresses: vec![ip("192.168.99.7")], ..node(7, 7) });
        let report = apply(backend.as_ref(), &state).await;
        assert_eq!(report.changes, 0);
        assert_eq!(report.paths.iter().filter(|path| path.node == ip("192.168.99.7")).count(), 2);
        state.peers.insert("n8".to_owned(), node(8, 1_002));
        assert_eq!(apply(backend.as_ref(), &state).await.changes, 4);

        let wanted: Vec<IpNet> = state.peers.values().flat_map(|peer| peer.pod_cidrs.clone()).collect();
        let routes = world.routes().await;
        assert!(
            routes.len() == wanted.len() && wanted.iter().all(|cidr| routes.contains_key(cidr)),
            "nothing is stale"
        );
        // A later run of the agent knows all of them.
        assert_eq!(apply(world.backend(Underlay::Auto).as_ref(), &desired(&[])).await.changes, 2_000);
        assert!(world.routes().await.is_empty());
    });
}
