//! The errors that a router owes: the pod gets them from the router's address.

use std::net::SocketAddr;

use kinesin_core::values::Family;

use crate::{
    node::{Node, Ways},
    pod::{Pod, expect_icmp},
};

fn router(node: &Node, family: Family) -> std::net::IpAddr {
    *node.spec.router.iter().find(|ip| Family::of(ip) == family).expect("both families")
}

/// The error about a datagram that `pod` sends must be of this type and code and come from the router.
fn expect_error(node: &Node, pod: &Pod, to: SocketAddr, ttl: Option<u8>, kind: [u8; 2]) {
    let family = Family::of(&to.ip());
    let errors = pod.icmp(family);
    let socket = pod.udp(family, 0);
    let sent_from = socket.local_addr().expect("address");
    if let Some(ttl) = ttl {
        match family {
            Family::V4 => socket.set_ttl(u32::from(ttl)).expect("TTL"),
            Family::V6 => nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv6Ttl, &i32::from(ttl))
                .expect("hop limit"),
        }
    }
    socket.send_to(&[7; 100], to).expect("send");
    let (from, message) = expect_icmp(&errors, |found| found[..2] == kind).expect("the error arrives");
    assert_eq!(from, router(node, family));
    let header = if family == Family::V4 { 20 } else { 40 };
    let ports = &message[8 + header..8 + header + 4];
    assert_eq!(ports[..2], sent_from.port().to_be_bytes(), "the datagram is quoted");
    assert_eq!(ports[2..], to.port().to_be_bytes());
}

#[test]
fn used_up_ttl_is_answered_on_the_way_to_another_pod() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    for (family, kind) in [(Family::V4, [11, 0]), (Family::V6, [3, 0])] {
        expect_error(&node, &a, (b.ip(family), 33434).into(), Some(1), kind);
    }
}

#[test]
fn address_without_a_pod_is_answered_as_unreachable() {
    let mut node = Node::alone(Ways::Default);
    let a = node.pod(10);
    expect_error(&node, &a, "10.244.1.200:9".parse().expect("address"), None, [3, 1]);
    expect_error(&node, &a, "[fd00:10:244:1::c8]:9".parse().expect("address"), None, [1, 3]);
}

#[test]
fn pods_resolve_nobody_but_the_router_and_hear_no_neighbours() {
    let mut node = Node::alone(Ways::Default);
    let (a, b) = (node.pod(10), node.pod(11));
    let sniffer = b.packet();
    for family in Family::ALL {
        a.udp(family, 0).send_to(b"hello", (b.ip(family), 9)).expect("send");
    }
    sniffer.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("timeout");
    let mut frame = [0; 2048];
    let mut heard = 0;
    while let Ok(length) = sniffer.recv(&mut frame) {
        if frame[..6] == b.endpoint.mac.0 {
            // The answer to a request of the pod's own is the only one that it gets.
            let is_reply = frame[12..14] == [0x08, 0x06] && frame[21] == 2;
            let is_advertisement = frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == 136;
            heard += u32::from(!is_reply && !is_advertisement && length > 42);
        } else {
            assert_eq!(frame[6..12], b.endpoint.mac.0, "somebody else's: {:02x?}", &frame[..length]);
        }
    }
    assert!(heard >= 2, "one packet of each family");
}
