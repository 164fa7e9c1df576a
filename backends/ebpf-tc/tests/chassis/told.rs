//! A router on the way to another node carries less than both ends, and says so to the node.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_abi::{EndpointKey, PathMtuValue, map};
use kinesin_core::{
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_loader::Table;
use kinesin_packet::samples::packets::{draft, tcp, too_big, udp_around, vxlan};

use crate::{
    node::{Node, ip},
    pod::{expect_icmp, hears_nothing},
    tunnel_strangers::{PEER4, Target},
    tunnels::underlay,
};

/// What the router carries, and what that leaves to pods.
const NARROW: u16 = 1380;
const FITS: u16 = NARROW - 50;

/// A node with a pod, and a way by VXLAN to pods of another node.
fn target(tunnel_path: &'static str) -> Target {
    let mut target = Target::new(tunnel_path);
    let prefixes: [IpNet; 2] = ["10.244.2.0/24", "fd00:10:244:2::/64"].map(|text| text.parse().expect("a network"));
    let path = |prefix| Path { prefix, node: ip(PEER4), carrier: Carrier::Vxlan, next_hop: None, mtu_bytes: None };
    target.node.paths = prefixes.map(path).to_vec();
    target.node.apply().expect("apply");
    target
}

fn told(node: &Node) -> BTreeMap<IpAddr, u32> {
    let chassis = Arc::clone(&node.chassis);
    node.block(move || async move { chassis.told_mtus().await }).expect("it is set up")
}

/// Waits until the node has taken in what was sent to it.
fn wait_for(node: &Node, wanted: &BTreeMap<IpAddr, u32>) {
    let end = Instant::now() + Duration::from_secs(20);
    while told(node) != *wanted {
        assert!(Instant::now() < end, "{:?} and not {wanted:?}", told(node));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The router's word about a packet between these addresses, of which it quotes so many bytes.
fn say(target: &Target, inside: [&str; 2], mtu: u16, quoted: usize) {
    let own = underlay(&target.node, Family::V4).to_string();
    let frame = draft(inside[0], inside[1], 6, tcp(1300)).bytes();
    let sent = draft(&own, PEER4, 17, udp_around(50_000, 8472, &vxlan(5, &frame))).fragment(0x4000).bytes();
    target.send(too_big("192.168.10.1", &own, mtu, &sent[14..14 + quoted]));
}

#[test]
fn a_router_that_carries_less_is_believed_until_it_is_too_long_ago() {
    for path in ["bpf", "device"] {
        let target = target(path);
        let own = target.pod.ip(Family::V4).to_string();
        let (socket, errors) = (target.pod.udp(Family::V4, 0), target.pod.icmp(Family::V4));
        let large = vec![7; usize::from(FITS) - 28 + 1];
        socket.send_to(&large, ("10.244.2.9", 9)).expect("send");
        assert!(hears_nothing(&errors), "{path}: it fits as far as anybody knows");

        // What nobody would believe, and then what is to be believed: all of it comes in by one wire, in this order.
        say(&target, [&own, "10.244.2.9"], NARROW, 28);
        say(&target, [&own, "10.244.77.9"], NARROW, 128);
        say(&target, ["10.244.1.77", "10.244.2.9"], NARROW, 128);
        say(&target, [&own, "10.244.2.9"], 0, 128);
        say(&target, [&own, "10.244.2.9"], 1500, 128);
        say(&target, [&own, "10.244.2.9"], NARROW + 10, 128);
        wait_for(&target.node, &BTreeMap::from([(ip(PEER4), u32::from(NARROW) + 10)]));
        say(&target, [&own, "10.244.2.9"], NARROW, 128);
        say(&target, [&own, "10.244.2.9"], NARROW + 5, 128);
        wait_for(&target.node, &BTreeMap::from([(ip(PEER4), NARROW.into())]));

        // Without anybody's doing.
        errors.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        socket.send_to(&large, ("10.244.2.9", 9)).expect("send");
        let (_, message) = expect_icmp(&errors, |found| found[..2] == [3, 4]).expect("the error arrives");
        assert_eq!(message[6..8], FITS.to_be_bytes(), "{path}");

        // As long ago as it may hold.
        let name = target.node.pins().join(format!("maps/{}", map::PATH_MTU));
        let aged = target.node.run(move |_| {
            let mut table = Table::<EndpointKey, PathMtuValue>::pinned(map::PATH_MTU, &name).expect("it is pinned");
            let (key, value) = table.entries().expect("read").pop_first().expect("the one");
            let ten_minutes = 600 * 1_000_000_000;
            table.insert(key, PathMtuValue { told: value.told.saturating_sub(ten_minutes), ..value }).expect("written");
            value.told > ten_minutes
        });
        if aged {
            assert_eq!(told(&target.node), BTreeMap::new(), "{path}");
        }
    }
}
