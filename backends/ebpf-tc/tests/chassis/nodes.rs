//! Two nodes and the network between them.

use std::net::IpAddr;

use kinesin_core::{
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_netlink::{Netlink, Route};

use crate::{
    node::{Node, Ways},
    pod::{exchanges_tcp, exchanges_udp, expect_icmp, pings},
};

/// Two nodes on one link of this MTU that carry each other's pods natively.
pub(crate) fn pair(mtu: u32, is_direct: bool) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(1, Ways::Default), Node::new(2, Ways::Default));
    a.connect(&b.netns, mtu);
    b.connect(&a.netns, mtu);
    let paths = |to: &Node| -> Vec<Path> {
        let cidrs = to.spec.pod_cidrs.iter();
        cidrs
            .map(|prefix| {
                let node = underlay(to, Family::of_net(prefix));
                Path {
                    prefix: *prefix,
                    node,
                    carrier: Carrier::Native,
                    next_hop: is_direct.then_some(node),
                    mtu_bytes: None,
                }
            })
            .collect()
    };
    (a.paths, b.paths) = (paths(&b), paths(&a));
    (a.spec.peer_addresses, b.spec.peer_addresses) = (b.spec.addresses.clone(), a.spec.addresses.clone());
    for (node, peer) in [(&a, &b), (&b, &a)] {
        // What a routing backend would do, and the node's own stack needs.
        let routes: Vec<_> =
            peer.spec.pod_cidrs.iter().map(|cidr| (*cidr, underlay(peer, Family::of_net(cidr)))).collect();
        node.block(move || async move {
            let netlink = Netlink::new().expect("socket");
            let uplink = netlink.link("eth0").await.expect("uplink").index;
            for (cidr, via) in routes {
                let route = Route { via: Some(via), ..Route::new(cidr, uplink, 4) };
                netlink.replace_route(&route).await.expect("route");
            }
        });
        node.apply().expect("apply");
    }
    (a, b)
}

fn underlay(node: &Node, family: Family) -> IpAddr {
    *node.spec.addresses.iter().find(|ip| Family::of(ip) == family).expect("both families")
}

#[test]
fn pods_of_two_nodes_reach_each_other_by_neighbour_and_by_route() {
    for is_direct in [true, false] {
        let (mut a, mut b) = pair(1500, is_direct);
        let (from, to) = (a.pod(10), b.pod(20));
        for family in Family::ALL {
            assert!(pings(&from.netns, to.ip(family)), "echo over {family}, direct {is_direct}");
            assert!(exchanges_udp(&from.udp(family, 0), &to.udp(family, 0)), "UDP over {family}");
            assert!(exchanges_tcp(&from.netns, &to.netns, to.ip(family)), "TCP over {family}");
            assert!(exchanges_tcp(&to.netns, &from.netns, from.ip(family)), "TCP back over {family}");
            assert!(pings(&from.netns, underlay(&b, family)), "pod to the other node over {family}");
            assert!(pings(&b.netns, from.ip(family)), "the other node to the pod over {family}");
        }
    }
}

#[test]
fn packets_too_big_for_the_uplink_are_answered_with_its_mtu() {
    let (mut a, mut b) = pair(1300, true);
    let (from, to) = (a.pod(10), b.pod(20));
    for (family, kind) in [(Family::V4, [3, 4]), (Family::V6, [2, 0])] {
        let errors = from.icmp(family);
        let socket = from.udp(family, 0);
        socket.send_to(&[7; 1400], (to.ip(family), 9)).expect("send");
        let (sender, message) = expect_icmp(&errors, |found| found[..2] == kind).expect("the error arrives");
        assert_eq!(Family::of(&sender), family);
        assert!(a.spec.router.contains(&sender));
        assert_eq!(message[6..8], 1300_u16.to_be_bytes());
        // TCP learns it from the same errors.
        assert!(exchanges_tcp(&from.netns, &to.netns, to.ip(family)), "TCP over {family}");
    }
}

#[test]
fn paths_are_replaced_as_a_whole() {
    let (mut a, b) = pair(1500, true);
    a.paths.clear();
    let chassis = std::sync::Arc::clone(&a.chassis);
    a.block(move || async move { chassis.set_paths(&[]).await }).expect("set_paths");
    assert_eq!(a.apply().expect("apply").changes, 0, "set_paths has removed them already");
    let back = b.spec.pod_cidrs.iter().map(|prefix| Path {
        prefix: *prefix,
        node: underlay(&b, Family::of_net(prefix)),
        carrier: Carrier::Native,
        next_hop: None,
        mtu_bytes: None,
    });
    a.paths = back.collect();
    assert_eq!(a.apply().expect("apply").changes, 2);
}
