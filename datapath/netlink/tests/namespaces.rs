//! Every request against real kernels, in namespaces of the test's own. Needs root.

use std::net::IpAddr;

use ipnet::IpNet;
use kinesin_netlink::{LinkKind, NetNs, Netlink, NetlinkError, Route, RouteScope, Sysctl, VethSpec};

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

struct Pair {
    node: NetNs,
    pod: NetNs,
    in_node: Netlink,
    in_pod: Netlink,
}

async fn pair() -> Pair {
    let node = NetNs::anonymous().expect("root may make namespaces");
    let pod = NetNs::anonymous().expect("root may make namespaces");
    let in_node = Netlink::in_netns(&node).expect("socket");
    let in_pod = Netlink::in_netns(&pod).expect("socket");
    let spec = VethSpec {
        name: "lxc0",
        mac: Some([2, 0, 0, 0, 0, 1]),
        peer_name: "eth0",
        peer_mac: Some([2, 0, 0, 0, 0, 2]),
        peer_netns: Some(&pod),
        mtu: Some(1400),
    };
    in_node.add_veth(&spec).await.expect("veth");
    Pair { node, pod, in_node, in_pod }
}

#[tokio::test]
async fn veth_peer_is_born_down_in_the_other_namespace() {
    let pair = pair().await;
    let host = pair.in_node.link("lxc0").await.expect("host end");
    assert_eq!((host.mac, host.mtu, host.up, &host.kind), ([2, 0, 0, 0, 0, 1], 1400, false, &LinkKind::Veth));
    assert!(pair.in_node.find_link("eth0").await.expect("list").is_none());
    let peer = pair.in_pod.link("eth0").await.expect("pod end");
    assert_eq!((peer.mac, peer.mtu, peer.up), ([2, 0, 0, 0, 0, 2], 1400, false));
    assert_eq!(host.peer_index, Some(peer.index));
}

#[tokio::test]
async fn taken_name_is_refused_as_existing() {
    let pair = pair().await;
    let spec =
        VethSpec { name: "lxc1", mac: None, peer_name: "eth0", peer_mac: None, peer_netns: Some(&pair.pod), mtu: None };
    let error = pair.in_node.add_veth(&spec).await.expect_err("eth0 is taken");
    assert!(error.is_existing(), "{error}");
    assert!(pair.in_node.find_link("lxc1").await.expect("list").is_none(), "nothing is half made");
}

#[tokio::test]
async fn addresses_routes_and_neighbours_of_both_families_come_and_go() {
    let pair = pair().await;
    let link = pair.in_pod.link("eth0").await.expect("pod end");
    let host = pair.in_node.link("lxc0").await.expect("host end");
    for address in ["10.1.0.5/32", "fd00:1::5/128"].map(net) {
        pair.in_pod.add_address(link.index, address).await.expect("address");
        pair.in_pod.add_address(link.index, address).await.expect("the same address again");
        assert!(pair.in_pod.addresses_of(link.index).await.expect("list").contains(&address));
    }
    pair.in_node.set_up(host.index).await.expect("up");
    pair.in_pod.set_up(link.index).await.expect("up");
    for (gateway, default, source) in [("10.1.0.1", "0.0.0.0/0", "10.1.0.5"), ("fd00:1::1", "::/0", "fd00:1::5")] {
        let on_link = Route { scope: RouteScope::Link, ..Route::new(IpNet::from(ip(gateway)), link.index, 4) };
        let through = Route {
            via: Some(ip(gateway)),
            mtu: Some(1350),
            src: Some(ip(source)),
            metric: 100,
            ..Route::new(net(default), link.index, 4)
        };
        for route in [&on_link, &through] {
            pair.in_pod.replace_route(route).await.expect("route");
            pair.in_pod.replace_route(route).await.expect("the same route again");
        }
        let routes = pair.in_pod.routes().await.expect("list");
        assert!(routes.contains(&through), "{through:?} not in {routes:#?}");
        pair.in_pod.set_neighbour(link.index, ip(gateway), host.mac).await.expect("neighbour");
        pair.in_pod.delete_route(&through).await.expect("remove");
        pair.in_pod.delete_route(&through).await.expect("remove again");
        assert!(!pair.in_pod.routes().await.expect("list").contains(&through));
    }
    for address in ["10.1.0.5/32", "fd00:1::5/128"].map(net) {
        pair.in_pod.delete_address(link.index, address).await.expect("remove");
        pair.in_pod.delete_address(link.index, address).await.expect("remove again");
        assert!(!pair.in_pod.addresses_of(link.index).await.expect("list").contains(&address));
    }
}

#[tokio::test]
async fn unreachable_next_hop_is_refused_by_name() {
    let pair = pair().await;
    let link = pair.in_pod.link("eth0").await.expect("pod end");
    pair.in_pod.set_up(link.index).await.expect("up");
    let route = Route { via: Some(ip("192.0.2.1")), ..Route::new(net("10.9.0.0/16"), link.index, 4) };
    let error = pair.in_pod.replace_route(&route).await.expect_err("no such link");
    assert!(error.to_string().contains("10.9.0.0/16 via 192.0.2.1"), "{error}");
}

#[tokio::test]
async fn occupied_place_is_refused_as_existing() {
    let pair = pair().await;
    let link = pair.in_pod.link("eth0").await.expect("pod end");
    pair.in_pod.set_up(link.index).await.expect("up");
    for (address, dst, hops) in [
        ("10.1.0.5/24", "10.9.0.0/16", ["10.1.0.1", "10.1.0.2"]),
        ("fd00:1::5/64", "fd09::/64", ["fd00:1::1", "fd00:1::2"]),
    ] {
        pair.in_pod.add_address(link.index, net(address)).await.expect("address");
        let [first, second] =
            hops.map(|hop| Route { via: Some(ip(hop)), metric: 1024, ..Route::new(net(dst), link.index, 4) });
        pair.in_pod.add_route(&first).await.expect("nothing is there");
        let error = pair.in_pod.add_route(&second).await.expect_err("something is there");
        assert!(error.is_existing(), "{error}");
        let routes = pair.in_pod.routes().await.expect("list");
        assert!(routes.contains(&first) && !routes.contains(&second), "{routes:#?}");
    }
}

#[tokio::test]
async fn removing_a_device_twice_succeeds_and_takes_its_peer() {
    let pair = pair().await;
    let host = pair.in_node.link("lxc0").await.expect("host end");
    pair.in_node.delete_link(host.index).await.expect("remove");
    pair.in_node.delete_link(host.index).await.expect("remove again");
    assert!(!pair.in_node.delete_link_by_name("lxc0").await.expect("nothing to do"));
    assert!(matches!(pair.in_pod.link("eth0").await, Err(NetlinkError::NoSuchLink { .. })));
}

#[tokio::test]
async fn sysctls_belong_to_the_namespace() {
    let pair = pair().await;
    let before = Sysctl::here().read("ipv4/ip_forward").expect("read");
    let there = Sysctl::of(&pair.node);
    let other = if there.read("ipv4/ip_forward").expect("read") == "1" { "0" } else { "1" };
    assert!(there.set("ipv4/ip_forward", other).expect("write"));
    assert!(!there.set("ipv4/ip_forward", other).expect("nothing to do"));
    assert_eq!(there.read("ipv4/ip_forward").expect("read"), other);
    assert_eq!(Sysctl::here().read("ipv4/ip_forward").expect("read"), before, "the test's own namespace is untouched");
}

#[tokio::test]
async fn namespaces_have_distinct_ids_and_cookies() {
    let pair = pair().await;
    assert_ne!(pair.node.id().expect("id"), pair.pod.id().expect("id"));
    let cookies = [pair.node.cookie().expect("cookie"), pair.pod.cookie().expect("cookie")];
    assert_ne!(cookies[0], cookies[1]);
    assert_eq!(pair.node.cookie().expect("cookie"), cookies[0]);
}

#[test]
fn named_namespace_is_found_again_and_removed_twice() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ns");
    let made = NetNs::create(&path).expect("create");
    assert_eq!(NetNs::open(&path).expect("open").id().expect("id"), made.id().expect("id"));
    assert!(NetNs::create(&path).is_err(), "a path is used once");
    NetNs::remove(&path).expect("remove");
    NetNs::remove(&path).expect("remove again");
    assert!(!path.exists());
}

#[test]
fn missing_or_wrong_file_is_named() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ns");
    let missing = NetNs::open(&path).expect_err("missing").to_string();
    assert!(missing.contains(&*path.to_string_lossy()), "{missing}");
    std::fs::write(&path, b"").expect("write");
    assert!(NetNs::open(&path).is_err(), "a plain file is no namespace");
}
