//! Superpackets through tunnels: what a sender leaves to be cut later arrives in pieces, or whole.

use std::net::{IpAddr, UdpSocket};

use kinesin_core::values::{Carrier, Family};
use kinesin_netlink::{BEFORE_TUNNELS, NetNs, Netlink, Route, switch_features};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};

use crate::{
    node::ip,
    pod::{Pod, exchanges_tcp, pings, udp},
    tunnels::{Way, pair_by, router},
};

const WAYS: [Way; 3] = [
    Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: true },
    Way { carrier: Carrier::Geneve, under: Family::V6, is_direct: false, is_told: true },
    Way { carrier: Carrier::Geneve, under: Family::V4, is_direct: true, is_told: true },
];

/// By programs, and for VXLAN by the kernel's device at one end, and at both.
fn with_paths() -> impl Iterator<Item = (Way, [&'static str; 2])> {
    let devices = [["device", "bpf"], ["device", "device"]];
    WAYS.into_iter().map(|way| (way, ["bpf", "bpf"])).chain(devices.map(|paths| (WAYS[0], paths)))
}

/// What the CNI plugin does with a pod's device.
fn prepare(pod: &Pod) {
    let changed = pod.netns.run(|| switch_features("eth0", &BEFORE_TUNNELS, false)).expect("namespace");
    assert!(changed.expect("switched"), "a new device leaves them to others");
}

/// Sends ten datagrams at once, as QUIC does.
fn ten_arrive(from: &UdpSocket, to: &UdpSocket) -> bool {
    setsockopt(from, UdpGsoSegment, &1000).expect("UDP_SEGMENT");
    from.send_to(&[7; 10_000], to.local_addr().expect("address")).expect("send");
    let mut bytes = [0; 20_000];
    (0..10).all(|_| to.recv_from(&mut bytes).is_ok_and(|(length, _)| length == 1000))
}

#[test]
fn udp_segments_of_pods_arrive_by_tunnel() {
    for (way, paths) in with_paths() {
        let (mut a, mut b) = pair_by(way, paths);
        let (from, to) = (a.pod(10), b.pod(20));
        prepare(&from);
        for family in Family::ALL {
            assert!(ten_arrive(&from.udp(family, 0), &to.udp(family, 0)), "over {family} by {way:?}");
        }
        assert_eq!(a.drops(), []);
    }
}

/// Nobody prepares the node's own devices as the CNI plugin does a pod's.
#[test]
fn udp_segments_of_the_node_arrive_by_tunnel() {
    for (way, paths) in with_paths() {
        let (a, mut b) = pair_by(way, paths);
        let to = b.pod(20);
        for family in Family::ALL {
            let own = udp(&a.netns, router(&a, family), 0);
            assert!(ten_arrive(&own, &to.udp(family, 0)), "over {family} by {way:?}, {paths:?}");
        }
        for node in [&a, &b] {
            assert_eq!(node.drops(), []);
        }
    }
}

/// A VXLAN of the pods' own between `pod` and `peer`, in which `pod` has an address.
fn make_own_tunnel(pod: &Pod, peer: &Pod, own: &str, far: &str) {
    let (local, remote) = (pod.ip(Family::V4), peer.ip(Family::V4));
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (local, remote) else { panic!("IPv4") };
    let make = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().expect("socket");
            let connection = tokio::spawn(connection);
            let device = LinkMessageBuilder::<LinkVxlan>::new("own0").id(5).port(4789).local(local).remote(remote);
            handle.link().add(device.mtu(1380).build()).execute().await.expect("vxlan device");
            connection.abort();
            let netlink = Netlink::new().expect("socket");
            let index = netlink.link("own0").await.expect("device").index;
            netlink.set_up(index).await.expect("up");
            netlink.add_address(index, own.parse().expect("address")).await.expect("address");
            netlink.replace_route(&Route::new(far.parse().expect("net"), index, 4)).await.expect("route");
        });
    };
    pod.netns.run(make).expect("namespace");
}

#[test]
fn a_pods_own_tunnel_goes_through_ours() {
    for (way, paths) in with_paths() {
        let (mut a, mut b) = pair_by(way, paths);
        let (from, to) = (a.pod(10), b.pod(20));
        prepare(&from);
        prepare(&to);
        make_own_tunnel(&from, &to, "172.31.0.1/32", "172.31.0.2/32");
        make_own_tunnel(&to, &from, "172.31.0.2/32", "172.31.0.1/32");
        let ends: [(&NetNs, &NetNs, &str); 2] =
            [(&from.netns, &to.netns, "172.31.0.2"), (&to.netns, &from.netns, "172.31.0.1")];
        for (one, other, address) in ends {
            assert!(pings(one, ip(address)), "echo, {way:?}");
            assert!(exchanges_tcp(one, other, ip(address)), "TCP, {way:?}");
        }
        for node in [&a, &b] {
            assert_eq!(node.drops(), []);
        }
    }
}
