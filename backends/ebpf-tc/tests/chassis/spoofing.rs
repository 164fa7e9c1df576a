//! CHASSIS-2 and CHASSIS-7: what a pod may not send, by raw sockets, is dropped, counted and reported.

use std::{
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use kinesin_abi::{DropEvent, DropReason, Entry, read_record};
use kinesin_core::values::Family;
use kinesin_loader::EventRing;
use kinesin_netlink::{NetNs, Netlink};
use kinesin_packet::samples::packets::{draft, udp as datagram};

use crate::{
    node::{Node, Ways},
    pod::{Pod, hears_nothing, packet, send_frame, udp},
};

/// A UDP frame of a pod with whatever addresses.
fn frame(pod: &Pod, source: IpAddr, destination: IpAddr, port: u16) -> Vec<u8> {
    let mut draft = draft(&source.to_string(), &destination.to_string(), 17, datagram(4000, port, 16));
    draft.eth_destination = pod.endpoint.host_mac.0;
    let mut bytes = draft.bytes();
    bytes[6..12].copy_from_slice(&pod.endpoint.mac.0);
    bytes
}

/// Sends frames, which must all be counted under `reason` and not be heard.
fn expect_drops(node: &Node, pod: &Pod, frames: &[Vec<u8>], reason: DropReason, listener: &UdpSocket) {
    let before = node.counted(reason as u8);
    for frame in frames {
        pod.send_frame(frame);
    }
    assert!(hears_nothing(listener), "{reason:?}");
    assert_eq!(node.counted(reason as u8) - before, frames.len() as u64, "{reason:?}");
}

#[test]
fn chassis_2_foreign_sources_are_dropped_and_counted() {
    for ways in Ways::ALL {
        let mut node = Node::alone(ways);
        let (a, b, c) = (node.pod(10), node.pod(11), node.pod(12));
        for family in Family::ALL {
            let listener = b.udp(family, 5000);
            let router = *node.spec.router.iter().find(|ip| Family::of(ip) == family).expect("both families");
            let sources = [c.ip(family), b.ip(family), router];
            let frames: Vec<_> = sources.into_iter().map(|source| frame(&a, source, b.ip(family), 5000)).collect();
            expect_drops(&node, &a, &frames, DropReason::InvalidSource, &listener);
            // The listener does hear the pod's own address.
            a.udp(family, 0).send_to(b"honest", (b.ip(family), 5000)).expect("send");
            listener.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
            let (_, from) = listener.recv_from(&mut [0; 64]).expect("the pod's own packet arrives");
            assert_eq!(from.ip(), a.ip(family));
        }
    }
}

#[test]
fn chassis_2_tunnel_ports_of_nodes_are_closed() {
    let mut node = Node::unapplied(Ways::Default);
    node.spec.peer_addresses = vec!["192.168.10.102".parse().expect("ip"), "fd00:192:168:10::2".parse().expect("ip")];
    node.apply().expect("apply");
    let a = node.pod(10);
    for family in Family::ALL {
        let unspecified: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0_u16; 8].into() };
        for port in [8472, 6081] {
            let listener = udp(&node.netns, unspecified, port);
            listener.set_broadcast(true).expect("broadcast");
            let own = node.spec.addresses.iter().chain(&node.spec.router).chain(&node.spec.peer_addresses);
            let mut targets: Vec<_> = own.filter(|ip| Family::of(ip) == family).copied().collect();
            if family == Family::V4 {
                targets.push("192.168.10.255".parse().expect("ip"));
            }
            let frames: Vec<_> = targets.into_iter().map(|to| frame(&a, a.ip(family), to, port)).collect();
            expect_drops(&node, &a, &frames, DropReason::TunnelForbidden, &listener);
        }
    }
    // Nor by an address that is in no table.
    let listener = udp(&node.netns, [0_u16; 8].into(), 8472);
    let link_local = vec![frame(&a, a.ip(Family::V6), "fe80::1".parse().expect("ip"), 8472)];
    expect_drops(&node, &a, &link_local, DropReason::Unroutable, &listener);
    // Any other port of the node is open.
    let listener = udp(&node.netns, node.spec.addresses[0], 8473);
    a.send_frame(&frame(&a, a.ip(Family::V4), node.spec.addresses[0], 8473));
    assert!(!hears_nothing(&listener));
}

#[test]
fn chassis_2_tagged_frames_are_dropped() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let listener = b.udp(Family::V4, 5000);
    let mut tagged = frame(&a, a.ip(Family::V4), b.ip(Family::V4), 5000);
    tagged.splice(12..12, [0x81, 0x00, 0, 5]);
    expect_drops(&node, &a, &[tagged], DropReason::VlanForbidden, &listener);
}

/// Raises the far end of the uplink; the answer is its index.
fn raise_wire(outside: &NetNs) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let netlink = Netlink::in_netns(outside).expect("socket");
        let index = netlink.link("eth0").await.expect("far end").index;
        netlink.set_up(index).await.expect("up");
        index
    })
}

#[test]
fn sources_of_the_node_do_not_come_in_from_the_network() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let listener = a.udp(Family::V4, 5000);
    let mac = node.block(|| async { Netlink::new().expect("socket").link("eth0").await.expect("uplink").mac });
    let outside = node.outside.as_ref().expect("the wire's other end");
    let wire = packet(outside, raise_wire(outside));
    let before = node.counted(DropReason::InvalidSource as u8);
    for source in [b.ip(Family::V4), node.spec.addresses[0], node.spec.router[0]] {
        let mut bytes = frame(&a, source, a.ip(Family::V4), 5000);
        bytes[..6].copy_from_slice(&mac);
        send_frame(&wire, &bytes);
    }
    assert!(hears_nothing(&listener));
    assert_eq!(node.counted(DropReason::InvalidSource as u8) - before, 3);
}

#[test]
fn chassis_7_a_drop_is_reported_with_what_it_was() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let pins = node.pins();
    let mut events = node.run(move |_| EventRing::open(&pins.join("maps/KIN_EVENTS")).expect("events"));
    events.drain(|_| ());
    for family in Family::ALL {
        let bytes = frame(&a, b.ip(family), node.spec.router[usize::from(family == Family::V6)], 53);
        let length = bytes.len();
        a.send_frame(&bytes);
        let mut found: Vec<DropEvent> = Vec::new();
        let end = Instant::now() + Duration::from_secs(3);
        while found.is_empty() && Instant::now() < end {
            events.wait(Duration::from_millis(200)).expect("wait");
            // The pods' own multicast is dropped too, and reported.
            events.drain(|bytes| {
                let event: DropEvent = read_record(bytes).expect("a whole record");
                if event.reason == DropReason::InvalidSource as u8 {
                    found.push(event);
                }
            });
        }
        let event = found.first().expect("one event");
        assert_eq!((event.kind, event.observation), (1, Entry::FromContainer as u8));
        assert_eq!((event.ifindex, event.endpoint), (a.endpoint.ifindex, 10));
        assert_eq!((event.protocol, event.length as usize), (17, length));
        assert_eq!((event.sport_be, event.dport_be), (4000_u16.to_be(), 53_u16.to_be()));
        assert_eq!(event.source_identity, a.endpoint.identity.0);
        let (address, number) = kinesin_packet::host::table_address(b.ip(family));
        assert_eq!((event.family, event.saddr), (number, address));
    }
}

#[test]
fn chassis_7_forwarded_packets_are_counted_in_both_directions() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let listener = b.udp(Family::V4, 5000);
    let before = node.counted(0);
    for _ in 0..10 {
        a.send_frame(&frame(&a, a.ip(Family::V4), b.ip(Family::V4), 5000));
        listener.recv_from(&mut [0; 64]).expect("it arrives");
    }
    assert!(node.counted(0) - before >= 20);
}
