//! A node on the same link whose uplink carries less than this one's: its pods are reached by packets that fit.

use std::{net::UdpSocket, time::Duration};

use kinesin_core::values::{Carrier, Family};
use kinesin_netlink::{Netlink, Route};

use crate::{
    node::Node,
    nodes,
    pod::{exchanges_tcp, expect_icmp, hears_nothing, udp},
    tunnels::{self, Way, router, send_without_df, underlay},
};

/// What the second node's uplink carries, of the first one's 1500.
const NARROW: u32 = 1400;

/// Datagrams until one counts as lost.
const ATTEMPTS: usize = 20;

/// Makes the second node's uplink narrow, as both nodes come to know.
fn narrow(a: &mut Node, b: &mut Node) {
    b.block(|| async {
        let netlink = Netlink::new().expect("socket");
        netlink.set_mtu(netlink.link("eth0").await.expect("uplink").index, NARROW).await.expect("MTU");
    });
    b.spec.device_mtu_bytes = NARROW;
    b.apply().expect("apply");
    for path in &mut a.paths {
        path.mtu_bytes = Some(NARROW);
    }
    a.spec.narrow_peers = b.spec.addresses.iter().map(|ip| (*ip, NARROW)).collect();
    assert!(a.apply().expect("apply").changes > 0);
    assert_eq!(a.apply().expect("apply").changes, 0);
}

/// What fits is told and fits, what may be cut arrives, and everybody else is told nothing; `fits` is what is left for pods.
fn reached_by_what_fits(a: &mut Node, b: &mut Node, fits: u32, what: &str) {
    let (from, near, to) = (a.pod(10), a.pod(11), b.pod(20));
    let payload = |family: Family, bytes: u32| vec![7; bytes as usize - if family == Family::V4 { 28 } else { 48 }];
    let is_too_big = |found: &[u8], family: Family| found[..2] == if family == Family::V4 { [3, 4] } else { [2, 0] };
    for family in Family::ALL {
        let (listener, nearby) = (to.udp(family, 0), near.udp(family, 0));
        let (socket, errors) = (from.udp(family, 0), from.icmp(family));
        assert!(
            arrives(&socket, &nearby, &payload(family, 1500)),
            "{what}, {family}: this node's pods take what they took"
        );

        socket.send_to(&payload(family, fits + 1), listener.local_addr().expect("address")).expect("send");
        let (sender, message) = expect_icmp(&errors, |found| is_too_big(found, family)).expect("the error arrives");
        assert_eq!(sender, router(a, family), "{what}");
        assert_eq!(u32::from(u16::from_be_bytes([message[6], message[7]])), fits, "{what}, {family}");
        assert!(hears_nothing(&listener), "{what}, {family}");
        assert!(arrives(&socket, &listener, &payload(family, fits)), "{what}, {family}: {fits} bytes fit");
        assert!(exchanges_tcp(&from.netns, &to.netns, to.ip(family)), "{what}, {family}");

        // The node itself is reached as the network is.
        from.udp(family, 0).send_to(&payload(family, 1500), (underlay(b, family), 9)).expect("send");
        let told = expect_icmp(&errors, |found| is_too_big(found, family) && found[6..8] == NARROW.to_be_bytes()[2..]);
        assert!(told.is_some(), "{what}, {family}: the node itself");

        // The stack cuts what may be cut: its own, and what is not marked "don't fragment".
        let own = udp(&a.netns, router(a, family), 0);
        assert!(
            arrives(&own, &listener, &[7; 4000]),
            "{what}, {family}: the node's own, {:?} {:?}",
            a.drops(),
            b.drops()
        );
    }
    let listener = to.udp(Family::V4, 0);
    listener.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let port = listener.local_addr().expect("address").port();
    let is_received = (0..ATTEMPTS).any(|_| {
        send_without_df(&from, to.ip(Family::V4), port, 1460);
        let received = listener.recv_from(&mut [0; 2048]);
        received.is_ok_and(|(length, peer)| (length, peer.ip()) == (1460, from.ip(Family::V4)))
    });
    assert!(is_received, "{what}: what may be cut");
}

/// Whether a datagram arrives whole; the first ones may be lost while a busy machine finds its neighbours.
fn arrives(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) -> bool {
    to.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    (0..ATTEMPTS).any(|_| {
        // After an error the kernel tells of it once, and then cuts what is too long.
        let _ = from.send_to(payload, to.local_addr().expect("address"));
        to.recv_from(&mut [0; 8000]).is_ok_and(|(length, _)| length == payload.len())
    })
}

#[test]
fn a_narrower_node_is_reached_natively_by_what_fits() {
    let (mut a, mut b) = nodes::pair(1500, true);
    a.settle();
    b.settle();
    narrow(&mut a, &mut b);
    let routes: Vec<_> = b.spec.pod_cidrs.iter().map(|cidr| (*cidr, underlay(&b, Family::of_net(cidr)))).collect();
    a.block(move || async move {
        let netlink = Netlink::new().expect("socket");
        let uplink = netlink.link("eth0").await.expect("uplink").index;
        for (cidr, via) in routes {
            let route = Route { via: Some(via), mtu: Some(NARROW), ..Route::new(cidr, uplink, 4) };
            netlink.replace_route(&route).await.expect("route");
        }
    });
    reached_by_what_fits(&mut a, &mut b, NARROW, "native");
}

#[test]
fn a_narrower_node_is_reached_by_tunnels_by_what_fits() {
    for (carrier, under, path) in [
        (Carrier::Vxlan, Family::V4, "bpf"),
        (Carrier::Vxlan, Family::V4, "device"),
        (Carrier::Geneve, Family::V6, "bpf"),
    ] {
        let way = Way { carrier, under, is_direct: true, is_told: false };
        let (mut a, mut b) = tunnels::pair_by(way, [path, path]);
        narrow(&mut a, &mut b);
        let fits = NARROW - if under == Family::V4 { 50 } else { 70 };
        tunnels::route(&a, &b, fits);
        reached_by_what_fits(&mut a, &mut b, fits, &format!("{carrier} over {under} by {path}"));
    }
}
