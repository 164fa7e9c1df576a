//! Two nodes that carry each other's pods by tunnel.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use kinesin_abi::{DropEvent, DropReason, Entry, read_record};
use kinesin_core::{
    chassis::Tunnel,
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_loader::EventRing;
use kinesin_netlink::{LinkKind, Netlink, Route, TunnelKind, TunnelSpec};
use kinesin_packet::samples::packets::{draft, icmp, udp as datagram};

use crate::{
    node::{Node, Ways},
    pod::{Pod, exchanges_tcp, exchanges_udp, expect_icmp, hears_nothing, pings, udp},
};

/// Both tunnels, on the ports of the reference.
pub(crate) fn both_tunnels() -> Vec<Tunnel> {
    vec![Tunnel { carrier: Carrier::Vxlan, port: 8472 }, Tunnel { carrier: Carrier::Geneve, port: 6081 }]
}

pub(crate) fn underlay(node: &Node, family: Family) -> IpAddr {
    *node.spec.addresses.iter().find(|ip| Family::of(ip) == family).expect("both families")
}

pub(crate) fn router(node: &Node, family: Family) -> IpAddr {
    *node.spec.router.iter().find(|ip| Family::of(ip) == family).expect("both families")
}

/// Makes `node` a peer of another, and one that takes tunnels.
pub(crate) fn open_to(node: &mut Node, peer: &[IpAddr]) {
    node.spec.peer_addresses = peer.to_vec();
    node.spec.underlay = node.spec.addresses.clone();
    node.spec.tunnels = both_tunnels();
}

/// How two nodes carry each other's pods.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    pub(crate) carrier: Carrier,
    /// Family of the outer addresses.
    pub(crate) under: Family,
    /// By neighbour; else by the routing tables.
    pub(crate) is_direct: bool,
    /// Whether pods know what fits into the tunnel.
    pub(crate) is_told: bool,
}

impl Way {
    /// What fits, of 1500 bytes.
    fn limit(self) -> u32 {
        if self.under == Family::V4 { 1450 } else { 1430 }
    }
}

/// Two nodes on one link, who decide by themselves who puts their tunnels on.
pub(crate) fn pair(way: Way) -> (Node, Node) {
    pair_by(way, ["auto", "auto"])
}

/// The same with a `tunnelPath` for each.
pub(crate) fn pair_by(way: Way, paths: [&'static str; 2]) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1, Ways::Default), Node::new(2, Ways::Default));
    for (node, path) in [&mut a, &mut b].into_iter().zip(paths) {
        node.tunnel_path = path;
        node.restart();
    }
    a.connect(&b.netns, 1500);
    b.connect(&a.netns, 1500);
    a.settle();
    b.settle();
    let paths = |to: &Node| -> Vec<Path> {
        let node = underlay(to, way.under);
        let path = |prefix| Path {
            prefix,
            node,
            carrier: way.carrier,
            next_hop: way.is_direct.then_some(node),
            mtu_bytes: None,
        };
        to.spec.pod_cidrs.iter().copied().map(path).collect()
    };
    (a.paths, b.paths) = (paths(&b), paths(&a));
    let (of_a, of_b) = (a.spec.addresses.clone(), b.spec.addresses.clone());
    open_to(&mut a, &of_b);
    open_to(&mut b, &of_a);
    for node in [&mut a, &mut b] {
        if way.is_told {
            node.spec.route_mtu_bytes = way.limit();
        }
        node.apply().expect("apply");
    }
    route(&a, &b, way.limit());
    route(&b, &a, way.limit());
    (a, b)
}

/// What a routing backend does for the node's own stack: the way to the peer's pods leads into `from_host`.
pub(crate) fn route(node: &Node, peer: &Node, mtu: u32) {
    let (cidrs, routers) = (peer.spec.pod_cidrs.clone(), node.spec.router.clone());
    node.block(move || async move {
        let netlink = Netlink::new().expect("socket");
        let host = netlink.link("cilium_host").await.expect("cilium_host").index;
        for cidr in cidrs {
            let router = routers.iter().copied().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4()).expect("a router");
            let via = router.is_ipv4().then_some(router);
            let route = Route { via, src: Some(router), mtu: Some(mtu), ..Route::new(cidr, host, 2) };
            netlink.replace_route(&route).await.expect("route");
        }
    });
    assert_eq!(node.apply().expect("apply").changes, 0, "routes of a routing backend are left alone");
}

fn talk_by(way: Way) {
    let (mut a, mut b) = pair(way);
    talk(&mut a, &mut b, &format!("{way:?}"));
}

/// Pods and nodes reach each other in every way.
pub(crate) fn talk(a: &mut Node, b: &mut Node, way: &str) {
    let (from, to) = (a.pod(10), b.pod(20));
    for family in Family::ALL {
        let what = format!("{family} by {way}");
        assert!(pings(&from.netns, to.ip(family)), "echo, {what}");
        assert!(exchanges_udp(&from.udp(family, 0), &to.udp(family, 0)), "UDP, {what}");
        assert!(exchanges_tcp(&from.netns, &to.netns, to.ip(family)), "TCP, {what}");
        assert!(exchanges_tcp(&to.netns, &from.netns, from.ip(family)), "TCP back, {what}");
        assert!(pings(&b.netns, from.ip(family)), "the other node to the pod, {what}");
        assert!(pings(&from.netns, router(b, family)), "the pod to the other node's router, {what}");
        assert!(exchanges_tcp(&b.netns, &from.netns, from.ip(family)), "TCP of the other node to the pod, {what}");
        assert!(exchanges_tcp(&from.netns, &b.netns, router(b, family)), "TCP of the pod to the other node, {what}");
        // Nodes are reached as the network is.
        assert!(pings(&from.netns, underlay(b, family)), "the pod to the other node's address, {what}");
    }
    for node in [&*a, &*b] {
        assert_eq!(node.drops(), [], "{way}");
        assert_eq!(node.apply().expect("apply").changes, 0);
    }
}

#[test]
fn pods_and_nodes_reach_each_other_by_vxlan() {
    talk_by(Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: true });
    talk_by(Way { carrier: Carrier::Vxlan, under: Family::V6, is_direct: false, is_told: true });
}

#[test]
fn pods_and_nodes_reach_each_other_by_geneve() {
    talk_by(Way { carrier: Carrier::Geneve, under: Family::V4, is_direct: false, is_told: true });
    talk_by(Way { carrier: Carrier::Geneve, under: Family::V6, is_direct: true, is_told: true });
}

/// Sends a datagram that may be fragmented and fits no tunnel, past the pod's own stack.
pub(crate) fn send_without_df(pod: &Pod, to: IpAddr, port: u16, length: usize) {
    let source = pod.ip(Family::of(&to)).to_string();
    let mut packet = draft(&source, &to.to_string(), 17, datagram(4000, port, length));
    packet.eth_destination = pod.endpoint.host_mac.0;
    pod.send_frame(&packet.bytes());
}

#[test]
fn packets_too_big_for_a_tunnel_are_answered_with_what_fits() {
    for (carrier, under) in [(Carrier::Vxlan, Family::V4), (Carrier::Geneve, Family::V6)] {
        answer_what_is_too_big(Way { carrier, under, is_direct: true, is_told: false }, ["bpf", "bpf"]);
    }
}

/// What fits no tunnel is answered, and what may be fragmented arrives.
pub(crate) fn answer_what_is_too_big(way: Way, paths: [&'static str; 2]) {
    let (mut a, mut b) = pair_by(way, paths);
    let (from, to) = (a.pod(10), b.pod(20));
    for (one, other, node) in [(&from, &to, &a), (&to, &from, &b)] {
        for (family, kind) in [(Family::V4, [3, 4]), (Family::V6, [2, 0])] {
            let errors = one.icmp(family);
            let listener = other.udp(family, 0);
            let port = listener.local_addr().expect("address").port();
            one.udp(family, 0).send_to(&[7; 1440], (other.ip(family), port)).expect("send");
            let (sender, message) = expect_icmp(&errors, |found| found[..2] == kind).expect("the error arrives");
            assert_eq!(sender, router(node, family), "{way:?}");
            assert_eq!(u32::from(u16::from_be_bytes([message[6], message[7]])), way.limit(), "{way:?}");
            assert!(hears_nothing(&listener));
            // TCP learns it from the same errors.
            assert!(exchanges_tcp(&one.netns, &other.netns, other.ip(family)), "TCP over {family} by {way:?}");
        }
        // The stack cuts what may be cut, and the pieces go by the same tunnel.
        let listener = other.udp(Family::V4, 0);
        send_without_df(one, other.ip(Family::V4), listener.local_addr().expect("address").port(), 1460);
        let (length, sender) = listener.recv_from(&mut [0; 2048]).expect("it arrives");
        assert_eq!((length, sender.ip()), (1460, one.ip(Family::V4)), "{way:?}");
    }
}

#[test]
fn the_nodes_own_packets_are_cut_to_what_fits() {
    for path in ["bpf", "device"] {
        cut_the_nodes_own(path);
    }
}

fn cut_the_nodes_own(path: &'static str) {
    let way = Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: false };
    let (a, mut b) = pair_by(way, [path, "auto"]);
    let to = b.pod(20);
    for family in Family::ALL {
        let socket = udp(&a.netns, router(&a, family), 0);
        let listener = to.udp(family, 0);
        socket.send_to(&[7; 4000], listener.local_addr().expect("address")).expect("send");
        let received = listener.recv_from(&mut [0; 8000]).map(|(length, _)| length);
        assert!(
            received.as_ref().is_ok_and(|length| *length == 4000),
            "{family}: {received:?}, {:?} {:?}",
            a.drops(),
            b.drops()
        );
    }
    assert_eq!(a.drops(), []);
}

/// The source identities of drops on a node for one reason, as events tell them.
fn identities_of(node: &Node, reason: DropReason, count: usize, provoke: impl FnOnce()) -> Vec<u32> {
    let pins = node.pins();
    let mut events = node.run(move |_| EventRing::open(&pins.join("maps/KIN_EVENTS")).expect("events"));
    events.drain(|_| ());
    provoke();
    let mut found = Vec::new();
    let end = Instant::now() + Duration::from_secs(3);
    while found.len() < count && Instant::now() < end {
        events.wait(Duration::from_millis(200)).expect("wait");
        events.drain(|bytes| {
            let event: DropEvent = read_record(bytes).expect("a whole record");
            if event.reason == reason as u8 {
                assert_eq!(event.observation, Entry::FromOverlay as u8);
                found.push(event.source_identity);
            }
        });
    }
    found
}

#[test]
fn the_identity_of_the_source_arrives_with_the_packet() {
    for (carrier, under) in [(Carrier::Vxlan, Family::V4), (Carrier::Geneve, Family::V4), (Carrier::Geneve, Family::V6)]
    {
        let (mut a, b) = pair(Way { carrier, under, is_direct: true, is_told: true });
        let pods = [a.pod(10), a.pod(11)];
        // Nobody has this address, so the packet ends where its identity is known; and nobody is told, since it is an error
        // itself.
        let nobody = "10.244.2.99";
        let error = || icmp(3, 28);
        let found = identities_of(&b, DropReason::Unroutable, 3, || {
            for pod in &pods {
                let mut packet = draft(&pod.ip(Family::V4).to_string(), nobody, 1, error());
                packet.eth_destination = pod.endpoint.host_mac.0;
                pod.send_frame(&packet.bytes());
            }
            crate::pod::icmp(&a.netns, Family::V4).send_to(&error(), (nobody, 0)).expect("send");
        });
        let expected = [pods[0].endpoint.identity.0, pods[1].endpoint.identity.0, kinesin_abi::identity::REMOTE_NODE];
        assert_eq!(found, expected, "{carrier:?}");
    }
}

/// Kind and state of `cilium_vxlan` on a node.
fn overlay(node: &Node) -> Option<(LinkKind, bool)> {
    let find = || async { Netlink::new().expect("socket").find_link("cilium_vxlan").await.expect("list") };
    node.block(find).map(|link| (link.kind, link.up))
}

/// A VXLAN device as somebody else would make it.
fn plain(name: &str, port: u16) -> TunnelSpec<'_> {
    TunnelSpec { name, kind: TunnelKind::Vxlan, port, source_ports: (32768, 60999), mac: None }
}

#[test]
fn the_device_that_holds_the_port_is_made_healed_and_removed() {
    let mut node = Node::unapplied(Ways::Default);
    open_to(&mut node, &[]);
    node.apply().expect("apply");
    let right = Some((LinkKind::Vxlan { port: 8472, external: true, source_ports: (0xc000, 0xffff) }, true));
    assert_eq!(overlay(&node), right);
    assert_eq!(node.apply().expect("apply").changes, 0);
    // Removed, and another one in its place.
    for foreign in [None, Some(4789)] {
        node.block(move || async move {
            let netlink = Netlink::new().expect("socket");
            netlink.delete_link_by_name("cilium_vxlan").await.expect("remove");
            if let Some(port) = foreign {
                netlink.add_tunnel(&plain("cilium_vxlan", port)).await.expect("another one");
            }
        });
        assert!(node.apply().expect("apply").changes > 0);
        assert_eq!(overlay(&node), right);
        assert_eq!(node.apply().expect("apply").changes, 0);
    }
    // Somebody else has the port with options that do not go together: told, and nothing else fails.
    node.spec.tunnels[0].port = 4790;
    node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        netlink.add_tunnel(&plain("rival", 4790)).await.expect("another one");
        netlink.set_up(netlink.link("rival").await.expect("it").index).await.expect("up");
    });
    let report = node.apply().expect("apply");
    assert!(report.degraded.iter().any(|text| text.contains("not merged")), "{report:?}");
    node.spec.tunnels.clear();
    node.apply().expect("apply");
    assert_eq!(overlay(&node), None);
    assert_eq!(node.apply().expect("apply").changes, 0);
    open_to(&mut node, &[]);
    node.apply().expect("apply");
    assert_eq!(overlay(&node), right);
    node.retire().expect("retire");
    assert_eq!(overlay(&node), None);
}
