//! Routes that change hands between two backends of one node, and what a change costs, in network namespaces of the test's
//! own. Needs root.

use std::{
    collections::BTreeSet,
    future::Future,
    net::IpAddr,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::{
    routing::{LocalNode, Path, Peer, Routing as _, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Families, Family},
};
use kinesin_netlink::{MirrorSpec, NetNs, Netlink, Route, VethSpec};
use kinesin_routes::{Kernel, Outcome, Pathfinder, RouteKeeping, Way, bare_route};

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn desired(carrier: Carrier) -> RoutingDesired {
    let peer = Peer {
        addresses: vec![ip("192.168.10.101")],
        pod_cidrs: vec![net("10.244.1.0/24"), net("fd00:244:1::/64")],
        carrier: Some(carrier),
        ..Peer::default()
    };
    RoutingDesired {
        local: LocalNode {
            name: "local".to_owned(),
            created_unix_seconds: None,
            families: Families::DUAL,
            addresses: vec![ip("192.168.10.100")],
            pod_cidrs: Vec::new(),
            uplinks: vec!["eth0".to_owned()],
            host_device: "cilium_host".to_owned(),
            router: Vec::new(),
            mtu_bytes: 1500,
        },
        peers: [("w1".to_owned(), peer)].into(),
    }
}

/// Sends everything to a device.
#[derive(Debug)]
struct ToDevice {
    carrier: Carrier,
    device: &'static str,
}

impl Pathfinder for ToDevice {
    fn carrier(&self) -> Carrier {
        self.carrier
    }

    fn overhead_bytes(&self, _: Family) -> u16 {
        0
    }

    fn find(
        &self,
        kernel: &Kernel,
        _: &RoutingDesired,
        pods: &[(IpNet, &str, &Peer)],
        outcome: &mut Outcome,
    ) -> Result<(), RoutingError> {
        let dev = kernel.device(self.device).expect("there").index;
        for (cidr, name, peer) in pods {
            let path =
                Path { prefix: *cidr, node: peer.addresses[0], carrier: self.carrier, next_hop: None, mtu_bytes: None };
            let mtu = (self.carrier != Carrier::Native).then_some(1450);
            outcome.take(name, *cidr, Ok(Way { path, route: Some(Route { mtu, ..bare_route(*cidr, dev) }) }));
        }
        Ok(())
    }
}

fn keeping(directory: &FilePath, carrier: Carrier, device: &'static str, name: &str) -> RouteKeeping<ToDevice> {
    RouteKeeping::new(ToDevice { carrier, device }, directory, name)
}

async fn apply(routing: &RouteKeeping<ToDevice>, state: &RoutingDesired) -> RoutingReport {
    routing.apply(state).await.expect("done")
}

/// Runs a test in the namespace of a node with an uplink and a host device, whose numbers it gets.
fn on_node<F: Future<Output = ()>>(test: impl FnOnce(Netlink, PathBuf, [u32; 2]) -> F + Send) {
    let netns = NetNs::anonymous().expect("root");
    let state = tempfile::tempdir().expect("directory");
    let directory = state.path().to_owned();
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async move {
            let netlink = Netlink::new().expect("socket");
            let mut devices = [0; 2];
            for (index, (name, peer_name)) in [("eth0", "wire"), ("cilium_host", "cilium_net")].into_iter().enumerate()
            {
                let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
                netlink.add_veth(&spec).await.expect("veth");
                for name in [name, peer_name] {
                    netlink.set_up(netlink.link(name).await.expect("there").index).await.expect("up");
                }
                devices[index] = netlink.link(name).await.expect("there").index;
            }
            test(netlink, directory, devices).await;
        });
    };
    netns.run(inside).expect("the test in the namespace");
}

/// Devices of the routes to the peer's pods.
async fn leads_to(netlink: &Netlink) -> Vec<u32> {
    let routes = netlink.routes().await.expect("list").into_iter();
    let to = ["10.244.1.0/24", "fd00:244:1::/64"].map(net);
    routes.filter(|route| to.contains(&route.dst)).map(|route| route.dev).collect()
}

#[test]
fn as_root_a_peer_changes_its_carrier_without_a_gap_and_nothing_is_left() {
    on_node(async |netlink, directory, devices| {
        let native = keeping(&directory, Carrier::Native, "eth0", "native");
        let vxlan = keeping(&directory, Carrier::Vxlan, "cilium_host", "vxlan");
        assert_eq!(apply(&native, &desired(Carrier::Native)).await.changes, 2);
        assert_eq!(apply(&vxlan, &desired(Carrier::Native)).await, RoutingReport::default());
        assert_eq!(leads_to(&netlink).await, [devices[0]; 2]);

        // Who gains goes first; who loses finds that it is another's now.
        let gained = apply(&vxlan, &desired(Carrier::Vxlan)).await;
        assert_eq!((gained.changes, gained.paths.len(), gained.unreachable.len()), (2, 2, 0));
        assert_eq!(leads_to(&netlink).await, [devices[1]; 2], "replaced, one each");
        assert_eq!(apply(&native, &desired(Carrier::Vxlan)).await, RoutingReport::default());
        native.retire().await.expect("retired");
        assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);
        assert_eq!(apply(&vxlan, &desired(Carrier::Vxlan)).await.changes, 0);

        // Between tunnels the routes may be the same, and stay.
        let geneve = keeping(&directory, Carrier::Geneve, "cilium_host", "geneve");
        let gained = apply(&geneve, &desired(Carrier::Geneve)).await;
        assert_eq!((gained.changes, gained.paths.len()), (0, 2));
        vxlan.retire().await.expect("retired");
        assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);
        assert_eq!(apply(&vxlan, &desired(Carrier::Vxlan)).await.changes, 0);
        geneve.retire().await.expect("retired");
        assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);

        // And back.
        assert_eq!(apply(&native, &desired(Carrier::Native)).await.changes, 2);
        vxlan.retire().await.expect("retired");
        assert_eq!(leads_to(&netlink).await, [devices[0]; 2]);

        // A carrier that is only given up takes its routes with it.
        native.retire().await.expect("retired");
        assert!(leads_to(&netlink).await.is_empty());
        assert_eq!(std::fs::read_dir(&directory).expect("there").count(), 0, "no list is left");
    });
}

/// Peers by their numbers, with a pod CIDR of each family.
fn crowd(numbers: impl Iterator<Item = u8>) -> RoutingDesired {
    let peer = |number: u8| Peer {
        addresses: vec![[192, 168, 10, number].into()],
        pod_cidrs: vec![net(&format!("10.245.{number}.0/24")), net(&format!("fd00:245:{number}::/64"))],
        ..Peer::default()
    };
    let peers = numbers.map(|number| (format!("n{number}"), peer(number))).collect();
    RoutingDesired { peers, ..desired(Carrier::Native) }
}

/// What is wanted, and nothing else that is like it.
async fn assert_exact(netlink: &Netlink, device: u32, state: &RoutingDesired, what: &str) {
    let wanted: BTreeSet<Route> =
        state.peers.values().flat_map(|peer| &peer.pod_cidrs).map(|cidr| bare_route(*cidr, device)).collect();
    let pods = [net("10.245.0.0/16"), net("fd00:245::/32")];
    let routes = netlink.routes().await.expect("list").into_iter();
    let found: BTreeSet<Route> = routes.filter(|route| pods.iter().any(|all| all.contains(&route.dst))).collect();
    assert_eq!(found, wanted, "{what}");
}

#[test]
fn as_root_a_change_lists_no_routes_and_what_others_do_is_put_back() {
    on_node(async |netlink, directory, [eth0, host]| {
        let routing = keeping(&directory, Carrier::Native, "eth0", "native");
        let mut state = crowd(1..101);
        assert_eq!(apply(&routing, &state).await.changes, 200);
        assert_eq!(routing.readings().await, 1);

        // One comes, one goes, one moves; then nothing happens.
        let of = |number: u8| crowd(number..number + 1).peers.into_iter().next().expect("one");
        state.peers.extend([of(200)]);
        state.peers.remove("n7");
        state.peers.insert("n8".to_owned(), of(201).1);
        for changes in [2 + 2 + 4, 0, 0] {
            let report = apply(&routing, &state).await;
            assert_eq!((report.changes, report.paths.len(), report.unreachable.len()), (changes, 200, 0));
            assert_exact(&netlink, eth0, &state, "after a change of peers").await;
        }
        assert_eq!(routing.readings().await, 1, "all routes were listed for a change");

        // Another program removes one, alters two, and is in the way of a node that comes.
        let ours = |dst: &str| bare_route(net(dst), eth0);
        netlink.delete_route(&ours("10.245.1.0/24")).await.expect("removed");
        for dst in ["10.245.2.0/24", "fd00:245:2::/64"] {
            netlink.replace_route(&Route { dev: host, protocol: 4, ..ours(dst) }).await.expect("altered");
        }
        let blocking = Route { dev: host, protocol: 4, ..ours("10.245.202.0/24") };
        netlink.add_route(&blocking).await.expect("added");
        state.peers.extend([of(202)]);
        let report = apply(&routing, &state).await;
        assert_eq!((report.changes, report.paths.len()), (3 + 1, 201));
        assert!(report.unreachable["n202"].contains("another program's route"), "{report:?}");
        assert_eq!(apply(&routing, &state).await.unreachable, report.unreachable);
        netlink.delete_route(&blocking).await.expect("removed");
        let report = apply(&routing, &state).await;
        assert_eq!((report.changes, report.paths.len(), report.unreachable.len()), (1, 202, 0));
        assert_exact(&netlink, eth0, &state, "after another program's changes").await;

        // The device goes down and up: the kernel tells of no IPv4 route that went with it.
        netlink.set_down(eth0).await.expect("down");
        netlink.set_up(eth0).await.expect("up");
        assert_eq!(apply(&routing, &state).await.changes, 202);
        assert_exact(&netlink, eth0, &state, "after the device went down and up").await;
        assert_eq!(routing.readings().await, 1, "all routes were listed to put some back");
        // What is to be compared in any case is compared with what is there.
        let later = keeping(&directory, Carrier::Native, "eth0", "native");
        assert_eq!(apply(&later, &state).await.changes, 0);
        later.retire().await.expect("retired");
        assert_exact(&netlink, eth0, &crowd(0..0), "after retirement").await;
    });
}

#[test]
fn as_root_when_more_happened_than_was_heard_everything_is_compared() {
    on_node(async |netlink, directory, [eth0, host]| {
        let spec = MirrorSpec { buffer_bytes: 4096, ..MirrorSpec::default() };
        let finder = ToDevice { carrier: Carrier::Native, device: "eth0" };
        let routing = RouteKeeping::with(finder, &directory, "native", spec);
        let state = crowd(1..101);
        apply(&routing, &state).await;
        apply(&routing, &state).await;
        let before = routing.readings().await;
        // More than the socket holds.
        for cidr in state.peers.values().flat_map(|peer| &peer.pod_cidrs) {
            netlink.replace_route(&Route { dev: host, ..bare_route(*cidr, eth0) }).await.expect("altered");
        }
        assert_eq!(apply(&routing, &state).await.changes, 200);
        assert_eq!(routing.readings().await, before + 1);
        assert_exact(&netlink, eth0, &state, "after an overflow").await;
    });
}

#[test]
fn as_root_everything_is_compared_once_in_a_while() {
    on_node(async |netlink, directory, [eth0, _]| {
        let spec = MirrorSpec { reread: Duration::ZERO, ..MirrorSpec::default() };
        let finder = ToDevice { carrier: Carrier::Native, device: "eth0" };
        let routing = RouteKeeping::with(finder, &directory, "native", spec);
        let state = crowd(1..4);
        for (reading, changes) in [(1, 6), (2, 0), (3, 0)] {
            assert_eq!(apply(&routing, &state).await.changes, changes);
            assert_eq!(routing.readings().await, reading);
        }
        assert_exact(&netlink, eth0, &state, "after all").await;
    });
}
