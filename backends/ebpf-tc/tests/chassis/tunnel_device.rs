//! Tunnels by the kernel's own device: the same packets, the same refusals, and nothing lost between the two ways.

use std::{fs, net::UdpSocket, thread, time::Duration};

use kinesin_abi::DropReason;
use kinesin_core::{
    chassis::ChassisReport,
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_netlink::{NetNs, Netlink, TunnelKind, TunnelSpec};
use kinesin_packet::samples::packets::{Draft, draft, icmp, tcp, udp as datagram, udp_around, vxlan};

use crate::{
    node::{Node, Ways, ip},
    outage::Stream,
    pod::{exchanges_udp, hears_nothing, packet, pings},
    tunnel_strangers::{PEER4, PEER6, Target},
    tunnels::{Way, answer_what_is_too_big, open_to, pair_by, talk, underlay},
};

const BY_V4: Way = Way { carrier: Carrier::Vxlan, under: Family::V4, is_direct: true, is_told: true };
const BY_V6: Way = Way { carrier: Carrier::Vxlan, under: Family::V6, is_direct: false, is_told: true };

/// Packets that `cilium_vxlan` has received and sent.
fn through_device(node: &Node) -> (u64, u64) {
    let text = node.run(|_| fs::read_to_string("/proc/thread-self/net/dev").expect("the namespace's devices"));
    let line = text.lines().find_map(|line| line.trim().strip_prefix("cilium_vxlan:")).expect("the device");
    let number =
        |at: usize| line.split_ascii_whitespace().nth(at).and_then(|word| word.parse().ok()).expect("a number");
    (number(1), number(9))
}

/// Who puts VXLAN on, by the chassis' own word.
fn path_of(report: &ChassisReport, carrier: Carrier) -> &'static str {
    let found: Vec<_> = report.tunnel_paths.iter().filter(|found| found.carrier == carrier).collect();
    let [only] = found[..] else { panic!("one uplink: {found:?}") };
    assert_eq!(only.uplink, "eth0");
    assert!(!only.reason.is_empty());
    only.path
}

#[test]
fn pods_and_nodes_reach_each_other_by_device_and_by_program_in_any_mixture() {
    for (way, paths) in [
        (BY_V4, ["device", "device"]),
        (BY_V4, ["device", "bpf"]),
        (BY_V6, ["device", "device"]),
        (BY_V6, ["device", "bpf"]),
    ] {
        let (mut a, mut b) = pair_by(way, paths);
        talk(&mut a, &mut b, &format!("{way:?}, {paths:?}"));
        for (node, path) in [(&a, paths[0]), (&b, paths[1])] {
            assert_eq!(path_of(&node.apply().expect("apply"), Carrier::Vxlan), path);
            let (received, sent) = through_device(node);
            assert_eq!((received > 0, sent > 0), (path == "device", path == "device"), "{way:?} {paths:?}");
        }
    }
}

#[test]
fn what_is_too_big_for_the_device_is_answered_as_by_programs() {
    answer_what_is_too_big(Way { is_told: false, ..BY_V4 }, ["device", "bpf"]);
    answer_what_is_too_big(Way { is_told: false, is_direct: true, ..BY_V6 }, ["device", "device"]);
}

/// Gives the wire's other end the peer's addresses, so that it answers for them.
fn answer_for_the_peer(outside: &NetNs) -> UdpSocket {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let index = runtime.block_on(async {
        let netlink = Netlink::in_netns(outside).expect("socket");
        let index = netlink.link("eth0").await.expect("far end").index;
        netlink.set_up(index).await.expect("up");
        for (address, length) in [(PEER4, 24), (PEER6, 64)] {
            let net = ipnet::IpNet::new(ip(address), length).expect("length");
            netlink.add_address(index, net).await.expect("address");
        }
        index
    });
    // The kernel uses the address once it has seen that nobody else has it.
    let is_usable = || outside.run(|| UdpSocket::bind((ip(PEER6), 0)).is_ok()).expect("namespace");
    until("the peer's address is usable", is_usable);
    packet(outside, index)
}

/// The first packet of a tunnel that comes by.
fn next_of_tunnel(wire: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 2048];
    for _ in 0..1000 {
        let length = wire.recv(&mut bytes).expect("it comes by");
        let frame = &bytes[..length];
        let udp = match frame[12..14] {
            [0x08, 0x00] if frame[23] == 17 => 34,
            [0x86, 0xdd] if frame[20] == 17 => 54,
            _ => continue,
        };
        if frame[udp + 2..udp + 4] == 8472_u16.to_be_bytes() {
            return frame.to_vec();
        }
    }
    panic!("no packet of a tunnel in a thousand")
}

/// Without what the kernel lets nobody choose: the identification of an outer IPv4 header, and so its checksum.
fn without_identification(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [0x08, 0x00] {
        assert_eq!(kinesin_packet::samples::packets::checksum(&frame[14..34]), 0, "the outer checksum");
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

#[test]
fn the_bytes_on_the_wire_are_those_of_programs() {
    for under in Family::ALL {
        let mut node = Node::unapplied(Ways::Default);
        open_to(&mut node, &[ip(PEER4), ip(PEER6)]);
        let peer = if under == Family::V4 { ip(PEER4) } else { ip(PEER6) };
        let far = ["10.244.2.0/24", "fd00:10:244:2::/64"].map(|prefix| prefix.parse().expect("a network"));
        let path = |prefix| Path { prefix, node: peer, carrier: Carrier::Vxlan, next_hop: Some(peer), mtu_bytes: None };
        node.paths = far.map(path).to_vec();
        node.apply().expect("apply");
        let wire = answer_for_the_peer(node.outside.as_ref().expect("the other end"));
        let pod = node.pod(10);
        let seen = ["bpf", "device"].map(|path| {
            node.tunnel_path = path;
            node.restart();
            let report = node.apply().expect("apply");
            assert_eq!(path_of(&report, Carrier::Vxlan), path);
            let mut seen = Vec::new();
            for number in 0..8_u16 {
                let [v4, v6] = [("10.244.1.10", "10.244.2.20"), ("fd00:10:244:1::a", "fd00:10:244:2::14")];
                let drafts = [
                    // DSCP 46, and ECN of every kind that the kernel carries outside as we do.
                    draft(v4.0, v4.1, 17, datagram(4000 + number, 53, 100)).class(0xb8 | (number & 1) as u8),
                    draft(v6.0, v6.1, 6, tcp(usize::from(number) * 50)).class(2),
                ];
                for mut inner in drafts {
                    inner.eth_destination = pod.endpoint.host_mac.0;
                    pod.send_frame(&inner.bytes());
                    seen.push(without_identification(next_of_tunnel(&wire)));
                }
            }
            seen
        });
        let [by_programs, by_device] = &seen;
        for (one, other) in by_programs.iter().zip(by_device) {
            assert_eq!(one, other, "over {under}");
        }
        let ports: std::collections::BTreeSet<_> = by_device.iter().map(|frame| frame[34..36].to_vec()).collect();
        assert!(under == Family::V6 || ports.len() > 8, "flows have ports of their own: {ports:?}");
        assert_eq!(node.drops(), []);
    }
}

/// A packet in VXLAN from the peer, with this class outside.
fn from_peer(target: &Target, class: u8, frame: &[u8]) -> Draft {
    let own4 = underlay(&target.node, Family::V4).to_string();
    draft(PEER4, &own4, 17, udp_around(50000, 8472, &vxlan(0x1234, frame))).class(class)
}

#[test]
fn what_programs_refuse_in_a_tunnel_is_refused_under_the_same_reason() {
    let targets = ["bpf", "device"].map(Target::new);
    let inner = || draft("10.244.2.20", "10.244.1.10", 17, datagram(4000, 5000, 16));
    let whole = inner().bytes();
    let mut tagged = whole[..12].to_vec();
    tagged.extend([0x81, 0x00, 0x00, 0x05]);
    tagged.extend(&whole[12..]);
    let strange = [&whole[..12], &[0x88, 0xcc], &whole[14..]].concat();
    let mut flags = udp_around(50000, 8472, &vxlan(0x1234, &whole));
    flags[8] = 0x0c;
    for target in &targets {
        let own4 = underlay(&target.node, Family::V4).to_string();
        let of_data = |data: Vec<u8>| draft(PEER4, &own4, 17, data);
        let network = |vni| of_data(udp_around(50000, 8472, &vxlan(vni, &whole)));
        let group = draft("10.244.2.20", "239.1.1.1", 17, datagram(4000, 5000, 16)).bytes();
        let foreign = draft("10.244.1.10", "10.244.1.10", 17, datagram(4000, 5000, 16)).bytes();
        // About an error nobody is told.
        let error = |to| draft("10.244.2.20", to, 1, icmp(3, 28));
        let nobody = error("10.244.1.99").bytes();
        let listener = target.pod.udp(Family::V4, 5000);
        for (what, outer, reason) in [
            ("congestion", from_peer(target, 3, &whole), DropReason::Congestion),
            ("a VLAN tag", from_peer(target, 0, &tagged), DropReason::VlanForbidden),
            ("no IP", from_peer(target, 0, &strange), DropReason::UnsupportedProtocol),
            ("cut short", from_peer(target, 0, &whole[..20]), DropReason::InvalidPacket),
            ("other flags", of_data(flags.clone()), DropReason::InvalidTunnel),
            ("network 0", network(0), DropReason::InvalidIdentity),
            ("the node's identity", network(1), DropReason::InvalidIdentity),
            ("a group", from_peer(target, 0, &group), DropReason::Multicast),
            ("a source of this node", from_peer(target, 0, &foreign), DropReason::InvalidSource),
            ("nobody", from_peer(target, 0, &nobody), DropReason::Unroutable),
            ("TTL 1", from_peer(target, 0, &error("10.244.1.10").ttl(1).bytes()), DropReason::TtlExceeded),
        ] {
            let before = target.node.counted(reason as u8);
            target.send(outer);
            until(&format!("{what}, {}", target.node.tunnel_path), || target.node.counted(reason as u8) == before + 1);
        }
        // Congestion that the packet can carry gets in, and to the pod.
        assert!(hears_nothing(&listener));
        listener.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
        target.send(from_peer(target, 3, &inner().class(2).bytes()));
        assert!(listener.recv(&mut [0; 64]).is_ok(), "{}", target.node.tunnel_path);
    }
}

/// Waits, ten seconds at most, until it is so.
fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}

/// The namespace's devices by name, and the programs' links on them by pin.
fn left_behind(node: &Node) -> (Vec<String>, Vec<String>) {
    let links = node.pins().join("links");
    node.block(move || async move {
        let names = Netlink::new().expect("socket").links().await.expect("list");
        let pins = fs::read_dir(links).expect("links").map(|entry| entry.expect("entry").file_name());
        let (mut names, mut pins): (Vec<_>, Vec<_>) = (
            names.into_iter().map(|link| link.name).collect(),
            pins.map(|name| name.to_string_lossy().into()).collect(),
        );
        names.sort();
        pins.sort();
        (names, pins)
    })
}

#[test]
fn one_way_follows_the_other_without_loss_and_leaves_nothing() {
    let (mut a, mut b) = pair_by(BY_V4, ["bpf", "bpf"]);
    let (one, other) = (a.pod(10), b.pod(20));
    let first = [&a, &b].map(left_behind);
    let streams: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| [Stream::start(&one, &other, family), Stream::start(&other, &one, family)])
        .collect();
    for path in ["device", "bpf", "auto", "device"] {
        for node in [&mut a, &mut b] {
            node.tunnel_path = path;
            node.restart();
            node.apply().expect("apply");
            // A mixed pair for a while.
            thread::sleep(Duration::from_millis(60));
            assert_eq!(node.apply().expect("apply").changes, 0, "{path}");
        }
    }
    for (number, stream) in streams.into_iter().enumerate() {
        let (sent, received) = stream.end();
        assert!(sent > 100, "stream {number}: {sent}");
        assert_eq!(received, sent, "stream {number}");
    }
    for (node, first) in [&a, &b].into_iter().zip(first) {
        assert_eq!(left_behind(node), first, "one way leaves nothing to the other");
        assert_eq!(node.drops(), []);
    }
    for node in [&mut a, &mut b] {
        node.paths.clear();
        node.spec.tunnels.clear();
        node.apply().expect("apply");
        let names = left_behind(node).0;
        assert!(!names.iter().any(|name| name == "cilium_vxlan" || name == "cilium_geneve"), "{names:?}");
        assert_eq!(node.apply().expect("apply").changes, 0);
    }
}

#[test]
fn a_device_that_cannot_be_had_is_told_and_programs_do_its_work() {
    let (mut a, mut b) = pair_by(BY_V4, ["device", "device"]);
    let (one, other) = (a.pod(10), b.pod(20));
    // Another device has the port, with options that do not go together.
    a.block(|| async {
        let netlink = Netlink::new().expect("socket");
        netlink.delete_link_by_name("cilium_vxlan").await.expect("remove");
        let (name, kind) = ("rival", TunnelKind::Vxlan);
        netlink
            .add_tunnel(&TunnelSpec { name, kind, port: 8472, source_ports: (0, 0), mac: None })
            .await
            .expect("another one");
        netlink.set_up(netlink.link("rival").await.expect("it").index).await.expect("up");
    });
    let report = a.apply().expect("apply");
    assert_eq!(path_of(&report, Carrier::Vxlan), "bpf");
    let told = report.degraded.iter().find(|text| text.contains("vxlan is put on by programs")).expect("it is told");
    assert!(told.contains("set tunnel.path to bpf"), "{told}");
    for family in Family::ALL {
        assert!(pings(&one.netns, other.ip(family)), "{family}");
        assert!(exchanges_udp(&other.udp(family, 0), &one.udp(family, 0)), "{family}");
    }
    assert_eq!(a.apply().expect("apply").changes, 0, "what cannot be had is not tried by a new generation each time");
    a.block(|| async { Netlink::new().expect("socket").delete_link_by_name("rival").await.expect("remove") });
    let report = a.apply().expect("apply");
    assert_eq!(path_of(&report, Carrier::Vxlan), "device");
    assert!(!report.degraded.iter().any(|text| text.contains("vxlan")), "{report:?}");
    assert!(pings(&one.netns, other.ip(Family::V4)));
}

/// Geneve devices are missing in many kernels: silence where nobody asked for one, and a word where somebody did.
#[test]
fn a_kernel_without_geneve_devices_is_no_trouble_unless_one_is_asked_for() {
    for (path, is_asked) in [("auto", false), ("bpf", false), ("device", true)] {
        let mut node = Node::unapplied(Ways::Default);
        open_to(&mut node, &[ip(PEER4)]);
        node.tunnel_path = path;
        node.restart();
        let report = node.apply().expect("apply");
        let is_there = left_behind(&node).0.iter().any(|name| name == "cilium_geneve");
        assert_eq!(path_of(&report, Carrier::Geneve) == "device", is_there && is_asked, "{path}");
        let told = report.degraded.iter().filter(|text| text.contains("geneve")).count();
        assert_eq!(told, usize::from(is_asked && !is_there), "{path}: {report:?}");
        assert_eq!(node.apply().expect("apply").changes, 0);
    }
}
