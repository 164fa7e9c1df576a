//! Sockets that are opened in a network namespace and then used from anywhere.
//!
//! A namespace is entered only to open a socket, which then stays there; so every thread stays where it is.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use kinesin_netlink::NetNs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt::{RcvBuf, RcvBufForce},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// How long an answer may take; a neighbour that must be resolved first answers within one second or not at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Larger than any datagram.
pub(crate) const LARGEST: usize = 65_536;
/// A receiver that gets no processor for a moment shall not lose what the network has brought.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A network namespace: another, or the own one.
#[derive(Debug)]
pub(crate) struct Room(pub(crate) Option<NetNs>);

impl Room {
    /// Opens something there.
    pub(crate) fn open<T: Send>(&self, open: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.0 {
            Some(netns) => netns.run(open).map_err(io::Error::other)?,
            None => open(),
        }
    }

    pub(crate) fn listen(&self, ip: IpAddr) -> io::Result<(TcpListener, UdpSocket)> {
        let (tcp, udp) = self.open(|| {
            let tcp = std::net::TcpListener::bind((ip, 0))?;
            let udp = StdUdpSocket::bind((ip, 0))?;
            tcp.set_nonblocking(true)?;
            Ok((tcp, udp))
        })?;
        Ok((TcpListener::from_std(tcp)?, prepared(udp)?))
    }

    /// A connection, within the patience.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.open(|| if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
        let stream = in_time(PATIENCE, socket.connect(to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A UDP socket that hears nobody but `to`.
    pub(crate) fn udp_to(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self.open(|| {
            let socket = StdUdpSocket::bind((any(to.is_ipv4()), 0))?;
            socket.connect(to)?;
            Ok(socket)
        })?;
        prepared(socket)
    }

    /// A raw ICMP socket, which hears every ICMP message that arrives there.
    pub(crate) fn icmp(&self, is_ipv4: bool) -> io::Result<UdpSocket> {
        let socket = self.open(|| {
            let (family, protocol) = if is_ipv4 {
                (AddressFamily::Inet, SockProtocol::Icmp)
            } else {
                (AddressFamily::Inet6, SockProtocol::IcmpV6)
            };
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any(is_ipv4), 0)))?;
            // Sending and receiving are the same system calls as for UDP.
            Ok(StdUdpSocket::from(socket))
        })?;
        prepared(socket)
    }

    /// Segments that its TCP has sent again so far: counter `RetransSegs` of RFC 4022.
    pub(crate) fn retransmitted(&self) -> u64 {
        let table = self.open(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap_or_default();
        let mut rows = table.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split_whitespace());
        let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return 0 };
        let found = names.zip(values).find(|(name, _)| *name == "RetransSegs");
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
    }
}

fn any(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn prepared(socket: StdUdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    // Past the machine's limit only with the privilege; otherwise as much as it gives.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
    }
    UdpSocket::from_std(socket)
}

/// The future's answer, or a timeout as an error.
pub(crate) async fn in_time<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, what).await {
        Ok(done) => done,
        Err(_) => {
            let told = format!("no answer within {:.1} s", limit.as_secs_f64());
            Err(io::Error::new(io::ErrorKind::TimedOut, told))
        }
    }
}
