//! Echo requests, and what is heard about them.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4Ttl, Ipv6Ttl},
};

use super::{
    Told,
    socket::{LARGEST, PATIENCE, Room, in_time},
};

/// Tells the requests of one namespace apart.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// Sends one request and waits for what becomes of it.
pub(super) async fn ping(room: &Room, to: IpAddr, data: &[u8], hop_limit: Option<u8>) -> io::Result<Told> {
    let is_ipv4 = to.is_ipv4();
    let socket = room.icmp(is_ipv4)?;
    match hop_limit {
        Some(limit) if is_ipv4 => setsockopt(&socket, Ipv4Ttl, &i32::from(limit))?,
        Some(limit) => setsockopt(&socket, Ipv6Ttl, &i32::from(limit))?,
        None => {}
    }
    // Another worker of the same namespace counts from elsewhere.
    let number = NEXT.fetch_add(1, Ordering::Relaxed) ^ std::process::id() << 16;
    socket.send_to(&echo_request(is_ipv4, number, data), SocketAddr::new(to, 0)).await?;
    let hear = async {
        let mut buffer = vec![0; LARGEST];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            match parse(is_ipv4, &buffer[..length], number) {
                Some(Heard::Reply(reply)) if from.ip() == to => {
                    if reply == data {
                        return Ok(Told::Answered);
                    }
                    return Err(io::Error::other(format!("{} bytes came back changed", reply.len())));
                }
                Some(Heard::Exceeded) => return Ok(Told::TimeExceeded { from: from.ip() }),
                Some(Heard::Unreachable(code)) => {
                    return Err(io::Error::other(format!("{} says unreachable, code {code}", from.ip())));
                }
                _ => {}
            }
        }
    };
    in_time(PATIENCE, hear).await
}

/// RFC 792 page 14 and RFC 4443 section 4.1: type, code, checksum, identifier, sequence number, data.
fn echo_request(is_ipv4: bool, number: u32, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![if is_ipv4 { 8 } else { 128 }, 0, 0, 0];
    packet.extend(number.to_be_bytes());
    packet.extend(data);
    // For ICMPv6 the kernel fills the checksum in (RFC 3542 section 3.1).
    if is_ipv4 {
        let folded = !u16::try_from(sum(&packet)).unwrap_or_default();
        packet[2..4].copy_from_slice(&folded.to_be_bytes());
    }
    packet
}

/// RFC 1071, without the complement.
fn sum(packet: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = packet.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[derive(Debug, PartialEq)]
enum Heard<'a> {
    Reply(&'a [u8]),
    Exceeded,
    Unreachable(u8),
}

/// What a message says about request `number`; `None` when it is about something else.
fn parse(is_ipv4: bool, packet: &[u8], number: u32) -> Option<Heard<'_>> {
    // A raw IPv4 socket hands out the IP header too, a raw IPv6 socket does not.
    let header = |packet: &[u8]| packet.first().map(|first| usize::from(first & 0xf) * 4);
    let message = if is_ipv4 { packet.get(header(packet)?..)? } else { packet };
    let names = |message: &[u8]| message.get(4..8) == Some(&number.to_be_bytes());
    let (reply, unreachable, exceeded) = if is_ipv4 { (0, 3, 11) } else { (129, 1, 3) };
    let kind = *message.first()?;
    if kind == reply {
        return names(message).then(|| Heard::Reply(message.get(8..).unwrap_or_default()));
    }
    if kind != unreachable && kind != exceeded {
        return None;
    }
    let quoted = message.get(8..)?;
    let request = if is_ipv4 { quoted.get(header(quoted)?..)? } else { quoted.get(40..)? };
    let heard = if kind == exceeded { Heard::Exceeded } else { Heard::Unreachable(*message.get(1)?) };
    names(request).then_some(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echo_request_has_the_checksum_of_rfc_1071() {
        for data in [&b""[..], b"a", b"ab", b"abc"] {
            assert_eq!(sum(&echo_request(true, 0x1234_5678, data)), 0xffff, "{data:?}");
        }
        assert_eq!(echo_request(false, 1, &[])[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn only_what_is_about_the_own_request_counts() {
        let number = 0x0102_0304;
        let message = |kind: u8, rest: &[u8]| [&[kind, 0, 0, 0][..], rest].concat();
        let v4 = |message: Vec<u8>| [&[0x46][..], &[0; 23], &message].concat();
        let reply = v4(message(0, &[1, 2, 3, 4, 9]));
        assert_eq!(parse(true, &reply, number), Some(Heard::Reply(&[9])));
        assert_eq!(parse(true, &reply, number + 1), None);
        let quoted = [&[0, 0, 0, 0][..], &v4(echo_request(true, number, &[]))].concat();
        assert_eq!(parse(true, &v4(message(11, &quoted)), number), Some(Heard::Exceeded));
        assert_eq!(parse(true, &v4(message(3, &quoted)), number), Some(Heard::Unreachable(0)));
        assert_eq!(parse(true, &v4(message(11, &quoted)), number + 1), None);
        let quoted = [&[0; 44][..], &echo_request(false, number, &[])].concat();
        assert_eq!(parse(false, &message(3, &quoted), number), Some(Heard::Exceeded));
        for short in [&[][..], &[0x46], &[0x4f, 0, 0], &[11]] {
            assert!(parse(true, short, number).is_none() && parse(false, short, number).is_none());
        }
    }
}
