//! ICMP echo to one address (RFC 792, RFC 4443 section 4.1).
//!
//! A raw socket, because the kernel's own echo sockets are open only to groups that `net.ipv4.ping_group_range` names, and
//! that is nobody by default. Needs CAP_NET_RAW.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kinesin_packet::checksum::fold;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time::Instant};

/// Type of an ICMP echo request and of its answer.
const V4: (u8, u8) = (8, 0);
/// The same of ICMPv6.
const V6: (u8, u8) = (128, 129);
/// Type, code, checksum, identifier and sequence number.
const HEADER: usize = 8;
/// No IP packet is longer.
const LONGEST: usize = 65_535;
/// What of an answer is looked at: the longest IPv4 header and its own; the kernel drops what does not fit (raw(7)).
const ANSWER_START: usize = 60 + HEADER;

/// A socket to one peer.
#[derive(Debug)]
pub(crate) struct EchoSocket {
    socket: Socket,
    peer: IpAddr,
    id: u16,
}

/// A socket that the runtime waits for.
#[derive(Debug)]
pub(crate) struct Echo {
    /// Not UDP: the type sends and receives datagrams on whatever socket it holds.
    socket: UdpSocket,
    peer: IpAddr,
    id: u16,
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// In time, none came.
    Silence,
    /// Somebody on the way, or the kernel, said why.
    Told(io::Error),
}

impl EchoSocket {
    /// Opens a socket in the calling thread's network namespace, where it stays.
    pub(crate) fn open(peer: IpAddr) -> io::Result<Self> {
        let (domain, protocol) = match peer {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        // The kernel hands over what comes from the peer alone.
        socket.connect(&SocketAddr::new(peer, 0).into())?;
        Ok(Self { socket, peer, id: rand::random() })
    }

    /// Gives the socket to the runtime.
    pub(crate) fn watched(self) -> io::Result<Echo> {
        Ok(Echo { socket: UdpSocket::from_std(self.socket.into())?, peer: self.peer, id: self.id })
    }
}

impl Echo {
    /// Sends a request whose IP packet has `packet_bytes` and waits for its answer; the answer is the time it took.
    ///
    /// The kernel sets "don't fragment" on what fits the path MTU that it knows (ip(7), `IP_PMTUDISC_WANT`), so a packet that
    /// vanishes without a word is one that somebody on the way would not carry and did not tell of.
    pub(crate) async fn ask(&self, sequence: u16, packet_bytes: u32, limit: Duration) -> Result<Duration, Lost> {
        let request = request(self.peer, self.id, sequence, packet_bytes);
        let start = Instant::now();
        let exchange = async {
            self.socket.send(&request).await?;
            self.answered(sequence).await
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(())) => Ok(start.elapsed()),
            Ok(Err(error)) => Err(Lost::Told(error)),
            Err(_) => Err(Lost::Silence),
        }
    }

    async fn answered(&self, sequence: u16) -> io::Result<()> {
        let mut buffer = [0; ANSWER_START];
        loop {
            let read = self.socket.recv(&mut buffer).await?;
            if is_answer(self.peer, buffer.get(..read).unwrap_or_default(), self.id, sequence) {
                return Ok(());
            }
        }
    }
}

fn request(peer: IpAddr, id: u16, sequence: u16, packet_bytes: u32) -> Vec<u8> {
    let (header, kind) = match peer {
        IpAddr::V4(_) => (20, V4.0),
        IpAddr::V6(_) => (40, V6.0),
    };
    let length = usize::try_from(packet_bytes).unwrap_or(usize::MAX).clamp(header + HEADER, LONGEST) - header;
    let mut message = vec![0; length];
    message[0] = kind;
    message[4..6].copy_from_slice(&id.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    if peer.is_ipv4() {
        // ICMPv6's has a pseudo header, which the kernel knows; it writes that one itself (RFC 3542 section 3.1).
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_ne_bytes());
    }
    message
}

/// As it stands in memory. An odd byte at the end is the first of a word.
fn checksum(message: &[u8]) -> u16 {
    let word = |pair: &[u8]| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    fold(message.chunks(2).map(word).sum())
}

/// A raw IPv4 socket hands over the IP header as well, an IPv6 one does not.
fn is_answer(peer: IpAddr, received: &[u8], id: u16, sequence: u16) -> bool {
    let (message, kind) = match peer {
        IpAddr::V4(_) => {
            let header = usize::from(received.first().copied().unwrap_or(0) & 0xf) * 4;
            (received.get(header..).unwrap_or_default(), V4.1)
        }
        IpAddr::V6(_) => (received, V6.1),
    };
    let expected = [id.to_be_bytes(), sequence.to_be_bytes()].concat();
    message.first() == Some(&kind) && message.get(4..8) == Some(&expected[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn requests_have_the_length_that_is_asked_for_and_a_right_checksum() {
        for (bytes, length) in [(28, 8), (84, 64), (1500, 1480), (1281, 1261), (0, 8), (u32::MAX, 65_515)] {
            let message = request(PEER, 0xabcd, 7, bytes);
            assert_eq!(message.len(), length, "{bytes}");
            // Over a message with its right checksum the sum is all ones.
            assert_eq!(checksum(&message), 0, "{bytes}");
        }
        let six: IpAddr = "2001:db8::1".parse().expect("an address");
        assert_eq!(request(six, 1, 2, 1280).len(), 1240);
    }

    #[test]
    fn only_the_very_answer_counts() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0, 0, 0xab, 0xcd, 0, 7]);
        assert!(is_answer(PEER, &packet, 0xabcd, 7));
        assert!(!is_answer(PEER, &packet, 0xabcd, 8));
        assert!(!is_answer(PEER, &packet, 0xabce, 7));
        packet[20] = 8;
        assert!(!is_answer(PEER, &packet, 0xabcd, 7), "a request is no answer");
        for length in 0..28 {
            assert!(!is_answer(PEER, &packet[..length], 0, 0), "{length} bytes");
        }
    }
}
