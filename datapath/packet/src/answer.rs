//! Turns a packet into the answer that is sent back where it came from.

use kinesin_abi::{Address, DropReason};

use crate::{
    ETH_LEN,
    checksum::{fold, sum_words, sum4},
    ip::{Ip, V4, V6, ethertype, protocol},
    packet::Packet,
    tables::Tables,
    verdict::{Answer, IcmpError},
};

/// Bytes of the offending IPv4 packet that are quoted: the longest header and a TCP header without options, which is more
/// than the 8 bytes that are owed (RFC 792). The kernel refuses to cut off a checksum that is still to be filled in.
const QUOTE_V4: usize = 80;
/// The same for IPv6: enough for extension headers, far below the minimum MTU (RFC 4443 section 3.1).
const QUOTE_V6: usize = 128;
/// Longest packet, Ethernet header included, that is quoted without being cut: with the headers of an answer and of a tunnel
/// it fits wherever IPv6 does (1280 bytes, RFC 8200 section 5).
const UNCUT: usize = 1100;

/// Rewrites `packet` into `answer`; `own_mac` are the bytes of the device's Ethernet address when the endpoint on it is
/// known, otherwise the packet's destination address serves.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub fn write(
    packet: &mut impl Packet,
    tables: &impl Tables,
    answer: Answer,
    own_mac: Option<[u16; 3]>,
) -> Result<(), DropReason> {
    match answer {
        Answer::Arp => arp(packet, own_mac),
        Answer::Neighbour => neighbour(packet, own_mac),
        Answer::Icmp(error) => icmp(packet, tables, error),
    }
    .ok_or(DropReason::WriteError)
}

/// The host end's address out of the first twelve bytes of the Ethernet header towards the pod.
#[inline(always)]
#[must_use]
pub fn host_mac(eth: [u32; 3]) -> [u16; 3] {
    // Bytes 6 to 11 of three words as they stand in memory.
    let second = eth[1].to_ne_bytes();
    let third = eth[2].to_ne_bytes();
    [
        u16::from_ne_bytes([second[2], second[3]]),
        u16::from_ne_bytes([third[0], third[1]]),
        u16::from_ne_bytes([third[2], third[3]]),
    ]
}

/// RFC 826: sender and target change places, the operation becomes 2.
#[inline(always)]
fn arp(packet: &mut impl Packet, own_mac: Option<[u16; 3]>) -> Option<()> {
    let mac = own_mac?;
    let view = packet.view::<42>(0)?;
    let asker = [view.u16::<22>(), view.u16::<24>(), view.u16::<26>()];
    let asker_ip = [view.u16::<28>(), view.u16::<30>()];
    let asked_ip = [view.u16::<38>(), view.u16::<40>()];
    let mut out = packet.view_mut::<42>(0)?;
    out.set_u16::<0>(asker[0]);
    out.set_u16::<2>(asker[1]);
    out.set_u16::<4>(asker[2]);
    out.set_u16::<6>(mac[0]);
    out.set_u16::<8>(mac[1]);
    out.set_u16::<10>(mac[2]);
    out.set_u16::<20>(2_u16.to_be());
    out.set_u16::<22>(mac[0]);
    out.set_u16::<24>(mac[1]);
    out.set_u16::<26>(mac[2]);
    out.set_u16::<28>(asked_ip[0]);
    out.set_u16::<30>(asked_ip[1]);
    out.set_u16::<32>(asker[0]);
    out.set_u16::<34>(asker[1]);
    out.set_u16::<36>(asker[2]);
    out.set_u16::<38>(asker_ip[0]);
    out.set_u16::<40>(asker_ip[1]);
    Some(())
}

/// RFC 4861 section 4.4: solicited, override, with the target's link-layer address.
#[inline(always)]
fn neighbour(packet: &mut impl Packet, own_mac: Option<[u16; 3]>) -> Option<()> {
    /// Advertisement and one option of 8 bytes.
    const LENGTH: usize = 32;
    let mac = own_mac?;
    if packet.len() != ETH_LEN + 40 + LENGTH && !packet.set_len(ETH_LEN + 40 + LENGTH) {
        return None;
    }
    if packet.view::<86>(0).is_none() {
        packet.pull(86);
    }
    let view = packet.view::<86>(0)?;
    let asker = [view.u16::<6>(), view.u16::<8>(), view.u16::<10>()];
    let asker_ip = view.words4::<22>();
    let target = view.words4::<62>();
    let mut out = packet.view_mut::<86>(0)?;
    out.set_u16::<0>(asker[0]);
    out.set_u16::<2>(asker[1]);
    out.set_u16::<4>(asker[2]);
    out.set_u16::<6>(mac[0]);
    out.set_u16::<8>(mac[1]);
    out.set_u16::<10>(mac[2]);
    out.set_u16::<18>((LENGTH as u16).to_be());
    out.set_u8::<20>(protocol::ICMPV6);
    out.set_u8::<21>(255);
    out.set_words4::<22>(target);
    out.set_words4::<38>(asker_ip);
    out.set_u16::<54>(0x8800_u16.to_be());
    out.set_u16::<56>(0);
    // Solicited and override.
    out.set_u16::<58>(0x6000_u16.to_be());
    out.set_u16::<60>(0);
    out.set_words4::<62>(target);
    // Option 2, one unit of 8 bytes.
    out.set_u16::<78>(0x0201_u16.to_be());
    out.set_u16::<80>(mac[0]);
    out.set_u16::<82>(mac[1]);
    out.set_u16::<84>(mac[2]);
    let sum = sum_words::<{ LENGTH / 4 }>(packet, ETH_LEN + 40, LENGTH / 4)? + pseudo6(target, asker_ip, LENGTH);
    packet.view_mut::<2>(ETH_LEN + 42)?.set_u16::<0>(fold(sum));
    Some(())
}

/// RFC 8200 section 8.1.
#[inline(always)]
fn pseudo6(source: Address, destination: Address, length: usize) -> u64 {
    // Lossless: an ICMPv6 message of ours is shorter than 64 KiB.
    sum4(source)
        + sum4(destination)
        + u64::from((length as u32).to_be())
        + u64::from(u32::from(protocol::ICMPV6).to_be())
}

#[inline(always)]
fn icmp(packet: &mut impl Packet, tables: &impl Tables, error: IcmpError) -> Option<()> {
    match packet.view::<14>(0)?.u16::<12>() {
        ethertype::IPV4 => icmp4(packet, V4::router(tables)[0], error),
        ethertype::IPV6 => icmp6(packet, V6::router(tables), error),
        _ => None,
    }
}

/// Cuts the packet to what is quoted, makes room in front of it for a header of `room` bytes more than it has, and
/// swaps the Ethernet addresses. The answer is the length of the quote, a multiple of four.
#[inline(always)]
fn quote<const LIMIT: usize>(packet: &mut impl Packet, room: usize, kind: u16) -> Option<usize> {
    let view = packet.view::<14>(0)?;
    let destination = [view.u16::<0>(), view.u16::<2>(), view.u16::<4>()];
    let source = [view.u16::<6>(), view.u16::<8>(), view.u16::<10>()];
    let available = packet.len().checked_sub(ETH_LEN)?;
    let length = if available < LIMIT { available & !3 } else { LIMIT };
    // The kernel cuts nothing that it took for a tunnel's packet before (`bpf_skb_change_tail`, Linux 6.18), as it does where
    // the underlay is virtual and keeps what the sender's kernel knew. A short one then goes as it is: what is behind the
    // quote is behind the answer's length too, and means nothing.
    if packet.len() != ETH_LEN + length && !packet.set_len(ETH_LEN + length) && packet.len() > UNCUT {
        return None;
    }
    if !packet.grow_front(room) || !packet.pull(ETH_LEN + room + length) {
        return None;
    }
    let mut out = packet.view_mut::<14>(0)?;
    out.set_u16::<0>(source[0]);
    out.set_u16::<2>(source[1]);
    out.set_u16::<4>(source[2]);
    out.set_u16::<6>(destination[0]);
    out.set_u16::<8>(destination[1]);
    out.set_u16::<10>(destination[2]);
    out.set_u16::<12>(kind);
    Some(length)
}

#[inline(always)]
fn icmp4(packet: &mut impl Packet, router: u32, error: IcmpError) -> Option<()> {
    /// IPv4 header and ICMP header.
    const ROOM: usize = 28;
    let sender = packet.view::<20>(ETH_LEN)?.u32::<12>();
    let length = quote::<QUOTE_V4>(packet, ROOM, ethertype::IPV4)?;
    let (kind, rest) = match error {
        IcmpError::TimeExceeded => (0x0b00_u16, 0),
        IcmpError::HostUnreachable => (0x0301, 0),
        // RFC 1191 section 4: the next hop's MTU in the low half.
        IcmpError::TooBig(mtu) => (0x0304, mtu & 0xffff),
    };
    let total = (ROOM + length) as u16;
    let mut out = packet.view_mut::<28>(ETH_LEN)?;
    // Version 4, 20 bytes; precedence "internetwork control" (RFC 1812 section 4.3.2.5).
    out.set_u16::<0>(0x45c0_u16.to_be());
    out.set_u16::<2>(total.to_be());
    out.set_u32::<4>(0);
    // TTL 64, ICMP, checksum 0.
    out.set_u32::<8>(0x4001_0000_u32.to_be());
    out.set_u32::<12>(router);
    out.set_u32::<16>(sender);
    out.set_u16::<20>(kind.to_be());
    out.set_u16::<22>(0);
    out.set_u32::<24>(rest.to_be());
    let header = fold(sum_words::<5>(packet, ETH_LEN, 5)?);
    let message = fold(sum_words::<{ (QUOTE_V4 + 8) / 4 }>(packet, ETH_LEN + 20, (length + 8) / 4)?);
    let mut out = packet.view_mut::<28>(ETH_LEN)?;
    out.set_u16::<10>(header);
    out.set_u16::<22>(message);
    Some(())
}

#[inline(always)]
fn icmp6(packet: &mut impl Packet, router: Address, error: IcmpError) -> Option<()> {
    /// IPv6 header and ICMPv6 header.
    const ROOM: usize = 48;
    let sender = packet.view::<40>(ETH_LEN)?.words4::<8>();
    let length = quote::<QUOTE_V6>(packet, ROOM, ethertype::IPV6)?;
    let (kind, rest) = match error {
        IcmpError::TimeExceeded => (0x0300_u16, 0),
        IcmpError::HostUnreachable => (0x0103, 0),
        IcmpError::TooBig(mtu) => (0x0200, mtu),
    };
    let payload = (8 + length) as u16;
    let mut out = packet.view_mut::<48>(ETH_LEN)?;
    out.set_u32::<0>(0x6000_0000_u32.to_be());
    out.set_u16::<4>(payload.to_be());
    out.set_u8::<6>(protocol::ICMPV6);
    out.set_u8::<7>(64);
    out.set_words4::<8>(router);
    out.set_words4::<24>(sender);
    out.set_u16::<40>(kind.to_be());
    out.set_u16::<42>(0);
    out.set_u32::<44>(rest.to_be());
    let sum = sum_words::<{ (QUOTE_V6 + 8) / 4 }>(packet, ETH_LEN + 40, (length + 8) / 4)?
        + pseudo6(router, sender, 8 + length);
    packet.view_mut::<48>(ETH_LEN)?.set_u16::<42>(fold(sum));
    Some(())
}
