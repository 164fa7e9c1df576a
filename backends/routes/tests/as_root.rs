//! Routes that change hands between two backends of one node, in a network namespace of the test's own. Needs root.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_core::{
    routing::{LocalNode, Path, Peer, RoutingDesired, RoutingReport},
    values::{Carrier, Families},
};
use kinesin_netlink::{NetNs, Netlink, Route, VethSpec};
use kinesin_routes::{Keeper, Way, bare_route};

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
    };
    RoutingDesired {
        local: LocalNode {
            name: "local".to_owned(),
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

/// A backend that sends everything to a device.
async fn apply(keeper: &Keeper, own: Carrier, device: &str, state: &RoutingDesired) -> RoutingReport {
    let turn = keeper.turn().await.expect("read");
    let (good, mut outcome) = turn.routable(state, own);
    let dev = turn.kernel().device(device).expect("there").index;
    for (cidr, name) in good {
        let path = Path { prefix: cidr, node: ip("192.168.10.101"), carrier: own, next_hop: None };
        let mtu = (own != Carrier::Native).then_some(1450);
        outcome.take(&name, cidr, Ok(Way { path, route: Some(Route { mtu, ..bare_route(cidr, dev) }) }));
    }
    turn.finish(outcome).await.expect("done")
}

/// Devices of the routes to the peer's pods.
async fn leads_to(netlink: &Netlink) -> Vec<u32> {
    let routes = netlink.routes().await.expect("list").into_iter();
    let to = ["10.244.1.0/24", "fd00:244:1::/64"].map(net);
    routes.filter(|route| to.contains(&route.dst)).map(|route| route.dev).collect()
}

#[test]
fn as_root_a_peer_changes_its_carrier_without_a_gap_and_nothing_is_left() {
    let netns = NetNs::anonymous().expect("root");
    let state = tempfile::tempdir().expect("directory");
    let directory = state.path().to_owned();
    let test = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async move {
            let netlink = Netlink::new().expect("socket");
            let mut devices = Vec::new();
            for (name, peer_name) in [("eth0", "wire"), ("cilium_host", "cilium_net")] {
                let spec = VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: None, mtu: None };
                netlink.add_veth(&spec).await.expect("veth");
                for name in [name, peer_name] {
                    netlink.set_up(netlink.link(name).await.expect("there").index).await.expect("up");
                }
                devices.push(netlink.link(name).await.expect("there").index);
            }
            let (native, vxlan) = (Keeper::new(&directory, "native"), Keeper::new(&directory, "vxlan"));
            let two = |carrier| desired(carrier);
            assert_eq!(apply(&native, Carrier::Native, "eth0", &two(Carrier::Native)).await.changes, 2);
            assert_eq!(
                apply(&vxlan, Carrier::Vxlan, "cilium_host", &two(Carrier::Native)).await,
                RoutingReport::default()
            );
            assert_eq!(leads_to(&netlink).await, [devices[0]; 2]);

            // Who gains goes first; who loses finds that it is another's now.
            let gained = apply(&vxlan, Carrier::Vxlan, "cilium_host", &two(Carrier::Vxlan)).await;
            assert_eq!((gained.changes, gained.paths.len(), gained.unreachable.len()), (2, 2, 0));
            assert_eq!(leads_to(&netlink).await, [devices[1]; 2], "replaced, one each");
            assert_eq!(apply(&native, Carrier::Native, "eth0", &two(Carrier::Vxlan)).await, RoutingReport::default());
            native.retire().await.expect("retired");
            assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);
            assert_eq!(apply(&vxlan, Carrier::Vxlan, "cilium_host", &two(Carrier::Vxlan)).await.changes, 0);

            // Between tunnels the routes may be the same, and stay.
            let geneve = Keeper::new(&directory, "geneve");
            let gained = apply(&geneve, Carrier::Geneve, "cilium_host", &two(Carrier::Geneve)).await;
            assert_eq!((gained.changes, gained.paths.len()), (0, 2));
            vxlan.retire().await.expect("retired");
            assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);
            assert_eq!(apply(&vxlan, Carrier::Vxlan, "cilium_host", &two(Carrier::Vxlan)).await.changes, 0);
            geneve.retire().await.expect("retired");
            assert_eq!(leads_to(&netlink).await, [devices[1]; 2]);

            // And back.
            assert_eq!(apply(&native, Carrier::Native, "eth0", &two(Carrier::Native)).await.changes, 2);
            vxlan.retire().await.expect("retired");
            assert_eq!(leads_to(&netlink).await, [devices[0]; 2]);

            // A carrier that is only given up takes its routes with it.
            native.retire().await.expect("retired");
            assert!(leads_to(&netlink).await.is_empty());
            assert_eq!(std::fs::read_dir(&directory).expect("there").count(), 0, "no list is left");
        });
    };
    netns.run(test).expect("the test in the namespace");
}
