//! The kernel's own tunnel devices at the other end of our tunnels: either understands the other.
//!
//! A kernel that lacks a device skips its test. Where all are wanted (`KINESIN_REQUIRE_TUNNEL_DEVICES`, which
//! `./x kernels` sets in its machines), that is a failure.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_abi::{DropReason, tunnel::INNER_DESTINATION};
use kinesin_core::{
    routing::Path,
    values::{Carrier, Family},
};
use kinesin_netlink::{Netlink, Route};
use kinesin_packet::samples::packets::{draft, geneve, udp as datagram, udp_around};
use nix::libc::EOPNOTSUPP;
use rtnetlink::{
    LinkMessageBuilder, LinkUnspec, LinkVxlan, RouteMessageBuilder,
    packet_route::{
        link::{InfoData, InfoGeneve, InfoKind, LinkMessage},
        route::{RouteGeneveOpt, RouteIp6Tunnel, RouteIpTunnel, RouteLwTunnelOpt, RouteMessage},
    },
};

use crate::{
    node::{Node, Ways, ip},
    pod::{Pod, exchanges_tcp, exchanges_udp, packet, pings, send_frame, udp},
    tunnels::{open_to, underlay},
};

/// Addresses behind the device, with what is behind ours.
const BEHIND: [(&str, &str); 2] =
    [("10.244.2.20/32", "10.244.1.0/24"), ("fd00:10:244:2::14/128", "fd00:10:244:1::/64")];
/// Fits the underlay of 1500 bytes with the headers of either family and options.
const MTU: u32 = 1400;
/// Longer than any frame on a link with an MTU of 1500: several segments at once.
const SUPERPACKET: usize = 3000;

/// Ends a test that this kernel cannot run.
pub(crate) fn skip(missing: &str) {
    let wanted = env::var_os("KINESIN_REQUIRE_TUNNEL_DEVICES").is_some();
    assert!(!wanted, "the kernel has no {missing}");
    eprintln!("skipped: the kernel has no {missing}");
}

/// A kind of device of the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stock {
    /// `ip link add type vxlan id N remote PEER`.
    Vxlan,
    /// `ip link add type geneve id N remote PEER`.
    Geneve,
    /// `ip link add type geneve external`; its routes name the peer, and add options.
    GeneveWithOptions,
}

impl Stock {
    fn carrier(self) -> Carrier {
        if self == Self::Vxlan { Carrier::Vxlan } else { Carrier::Geneve }
    }

    fn port(self) -> u16 {
        if self == Self::Vxlan { 8472 } else { 6081 }
    }

    fn message(self, own: IpAddr, peer: IpAddr, vni: u32) -> LinkMessage {
        let remote = match peer {
            IpAddr::V4(peer) => InfoGeneve::Remote(peer),
            IpAddr::V6(peer) => InfoGeneve::Remote6(peer),
        };
        // Over IPv6 our datagrams have no checksum (RFC 6936), which is to be allowed.
        let common = vec![InfoGeneve::Port(6081), InfoGeneve::UdpZeroCsum6Rx(true)];
        let geneve = |more: Vec<InfoGeneve>| {
            let device = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Geneve).name("stock0");
            device
                .set_info_data(InfoData::Geneve([common, more].concat()))
                .address(INNER_DESTINATION.to_vec())
                .mtu(MTU)
                .build()
        };
        match self {
            Self::Vxlan => {
                let device = LinkMessageBuilder::<LinkVxlan>::new("stock0").id(vni).port(8472).learning(false);
                let device = match (own, peer) {
                    (IpAddr::V4(own), IpAddr::V4(peer)) => device.local(own).remote(peer),
                    (IpAddr::V6(own), IpAddr::V6(peer)) => device.local6(own).remote6(peer).udp_zero_csum6_rx(true),
                    mixed => panic!("{mixed:?}"),
                };
                device.address(INNER_DESTINATION.to_vec()).mtu(MTU).build()
            }
            Self::Geneve => geneve(vec![InfoGeneve::Id(vni), remote]),
            Self::GeneveWithOptions => geneve(vec![InfoGeneve::CollectMetadata]),
        }
    }

    /// Gives a node that has no chassis the device `stock0`; the answer is no where the kernel has none of this kind.
    fn make(self, node: &Node, peer: IpAddr, vni: u32) -> bool {
        let message = self.message(underlay(node, Family::of(&peer)), peer, vni);
        node.block(move || async move {
            let (connection, handle, _) = rtnetlink::new_connection().expect("socket");
            let connection = tokio::spawn(connection);
            match handle.link().add(message).execute().await {
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -EOPNOTSUPP => return false,
                made => made.expect("a device"),
            }
            let netlink = Netlink::new().expect("socket");
            let index = netlink.link("stock0").await.expect("device").index;
            // There is nobody who answers ARP: the frame itself tells nothing to us.
            netlink.set_noarp(index).await.expect("no ARP");
            netlink.set_up(index).await.expect("up");
            for (address, pods) in BEHIND {
                netlink.add_address(index, address.parse().expect("address")).await.expect("address");
                let pods = pods.parse().expect("net");
                if self == Self::GeneveWithOptions {
                    let route = by_encapsulation(pods, index, peer, vni);
                    handle.route().add(route).execute().await.expect("route");
                } else {
                    netlink.replace_route(&Route::new(pods, index, 4)).await.expect("route");
                }
            }
            connection.abort();
            true
        })
    }
}

/// `ip route add PODS encap ip id VNI dst PEER geneve_opts ... dev stock0`: two options that nobody knows.
fn by_encapsulation(pods: IpNet, index: u32, peer: IpAddr, vni: u32) -> RouteMessage {
    let option = |typ: u8, data: &[u8]| {
        let mut option = RouteGeneveOpt::default();
        (option.class, option.typ, option.data) = (0x0102, typ, data.to_vec());
        option
    };
    // The kernel takes one of each attribute.
    let options =
        || [option(3, &[1, 2, 3, 4]), option(4, &[5; 12])].map(|it| RouteLwTunnelOpt::Geneve(vec![it])).to_vec();
    let route = RouteMessageBuilder::<IpAddr>::new().output_interface(index);
    let route = route.destination_prefix(pods.addr(), pods.prefix_len()).expect("a prefix");
    let route = match peer {
        IpAddr::V4(peer) => {
            let id = RouteIpTunnel::Id(vni.into());
            route.encap_ip(vec![id, RouteIpTunnel::Destination(peer), RouteIpTunnel::Opts(options())])
        }
        IpAddr::V6(peer) => {
            let id = RouteIp6Tunnel::Id(vni.into());
            route.encap_ip6(vec![id, RouteIp6Tunnel::Destination(peer), RouteIp6Tunnel::Opts(options())])
        }
    };
    route.build()
}

/// What is seen of a tunnel at the device's end of the wire: from the device, and to it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The longest frames.
    longest: [usize; 2],
    /// The most bytes of Geneve's options.
    options: [usize; 2],
}

impl Seen {
    fn look(&mut self, frame: &[u8], own: IpAddr, port: u16) {
        let header = match own {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        };
        let (Some(ip), Some(udp)) = (frame.get(14..14 + header), frame.get(14 + header..14 + header + 9)) else {
            return;
        };
        let (kind, protocol, source): (_, _, IpAddr) = match own {
            IpAddr::V4(_) => ([8, 0], ip[9], Ipv4Addr::from(<[u8; 4]>::try_from(&ip[12..16]).expect("four")).into()),
            IpAddr::V6(_) => {
                ([0x86, 0xdd], ip[6], Ipv6Addr::from(<[u8; 16]>::try_from(&ip[8..24]).expect("sixteen")).into())
            }
        };
        if frame[12..14] != kind || protocol != 17 || udp[2..4] != port.to_be_bytes() {
            return;
        }
        let way = usize::from(source != own);
        self.longest[way] = self.longest[way].max(frame.len());
        if port == 6081 {
            self.options[way] = self.options[way].max(usize::from(udp[8] & 0x3f) * 4);
        }
    }
}

/// Looks at the wire until it is asked.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Seen>,
}

impl Watch {
    fn start(stock: &Node, own: IpAddr, port: u16) -> Self {
        let index = stock.block(|| async { Netlink::new().expect("socket").link("eth0").await.expect("eth0").index });
        let socket = packet(&stock.netns, index);
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut seen, mut bytes) = (Seen::default(), vec![0; 1 << 17]);
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut bytes) {
                    seen.look(&bytes[..length], own, port);
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch")
    }
}

/// A node with a chassis and a pod, and one with a stock device; none where the kernel lacks it.
fn pair_with(stock: Stock, under: Family) -> Option<(Node, Pod, Node)> {
    let (mut node, other) = (Node::new(1, Ways::Default), Node::new(2, Ways::Default));
    node.connect(&other.netns, 1500);
    other.connect(&node.netns, 1500);
    node.settle();
    other.settle();
    let peers = other.spec.addresses.clone();
    open_to(&mut node, &peers);
    node.spec.route_mtu_bytes = MTU;
    let peer = underlay(&other, under);
    let carrier = stock.carrier();
    let path = |prefix: &IpNet| Path { prefix: *prefix, node: peer, carrier, next_hop: Some(peer), mtu_bytes: None };
    node.paths = other.spec.pod_cidrs.iter().map(path).collect();
    node.apply().expect("apply");
    let pod = node.pod(10);
    let is_made = stock.make(&other, underlay(&node, under), pod.endpoint.identity.0);
    is_made.then_some((node, pod, other))
}

fn talk_with(stock: Stock) {
    for under in Family::ALL {
        let Some((node, pod, other)) = pair_with(stock, under) else { return skip(&format!("{stock:?} device")) };
        let watch = Watch::start(&other, underlay(&other, under), stock.port());
        for (family, far) in [(Family::V4, "10.244.2.20"), (Family::V6, "fd00:10:244:2::14")] {
            let what = format!("{family} over {under}, {stock:?}");
            let far = ip(far);
            assert!(pings(&pod.netns, far), "echo to it, {what}");
            assert!(pings(&other.netns, pod.ip(family)), "echo from it, {what}");
            assert!(exchanges_udp(&pod.udp(family, 0), &udp(&other.netns, far, 0)), "UDP to it, {what}");
            assert!(exchanges_udp(&udp(&other.netns, far, 0), &pod.udp(family, 0)), "UDP from it, {what}");
            assert!(exchanges_tcp(&pod.netns, &other.netns, far), "TCP to it, {what}");
            assert!(exchanges_tcp(&other.netns, &pod.netns, pod.ip(family)), "TCP from it, {what}");
        }
        let seen = watch.end();
        assert!(seen.longest.iter().all(|length| *length > SUPERPACKET), "segments go together, {under}: {seen:?}");
        // Those of by_encapsulation with their headers, and never one of ours.
        let options = if stock == Stock::GeneveWithOptions { 4 + 4 + 4 + 12 } else { 0 };
        assert_eq!(seen.options, [options, 0], "{under}");
        // The device's kernel speaks to groups, as on any link.
        let drops = node.drops();
        assert!(drops.iter().all(|drop| drop.reason == DropReason::Multicast as u8), "{stock:?}, {under}: {drops:?}");
    }
}

#[test]
fn the_kernels_vxlan_device_understands_us_and_we_it() {
    talk_with(Stock::Vxlan);
}

#[test]
fn the_kernels_geneve_device_understands_us_and_we_it() {
    talk_with(Stock::Geneve);
}

#[test]
fn options_that_nobody_knows_are_accepted_from_the_kernels_geneve_device() {
    talk_with(Stock::GeneveWithOptions);
}

#[test]
fn a_critical_option_ends_the_packet_and_another_does_not() {
    let (mut node, other) = (Node::new(1, Ways::Default), Node::new(2, Ways::Default));
    node.connect(&other.netns, 1500);
    other.connect(&node.netns, 1500);
    let peers = other.spec.addresses.clone();
    open_to(&mut node, &peers);
    node.apply().expect("apply");
    let pod = node.pod(10);
    let listener = pod.udp(Family::V4, 5000);
    let uplink =
        |node: &Node| node.block(|| async { Netlink::new().expect("socket").link("eth0").await.expect("eth0") });
    let wire = packet(&other.netns, uplink(&other).index);
    let mac = uplink(&node).mac;
    let frame = draft("10.244.2.20", "10.244.1.10", 17, datagram(4000, 5000, 16)).bytes();
    for under in Family::ALL {
        let [from, to] = [underlay(&other, under), underlay(&node, under)].map(|address| address.to_string());
        let send = |data: &[u8]| {
            let mut outer = draft(&from, &to, 17, udp_around(50000, 6081, data));
            outer.eth_destination = mac;
            send_frame(&wire, &outer.bytes());
        };
        let before = node.counted(DropReason::GeneveOption as u8);
        // The type's first bit says that the option must be understood, and the header's that there is such a one
        // (RFC 8926 sections 3.4 and 3.5). Class and type are nobody's.
        let mut critical = geneve(0x1234, &[1, 2, 0x83, 1, 5, 6, 7, 8], &frame);
        critical[1] |= 0x40;
        send(&critical);
        let end = Instant::now() + Duration::from_secs(10);
        while node.counted(DropReason::GeneveOption as u8) != before + 1 {
            assert!(Instant::now() < end, "it is counted, over {under}");
            thread::sleep(Duration::from_millis(5));
        }
        send(&geneve(0x1234, &[1, 2, 0x03, 1, 5, 6, 7, 8], &frame));
        assert_eq!(listener.recv_from(&mut [0; 64]).expect("it arrives").1.ip(), ip("10.244.2.20"));
        listener.set_nonblocking(true).expect("mode");
        assert!(listener.recv(&mut [0; 64]).is_err(), "the critical one did not arrive, over {under}");
        listener.set_nonblocking(false).expect("mode");
    }
}
