//! Tunnels and those who are not ours: whoever pretends to be a node. (`stock.rs` has the kernel's devices.)

use kinesin_abi::DropReason;
use kinesin_core::values::Family;
use kinesin_netlink::{NetNs, Netlink};
use kinesin_packet::samples::packets::{Draft, draft, geneve, udp as datagram, udp_around, vxlan};

use crate::{
    node::{Node, Ways, ip},
    pod::{Pod, hears_nothing, packet, send_frame},
    tunnels::{open_to, underlay},
};

/// A node with a pod that listens, and the wire to its uplink.
pub(crate) struct Target {
    pub(crate) node: Node,
    pub(crate) pod: Pod,
    wire: std::net::UdpSocket,
    uplink_mac: [u8; 6],
}

pub(crate) const PEER4: &str = "192.168.10.102";
pub(crate) const PEER6: &str = "fd00:192:168:10::2";

impl Target {
    /// `tunnel_path` is the chassis' option.
    pub(crate) fn new(tunnel_path: &'static str) -> Self {
        let mut node = Node::unapplied(Ways::Default);
        node.tunnel_path = tunnel_path;
        node.restart();
        open_to(&mut node, &[ip(PEER4), ip(PEER6)]);
        node.apply().expect("apply");
        let pod = node.pod(10);
        let uplink_mac = node.block(|| async { Netlink::new().expect("socket").link("eth0").await.expect("eth0").mac });
        let outside = node.outside.as_ref().expect("the wire's other end");
        let wire = packet(outside, raise(outside));
        Self { node, pod, wire, uplink_mac }
    }

    pub(crate) fn send(&self, mut outer: Draft) {
        outer.eth_destination = self.uplink_mac;
        send_frame(&self.wire, &outer.bytes());
    }
}

fn raise(outside: &NetNs) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let netlink = Netlink::in_netns(outside).expect("socket");
        let index = netlink.link("eth0").await.expect("far end").index;
        netlink.set_up(index).await.expect("up");
        index
    })
}

#[test]
fn only_nodes_are_heard_through_tunnels() {
    for path in ["bpf", "device"] {
        hear_only_nodes(&Target::new(path));
    }
}

fn hear_only_nodes(target: &Target) {
    let listener = target.pod.udp(Family::V4, 5000);
    let frame = draft("10.244.2.20", "10.244.1.10", 17, datagram(4000, 5000, 16)).bytes();
    let carriers = [(8472, vxlan(0x1234, &frame)), (6081, geneve(0x1234, &[], &frame))];
    let (own4, own6) = (underlay(&target.node, Family::V4).to_string(), underlay(&target.node, Family::V6).to_string());
    let before = target.node.counted(DropReason::UnknownSender as u8);
    for (port, data) in &carriers {
        for stranger in ["192.168.10.99", "10.244.2.20", "203.0.113.5"] {
            target.send(draft(stranger, &own4, 17, udp_around(50000, *port, data)));
        }
        target.send(draft("fd00:192:168:10::99", &own6, 17, udp_around(50000, *port, data)));
    }
    assert!(hears_nothing(&listener));
    assert_eq!(target.node.counted(DropReason::UnknownSender as u8) - before, 8);
    // The same from nodes is heard.
    listener.set_read_timeout(Some(std::time::Duration::from_secs(2))).expect("timeout");
    for (port, data) in &carriers {
        target.send(draft(PEER4, &own4, 17, udp_around(50000, *port, data)));
        target.send(draft(PEER6, &own6, 17, udp_around(50000, *port, data)));
        for _ in 0..2 {
            assert_eq!(listener.recv_from(&mut [0; 64]).expect("it arrives").1.ip(), ip("10.244.2.20"));
        }
    }
}

#[test]
fn no_way_round_leads_into_the_kernels_own_device() {
    for path in ["bpf", "device"] {
        find_no_way_round(&Target::new(path));
    }
}

fn find_no_way_round(target: &Target) {
    let listener = target.pod.udp(Family::V4, 5000);
    let frame = draft("10.244.2.20", "10.244.1.10", 17, datagram(4000, 5000, 16)).bytes();
    let data = udp_around(50000, 8472, &vxlan(0x1234, &frame));
    let own4 = underlay(&target.node, Family::V4).to_string();
    let router = target.node.spec.router[0].to_string();
    let before = |reason| target.node.counted(reason as u8);
    // At another address of the node, and at its link's broadcast address.
    let forbidden = before(DropReason::TunnelForbidden);
    target.send(draft(PEER4, &router, 17, data.clone()));
    target.send(draft(PEER4, "192.168.10.255", 17, data.clone()));
    assert!(hears_nothing(&listener));
    assert_eq!(before(DropReason::TunnelForbidden) - forbidden, 2);
    // In fragments: the first one ends here, so that the stack never has all.
    let fragmented = before(DropReason::Fragmented);
    let (first, rest) = data.split_at(48);
    target.send(draft(PEER4, &own4, 17, first.to_vec()).fragment(0x2000));
    target.send(draft(PEER4, &own4, 17, rest.to_vec()).fragment(48 / 8));
    assert!(hears_nothing(&listener));
    assert_eq!(before(DropReason::Fragmented) - fragmented, 1);
    // At the link-local address, which is in no table: the kernel takes it off, and it ends on the device.
    let own = target.node.block(|| async {
        let netlink = Netlink::new().expect("socket");
        let index = netlink.link("eth0").await.expect("eth0").index;
        let all = netlink.addresses_of(index).await.expect("addresses");
        all.into_iter().find(|net| net.to_string().starts_with("fe80")).expect("a link-local address").addr()
    });
    let strangers = before(DropReason::UnknownSender);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while before(DropReason::UnknownSender) == strangers {
        assert!(std::time::Instant::now() < end, "the device sees it");
        // The address may be used only once the kernel has seen that nobody else has it.
        target.send(draft("fe80::99", &own.to_string(), 17, data.clone()));
        assert!(hears_nothing(&listener));
    }
}
