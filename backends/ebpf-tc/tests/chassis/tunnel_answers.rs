//! The far end of a tunnel answers as every other router on the way, so that `traceroute` shows it.

use std::{net::IpAddr, time::Duration};

use kinesin_core::values::{Carrier, Family};
use nix::sys::socket::{setsockopt, sockopt::Ipv4Ttl, sockopt::Ipv6Ttl};

use crate::{
    node::{Node, ip},
    pod::{expect_icmp, icmp, udp},
    tunnels::{Way, pair_by, router, underlay},
};

/// Sends a datagram that lives for `hops`; the answer is who said what about it: the sender of an error, and its type and code.
fn probe(netns: &kinesin_netlink::NetNs, from: IpAddr, to: IpAddr, hops: i32) -> Option<(IpAddr, [u8; 2])> {
    let family = Family::of(&to);
    let errors = icmp(netns, family);
    errors.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let socket = udp(netns, from, 0);
    match family {
        Family::V4 => setsockopt(&socket, Ipv4Ttl, &hops).expect("TTL"),
        Family::V6 => setsockopt(&socket, Ipv6Ttl, &hops).expect("hop limit"),
    }
    let port = socket.local_addr().expect("address").port().to_be_bytes();
    socket.send_to(b"?", (to, 33434)).expect("send");
    let (kinds, quoted): (&[u8], _) = if family == Family::V4 { (&[3, 11], 8 + 20) } else { (&[1, 3], 8 + 40) };
    // Others' errors are heard here too; this one quotes our ports.
    let is_ours = |found: &[u8]| kinds.contains(&found[0]) && found.get(quoted..quoted + 2) == Some(&port[..]);
    expect_icmp(&errors, is_ours).map(|(sender, found)| (sender, [found[0], found[1]]))
}

/// Time exceeded, and no such pod.
fn errors_of(family: Family) -> [[u8; 2]; 2] {
    if family == Family::V4 { [[11, 0], [3, 1]] } else { [[3, 0], [1, 3]] }
}

fn answers(way: Way, paths: [&'static str; 2]) {
    let (mut a, mut b) = pair_by(way, paths);
    let (from, to) = (a.pod(10), b.pod(20));
    for family in Family::ALL {
        let what = format!("{family}, {way:?}, {paths:?}");
        let [time, no_pod] = errors_of(family);
        let nobody = if family == Family::V4 { ip("10.244.2.99") } else { ip("fd00:10:244:2::99") };
        let own = |node: &Node| router(node, family);
        let by_pod = |to, hops| probe(&from.netns, from.ip(family), to, hops);
        // As traceroute goes: this node, the other one, the pod, which has nobody at that port.
        assert_eq!(by_pod(to.ip(family), 1), Some((own(&a), time)), "one hop, {what}");
        assert_eq!(by_pod(to.ip(family), 2), Some((own(&b), time)), "two hops, {what}");
        let no_port = if family == Family::V4 { [3, 3] } else { [1, 4] };
        assert_eq!(by_pod(to.ip(family), 3), Some((to.ip(family), no_port)), "three hops, {what}");
        assert_eq!(by_pod(nobody, 64), Some((own(&b), no_pod)), "no such pod, {what}");
        // The node's own packets pass one router less.
        let by_node = |to, hops| probe(&a.netns, own(&a), to, hops);
        assert_eq!(by_node(to.ip(family), 1), Some((own(&b), time)), "one hop from the node, {what}");
        assert_eq!(by_node(nobody, 64), Some((own(&b), no_pod)), "no such pod from the node, {what}");
        assert_ne!(own(&b), underlay(&b, family), "it is the router that answers");
    }
    for node in [&a, &b] {
        assert_eq!(node.drops(), [], "{way:?}, {paths:?}");
    }
}

#[test]
fn the_far_end_answers_through_the_tunnel_of_programs() {
    answers(Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: true }, ["bpf", "bpf"]);
    answers(Way { carrier: Carrier::Geneve, under: Family::V6, is_direct: false, is_told: true }, ["bpf", "bpf"]);
}

#[test]
fn the_far_end_answers_through_the_tunnel_of_the_kernels_device() {
    answers(Way { carrier: Carrier::Vxlan, under: Family::V6, is_direct: true, is_told: true }, ["device", "device"]);
    answers(Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: false, is_told: true }, ["bpf", "device"]);
}
