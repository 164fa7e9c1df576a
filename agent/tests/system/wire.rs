//! What leaves a node by its uplink: datagrams one after the other, each looked for on the wire before the next one.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use kinesin_netlink::{NetNs, Sysctl};
use socket2::{Domain, Protocol, Socket, Type};

/// `ETH_P_ALL` in network order. Source: Linux `include/uapi/linux/if_ether.h`.
const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;
/// Linux `include/uapi/linux/if_ether.h`.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
/// Of IPv6 (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;
/// Ethernet, UDP and VXLAN headers in bytes.
const ETHERNET: usize = 14;
const UDP_BYTES: usize = 8;
const VXLAN: usize = 8;
/// IANA's for VXLAN in Linux.
const VXLAN_PORT: u16 = 8472;

/// The other end of an uplink.
pub(crate) struct Wire(Socket);

/// How a datagram went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Went {
    /// Within a tunnel, or a part of it: a way may change between the fragments of a datagram, and its receiver does not care.
    pub(crate) tunnelled: bool,
    /// Some fragments within a tunnel and some not.
    pub(crate) parted: bool,
    /// The largest IP packet that it took, headers included, the tunnel's left out.
    pub(crate) largest: usize,
}

/// Datagrams of one size that the sender's kernel may cut into fragments, and does not probe the path with.
pub(crate) struct Datagrams {
    pub(crate) name: String,
    socket: UdpSocket,
    length: usize,
    to: IpAddr,
    next: u64,
}

/// A packet, or a fragment, with UDP in it.
struct Packet {
    to: IpAddr,
    id: u32,
    /// The number of its datagram, in the first fragment.
    number: Option<u64>,
    is_last: bool,
    bytes: usize,
}

impl Wire {
    pub(crate) fn new(netns: &NetNs) -> Self {
        let open = || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(EVERY_PROTOCOL)));
        let socket = netns.run(open).expect("enter").expect("root may open packet sockets");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("socket");
        Self(socket)
    }

    /// Sends the next datagram and tells how it went; none if it is not there in time.
    pub(crate) fn next(&self, datagrams: &mut Datagrams, within: Duration) -> Option<Went> {
        let number = datagrams.next;
        datagrams.next += 1;
        let mut payload = vec![0; datagrams.length];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        datagrams.socket.send(&payload).unwrap_or_else(|error| panic!("{} {number}: {error}", datagrams.name));
        let until = Instant::now() + within;
        let mut found: Option<(u32, Went)> = None;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = match (&self.0).read(&mut buffer) {
                Ok(length) => length,
                // Only once nothing is left to read: this thread may have waited for its turn itself.
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            };
            let Some((packet, tunnelled)) = parse(&buffer[..length]) else { continue };
            if packet.to != datagrams.to {
                continue;
            }
            if packet.number == Some(number) {
                found = Some((packet.id, Went { tunnelled, parted: false, largest: 0 }));
            }
            let Some((id, went)) = &mut found else { continue };
            if packet.number.is_some_and(|other| other != number) || packet.id != *id {
                continue;
            }
            went.parted |= went.tunnelled != tunnelled;
            went.tunnelled |= tunnelled;
            went.largest = went.largest.max(packet.bytes);
            if packet.is_last {
                return Some(*went);
            }
        }
    }
}

impl Datagrams {
    /// From an address in `netns`, or any, to a port where nobody listens.
    pub(crate) fn new(name: &str, netns: &NetNs, from: IpAddr, to: IpAddr, length: usize) -> Self {
        // What `IP_PMTUDISC_DONT` does for one socket, for those that are opened from now on (ip-sysctl.rst). Over IPv6
        // every sender cuts what it sends.
        Sysctl::of(netns).set("ipv4/ip_no_pmtu_disc", "1").expect("set");
        let open =
            || UdpSocket::bind(SocketAddr::new(from, 0)).and_then(|socket| socket.connect((to, 9)).map(|()| socket));
        let socket = netns.run(open).expect("enter").expect("a route");
        Self { name: format!("{name} to {to}"), socket, length, to, next: 0 }
    }
}

/// The packet in a frame, or in the tunnel in it.
fn parse(frame: &[u8]) -> Option<(Packet, bool)> {
    let outer = ip(frame)?;
    if outer.1.as_ref().is_none_or(|port| *port != VXLAN_PORT) {
        return Some((outer.0, false));
    }
    let header = if outer.0.to.is_ipv4() { 20 } else { 40 };
    Some((ip(frame.get(ETHERNET + header + UDP_BYTES + VXLAN..)?)?.0, true))
}

/// The IP packet in an Ethernet frame, with its destination port if it is not a later fragment.
fn ip(frame: &[u8]) -> Option<(Packet, Option<u16>)> {
    let half = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let (to, id, offset, is_last, bytes, payload) = match half(12)? {
        ETH_P_IP if *frame.get(ETHERNET + 9)? == UDP => {
            let flags = half(ETHERNET + 6)?;
            let to = <[u8; 4]>::try_from(frame.get(ETHERNET + 16..ETHERNET + 20)?).ok()?;
            let is_last = flags & 0x2000 == 0;
            let bytes = usize::from(half(ETHERNET + 2)?);
            (IpAddr::from(to), u32::from(half(ETHERNET + 4)?), flags & 0x1fff, is_last, bytes, ETHERNET + 20)
        }
        ETH_P_IPV6 => {
            let to = <[u8; 16]>::try_from(frame.get(ETHERNET + 24..ETHERNET + 40)?).ok()?;
            let bytes = usize::from(half(ETHERNET + 4)?) + 40;
            match *frame.get(ETHERNET + 6)? {
                UDP => (IpAddr::from(to), 0, 0, true, bytes, ETHERNET + 40),
                FRAGMENT if *frame.get(ETHERNET + 40)? == UDP => {
                    let field = half(ETHERNET + 42)?;
                    let id = u32::from(half(ETHERNET + 44)?) << 16 | u32::from(half(ETHERNET + 46)?);
                    (IpAddr::from(to), id, field >> 3, field & 1 == 0, bytes, ETHERNET + 48)
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    let is_first = offset == 0;
    let port = if is_first { half(payload + 2) } else { None };
    let number = frame.get(payload + UDP_BYTES..payload + UDP_BYTES + 8).filter(|_| is_first);
    let number = number.and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    Some((Packet { to, id, number, is_last, bytes }, port))
}
