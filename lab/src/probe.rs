//! The sockets of a check: what a pod listens on, and what it asks others with.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    os::fd::AsRawFd,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use kinesin_netlink::NetNs;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinSet,
};

use crate::{
    LabError,
    check::{Probe, Protocol},
};

/// How long an answer may take; a neighbour that must be resolved first answers within one second or not at all.
const PATIENCE: Duration = Duration::from_secs(3);
/// Probes of one pod that are on their way at once.
const AT_ONCE: usize = 16;

/// Numbers every question, so that no answer is taken for another's.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// What a pod listens on.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    netns: &'a NetNs,
    pod: String,
    listeners: Vec<(IpAddr, TcpListener, UdpSocket)>,
}

/// Whom to ask, and where.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    index: usize,
    pod: String,
    /// Address with its TCP and its UDP port.
    at: Vec<(IpAddr, u16, u16)>,
}

/// A question that has its socket.
#[derive(Debug)]
pub(crate) struct Client {
    to: usize,
    pod: String,
    address: SocketAddr,
    socket: io::Result<Socket>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpSocket),
    Udp(UdpSocket),
    /// A connected raw socket; sending and receiving are the same system calls as for UDP.
    Icmp(UdpSocket),
}

impl<'a> Ends<'a> {
    /// Listens on every address of a pod.
    pub(crate) fn open(netns: &'a NetNs, pod: &str, ips: &[IpAddr]) -> io::Result<Self> {
        let listen = |ip: &IpAddr| {
            let (tcp, udp) = (TcpListener::bind((*ip, 0))?, UdpSocket::bind((*ip, 0))?);
            tcp.set_nonblocking(true)?;
            udp.set_nonblocking(true)?;
            Ok((*ip, tcp, udp))
        };
        let listeners = netns.run(|| ips.iter().map(listen).collect::<io::Result<Vec<_>>>());
        Ok(Self { netns, pod: pod.to_owned(), listeners: listeners.map_err(io::Error::other)?? })
    }

    /// Where others find it.
    pub(crate) fn target(&self, index: usize) -> Target {
        let ports = |(ip, tcp, udp): &(IpAddr, TcpListener, UdpSocket)| {
            Some((*ip, tcp.local_addr().ok()?.port(), udp.local_addr().ok()?.port()))
        };
        Target { index, pod: self.pod.clone(), at: self.listeners.iter().filter_map(ports).collect() }
    }

    /// A socket for every question to every other pod, in this pod's namespace, from its own address.
    pub(crate) fn clients(&self, own: usize, targets: &[Target]) -> Vec<Client> {
        let others = targets.iter().filter(|target| target.index != own);
        let questions: Vec<(&Target, IpAddr, SocketAddr, Protocol)> = others
            .flat_map(|target| target.at.iter().map(move |at| (target, *at)))
            .filter_map(|(target, at)| {
                // A pod without the family cannot ask in it.
                let from = self.listeners.iter().map(|(ip, ..)| *ip).find(|ip| ip.is_ipv4() == at.0.is_ipv4())?;
                Some((target, from, at))
            })
            .flat_map(|(target, from, (ip, tcp, udp))| {
                [(tcp, Protocol::Tcp), (udp, Protocol::Udp), (0, Protocol::Icmp)]
                    .map(|(port, protocol)| (target, from, SocketAddr::new(ip, port), protocol))
            })
            .collect();
        let open = |(target, from, address, protocol): &(&Target, IpAddr, SocketAddr, Protocol)| Client {
            to: target.index,
            pod: target.pod.clone(),
            address: *address,
            socket: Socket::open(*protocol, *from, *address),
        };
        // The protocol of a socket that could not be opened is known by its place only, so such a failure stops all.
        self.netns.run(|| questions.iter().map(open).collect()).unwrap_or_default()
    }

    /// Answers until the set is dropped.
    pub(crate) fn serve(self, servers: &mut JoinSet<()>) -> Result<(), LabError> {
        for (_, tcp, udp) in self.listeners {
            let listen = || LabError::io("listen in a pod");
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(listen())?;
            let udp = tokio::net::UdpSocket::from_std(udp).map_err(listen())?;
            servers.spawn(serve_tcp(tcp, self.pod.clone()));
            servers.spawn(serve_udp(udp, self.pod.clone()));
        }
        Ok(())
    }
}

async fn serve_tcp(listener: tokio::net::TcpListener, pod: String) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let pod = pod.clone();
        tokio::spawn(async move {
            let mut question = [0; 4];
            // A client that goes away early has its own failure to tell.
            if stream.read_exact(&mut question).await.is_ok() {
                let _ = stream.write_all(&answer(question, &pod)).await;
            }
        });
    }
}

async fn serve_udp(socket: tokio::net::UdpSocket, pod: String) {
    let mut question = [0; 4];
    loop {
        // An ICMP error of an earlier answer is reported here; it must not end the service.
        if let Ok((4, from)) = socket.recv_from(&mut question).await {
            let _ = socket.send_to(&answer(question, &pod), from).await;
        }
    }
}

fn answer(question: [u8; 4], pod: &str) -> Vec<u8> {
    [&question, pod.as_bytes()].concat()
}

impl Socket {
    fn open(protocol: Protocol, from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let from = SocketAddr::new(from, 0);
        match protocol {
            Protocol::Tcp => {
                let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.bind(from)?;
                Ok(Self::Tcp(socket))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(from)?;
                socket.set_nonblocking(true)?;
                Ok(Self::Udp(socket))
            }
            Protocol::Icmp => {
                let (family, protocol) = match to {
                    SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
                    SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
                };
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let socket = socket(family, SockType::Raw, flags, protocol)?;
                bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
                // Connected, so that the kernel passes on only what the other sends.
                connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
                Ok(Self::Icmp(socket.into()))
            }
        }
    }

    async fn ask(self, to: SocketAddr, question: [u8; 4]) -> io::Result<Vec<u8>> {
        match self {
            Self::Tcp(socket) => {
                let mut stream = socket.connect(to).await?;
                stream.write_all(&question).await?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).await?;
                Ok(answer)
            }
            Self::Udp(socket) => {
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                socket.connect(to).await?;
                socket.send(&question).await?;
                let mut answer = vec![0; 512];
                let length = socket.recv(&mut answer).await?;
                answer.truncate(length);
                Ok(answer)
            }
            Self::Icmp(socket) => echo(socket, to.is_ipv4(), question).await,
        }
    }
}

/// Sends an echo request and waits for its reply, which it returns as a pod would answer.
async fn echo(socket: UdpSocket, is_ipv4: bool, question: [u8; 4]) -> io::Result<Vec<u8>> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    socket.send(&echo_request(is_ipv4, question)).await?;
    let mut packet = [0; 512];
    loop {
        let length = socket.recv(&mut packet).await?;
        if is_echo_reply(is_ipv4, &packet[..length], question) {
            return Ok(question.to_vec());
        }
    }
}

/// RFC 792 page 14 and RFC 4443 section 4.1: type, code, checksum, identifier, sequence number, data.
fn echo_request(is_ipv4: bool, question: [u8; 4]) -> [u8; 12] {
    let mut packet = [0; 12];
    packet[0] = if is_ipv4 { 8 } else { 128 };
    packet[4..6].copy_from_slice(&question[2..]);
    packet[7] = 1;
    packet[8..].copy_from_slice(&question);
    // For ICMPv6 the kernel fills the checksum in (RFC 3542 section 3.1).
    if is_ipv4 {
        let mut sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let folded = !u16::try_from(sum).unwrap_or_default();
        packet[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    packet
}

fn is_echo_reply(is_ipv4: bool, packet: &[u8], question: [u8; 4]) -> bool {
    // A raw IPv4 socket hands out the IP header too, a raw IPv6 socket does not.
    let start = if is_ipv4 { packet.first().map_or(0, |first| usize::from(first & 0xf) * 4) } else { 0 };
    let Some(message) = packet.get(start..) else { return false };
    let kind = if is_ipv4 { 0 } else { 129 };
    message.len() >= 12 && message[0] == kind && message[4..6] == question[2..] && message[8..12] == question
}

/// Asks everyone and tells how each answered.
pub(crate) async fn run_all(from: usize, clients: Vec<Client>) -> Vec<Probe> {
    stream::iter(clients).map(|client| run(from, client)).buffer_unordered(AT_ONCE).collect().await
}

async fn run(from: usize, client: Client) -> Probe {
    let Client { to, pod, address, socket } = client;
    let protocol = match (&socket, address.port()) {
        (Ok(Socket::Tcp(_)), _) => Protocol::Tcp,
        (Ok(Socket::Udp(_)), _) => Protocol::Udp,
        (Ok(Socket::Icmp(_)), _) | (Err(_), 0) => Protocol::Icmp,
        (Err(_), _) => Protocol::Tcp,
    };
    let question = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let begun = Instant::now();
    let asked = async { socket?.ask(address, question).await };
    let failure = match tokio::time::timeout(PATIENCE, asked).await {
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(said)) if protocol == Protocol::Icmp || said == answer(question, &pod) => None,
        Ok(Ok(said)) => Some(format!("answered by {:?}", String::from_utf8_lossy(said.get(4..).unwrap_or(&said)))),
    };
    let took = failure.is_none().then(|| begun.elapsed());
    Probe { from, to, protocol, address: address.ip(), took, failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_request_has_the_checksum_of_rfc_1071() {
        let packet = echo_request(true, [0, 0, 0x12, 0x34]);
        let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(echo_request(false, [1, 2, 3, 4])[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn only_the_reply_to_the_own_question_counts() {
        let question = [9, 8, 7, 6];
        let reply = |kind: u8, data: [u8; 4]| [&[kind, 0, 0, 0, 7, 6, 0, 1][..], &data].concat();
        let with_header = |message: Vec<u8>| [&[0x46][..], &[0; 23], &message].concat();
        assert!(is_echo_reply(false, &reply(129, question), question));
        assert!(is_echo_reply(true, &with_header(reply(0, question)), question));
        for (is_ipv4, packet) in [
            (false, reply(128, question)),
            (false, reply(129, [9, 8, 7, 5])),
            (true, with_header(reply(8, question))),
            (true, with_header(vec![])),
            (true, vec![]),
            (false, reply(129, question)[..11].to_vec()),
        ] {
            assert!(!is_echo_reply(is_ipv4, &packet, question), "{packet:?}");
        }
    }

    #[tokio::test]
    async fn answer_of_another_pod_is_a_failure() {
        let netns = NetNs::current().expect("the own namespace");
        let ends = Ends::open(&netns, "right", &["127.0.0.1".parse().expect("an address")]).expect("listening");
        let mut wrong = ends.target(1);
        wrong.pod = "wrong".to_owned();
        let clients: Vec<Client> =
            ends.clients(0, &[ends.target(1), wrong]).into_iter().filter(|c| c.address.port() != 0).collect();
        let mut servers = JoinSet::new();
        ends.serve(&mut servers).expect("serving");
        let probes = run_all(0, clients).await;
        let failures: Vec<&str> = probes.iter().filter_map(|probe| probe.failure.as_deref()).collect();
        assert_eq!(probes.len(), 4);
        assert_eq!(failures, ["answered by \"right\""; 2]);
    }
}
