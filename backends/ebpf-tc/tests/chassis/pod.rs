//! A pod: a namespace behind a veth pair, and what a program in it would send.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_abi::SIGNALLING;
use kinesin_core::{
    chassis::EndpointSpec,
    values::{EndpointId, Family, Identity, Mac},
};
use kinesin_netlink::{NetNs, Netlink, Route, RouteScope, VethSpec};
use kinesin_packet::samples::packets::arp;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};

use crate::{node::Node, sys};

/// How long a packet that must come may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long one waits for a packet that must not come.
const SILENCE: Duration = Duration::from_millis(150);

/// A pod.
pub(crate) struct Pod {
    pub(crate) netns: NetNs,
    pub(crate) endpoint: EndpointSpec,
    ifindex: u32,
}

impl Pod {
    /// A pod whose devices are down and whose endpoint is not attached.
    pub(crate) fn new(node: &Node, number: u8) -> Self {
        let netns = NetNs::anonymous().expect("namespace");
        let (mac, host_mac) = (Mac([2, 0, 0, 1, node.number, number]), Mac([2, 0, 0, 0, node.number, number]));
        let device = format!("lxc{number}");
        let addresses =
            [format!("10.244.{}.{number}", node.number), format!("fd00:10:244:{}::{number:x}", node.number)];
        let mut endpoint = EndpointSpec {
            id: EndpointId(u16::from(number)),
            device: device.clone(),
            ifindex: 0,
            host_mac,
            mac,
            addresses: addresses.map(|address| address.parse().expect("an address")).to_vec(),
            identity: Identity(0x10_0000 + u32::from(number)),
            netns_cookie: netns.cookie().expect("cookie"),
            health: false,
        };
        let inside = NetNs::open(format!("/proc/self/fd/{}", netns.as_raw_fd())).expect("open");
        let spec = (endpoint.clone(), node.spec.router.clone(), node.spec.route_mtu_bytes);
        let (host_index, ifindex) = node.block(move || async move {
            let (endpoint, router, mtu) = spec;
            let netlink = Netlink::new().expect("socket");
            let pair = VethSpec {
                name: &endpoint.device,
                mac: Some(endpoint.host_mac.0),
                peer_name: "eth0",
                peer_mac: Some(endpoint.mac.0),
                peer_netns: Some(&inside),
                mtu: None,
            };
            netlink.add_veth(&pair).await.expect("veth");
            let host = netlink.link(&endpoint.device).await.expect("host end").index;
            let pod = Netlink::in_netns(&inside).expect("socket");
            let index = pod.link("eth0").await.expect("pod end").index;
            pod.set_up(pod.link("lo").await.expect("lo").index).await.expect("up");
            pod.set_up(index).await.expect("up");
            for address in &endpoint.addresses {
                pod.add_address(index, IpNet::from(*address)).await.expect("address");
            }
            for router in router {
                let everything = if router.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                let to_router = Route { scope: RouteScope::Link, ..Route::new(IpNet::from(router), index, 4) };
                let everywhere = Route::new(everything.parse().expect("net"), index, 4);
                let default = Route { via: Some(router), mtu: Some(mtu), ..everywhere };
                pod.replace_route(&to_router).await.expect("route");
                pod.replace_route(&default).await.expect("route");
            }
            (host, index)
        });
        endpoint.ifindex = host_index;
        Self { netns, endpoint, ifindex }
    }

    /// Raises the host end of an attached pod, as the CNI plugin does last, and waits until the pod's packets come through:
    /// a device drops what it is given until its kernel has seen the carrier (`linkwatch_do_dev`, Linux 6.18), which takes
    /// a busy machine its time.
    pub(crate) fn raise(&self, node: &Node) {
        let index = self.endpoint.ifindex;
        node.block(move || async move { Netlink::new().expect("socket").set_up(index).await.expect("up") });
        let own = self.ip(Family::V4).to_string();
        let (socket, announcement) = (self.packet(), arp(1, &own, &own));
        let end = Instant::now() + PATIENCE;
        loop {
            // More than the kernels say of their own accord meanwhile.
            let before = node.counted(SIGNALLING);
            (0..10).for_each(|_| send_frame(&socket, &announcement));
            if node.counted(SIGNALLING) >= before + 10 {
                return;
            }
            assert!(Instant::now() < end, "{} does not come up", self.endpoint.device);
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        *self.endpoint.addresses.iter().find(|ip| Family::of(ip) == family).expect("both families")
    }

    /// A UDP socket on the pod's address.
    pub(crate) fn udp(&self, family: Family, port: u16) -> UdpSocket {
        udp(&self.netns, self.ip(family), port)
    }

    /// A raw ICMP socket of the pod.
    pub(crate) fn icmp(&self, family: Family) -> UdpSocket {
        icmp(&self.netns, family)
    }

    /// A packet socket on the pod's device.
    pub(crate) fn packet(&self) -> UdpSocket {
        packet(&self.netns, self.ifindex)
    }

    /// Sends one frame as it is, past the pod's own stack.
    pub(crate) fn send_frame(&self, bytes: &[u8]) {
        send_frame(&self.packet(), bytes);
    }
}

/// A packet socket on a device in a namespace.
pub(crate) fn packet(netns: &NetNs, ifindex: u32) -> UdpSocket {
    let made = netns.run(|| {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), SockProtocol::EthAll);
        // The standard library's socket serves for its time-outs.
        let socket = UdpSocket::from(fd.expect("packet socket"));
        sys::bind_to_device(&socket, ifindex).expect("bind");
        socket
    });
    made.expect("namespace")
}

/// Sends a frame on a packet socket.
pub(crate) fn send_frame(socket: &UdpSocket, bytes: &[u8]) {
    send(socket.as_raw_fd(), bytes, MsgFlags::empty()).expect("send");
}

/// A UDP socket in a namespace.
pub(crate) fn udp(netns: &NetNs, address: IpAddr, port: u16) -> UdpSocket {
    let socket = netns.run(|| UdpSocket::bind((address, port))).expect("namespace").expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket
}

/// A raw ICMP socket in a namespace.
pub(crate) fn icmp(netns: &NetNs, family: Family) -> UdpSocket {
    let (domain, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let made = netns.run(|| socket(domain, SockType::Raw, SockFlag::empty(), protocol).expect("raw socket"));
    let socket = UdpSocket::from(made.expect("namespace"));
    socket.set_read_timeout(Some(PATIENCE)).expect("timeout");
    socket
}

/// Waits for an ICMP message that fits; the answer is its sender and bytes from the ICMP header on.
pub(crate) fn expect_icmp(socket: &UdpSocket, fits: impl Fn(&[u8]) -> bool) -> Option<(IpAddr, Vec<u8>)> {
    let end = Instant::now() + PATIENCE;
    let mut bytes = [0; 2048];
    while Instant::now() < end {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { return None };
        // The kernel hands out IPv4 messages with their IP header, IPv6 messages without.
        let start = if from.is_ipv4() { usize::from(bytes[0] & 15) * 4 } else { 0 };
        let message = &bytes[start..length];
        if fits(message) {
            return Some((from.ip(), message.to_vec()));
        }
    }
    None
}

/// Whether `to` answers an echo request from a namespace.
pub(crate) fn pings(netns: &NetNs, to: IpAddr) -> bool {
    let family = Family::of(&to);
    let socket = icmp(netns, family);
    let (request, reply) = if family == Family::V4 { (8, 0) } else { (128, 129) };
    let id = std::process::id().to_le_bytes();
    let mut message = [request, 0, 0, 0, id[0], id[1], 0, 1];
    if family == Family::V4 {
        let sum = kinesin_packet::samples::packets::checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    socket.send_to(&message, SocketAddr::new(to, 0)).expect("send");
    let fits = |found: &[u8]| found[0] == reply && found[4..6] == id[..2];
    expect_icmp(&socket, fits).is_some_and(|(from, _)| from == to)
}

/// Whether a datagram gets to `to` and its answer back.
pub(crate) fn exchanges_udp(from: &UdpSocket, to: &UdpSocket) -> bool {
    let mut bytes = [0; 64];
    from.send_to(b"question", to.local_addr().expect("address")).expect("send");
    let Ok((length, asker)) = to.recv_from(&mut bytes) else { return false };
    if &bytes[..length] != b"question" || asker != from.local_addr().expect("address") {
        return false;
    }
    to.send_to(b"answer", asker).expect("send");
    from.recv_from(&mut bytes).is_ok_and(|(length, _)| &bytes[..length] == b"answer")
}

/// Whether nothing arrives.
pub(crate) fn hears_nothing(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).expect("timeout");
    socket.recv(&mut [0; 2048]).is_err()
}

/// Whether a connection carries a megabyte from one namespace to an address in another, and an answer back.
pub(crate) fn exchanges_tcp(from: &NetNs, to: &NetNs, address: IpAddr) -> bool {
    const LENGTH: usize = 1 << 20;
    let listener = to.run(|| TcpListener::bind((address, 0)).expect("bind")).expect("namespace");
    let target = listener.local_addr().expect("address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let mut received = vec![0; LENGTH];
        let complete = stream.read_exact(&mut received).is_ok();
        complete && stream.write_all(b"thanks").is_ok()
    });
    let client = from.run(|| TcpStream::connect_timeout(&target, PATIENCE)).expect("namespace");
    let Ok(mut stream) = client else { return false };
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut thanks = [0; 6];
    stream.write_all(&vec![7; LENGTH]).is_ok()
        && stream.read_exact(&mut thanks).is_ok()
        && server.join().is_ok_and(|complete| complete)
}
