//! Packets written out field by field, and a checksum of their own to judge the pipeline's with.

use std::{
    format,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    vec,
    vec::Vec,
};

/// MAC of the pod whose device is judged.
pub const POD_MAC: [u8; 6] = [2, 0, 0, 0, 1, 10];
/// MAC of that device.
pub const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 10];

/// One packet, before it is bytes.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Destination MAC.
    pub eth_destination: [u8; 6],
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub class: u8,
    /// IP protocol of the payload.
    pub protocol: u8,
    /// What follows the IP header.
    pub payload: Vec<u8>,
    /// IPv4: flags and fragment offset as they stand in the header.
    pub fragment: u16,
    /// IPv4 options or IPv6 extension headers, multiples of 4 or 8 bytes.
    pub options: Vec<u8>,
    /// Kind of the first extension header, when there are some.
    pub first_next: Option<u8>,
}

/// A packet from the pod to its device with TTL 64.
#[must_use]
pub fn draft(source: &str, destination: &str, protocol: u8, payload: Vec<u8>) -> Draft {
    Draft {
        eth_destination: HOST_MAC,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ttl: 64,
        class: 0,
        protocol,
        payload,
        fragment: 0,
        options: Vec::new(),
        first_next: None,
    }
}

impl Draft {
    /// With another TTL.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// With this DSCP and ECN.
    #[must_use]
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// With these IPv4 flags and fragment offset.
    #[must_use]
    pub fn fragment(mut self, fragment: u16) -> Self {
        self.fragment = fragment;
        self
    }

    /// With IPv4 options.
    #[must_use]
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// With extension headers, the first of kind `first`.
    #[must_use]
    pub fn extensions(mut self, first: u8, headers: &[u8]) -> Self {
        self.first_next = Some(first);
        self.options = headers.to_vec();
        self
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.eth_destination);
        out.extend(POD_MAC);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(&mut out, source, destination),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(&mut out, source, destination),
            other => panic!("mixed families: {other:?}"),
        }
        out
    }

    fn ipv4(&self, out: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr) {
        let header_len = 20 + self.options.len();
        let total = u16::try_from(header_len + self.payload.len()).unwrap();
        let mut header = vec![0x40 | u8::try_from(header_len / 4).unwrap(), self.class];
        header.extend(total.to_be_bytes());
        header.extend([0x12, 0x34]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.options);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend([0x08, 0x00]);
        out.extend(header);
        out.extend(&self.payload);
    }

    fn ipv6(&self, out: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr) {
        let length = u16::try_from(self.options.len() + self.payload.len()).unwrap();
        out.extend([0x86, 0xdd, 0x60 | self.class >> 4, self.class << 4, 0, 0]);
        out.extend(length.to_be_bytes());
        out.extend([self.first_next.unwrap_or(self.protocol), self.ttl]);
        out.extend(source.octets());
        out.extend(destination.octets());
        out.extend(&self.options);
        out.extend(&self.payload);
    }
}

/// A UDP datagram without checksum.
#[must_use]
pub fn udp(source: u16, destination: u16, data: usize) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(source.to_be_bytes());
    out.extend(destination.to_be_bytes());
    out.extend(u16::try_from(8 + data).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend((0..data).map(|i| i as u8));
    out
}

/// A UDP datagram without checksum around some bytes.
#[must_use]
pub fn udp_around(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut out = udp(source, destination, data.len());
    out.truncate(8);
    out.extend(data);
    out
}

/// A VXLAN header (RFC 7348 section 5) and the frame inside.
#[must_use]
pub fn vxlan(vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut out = vec![8, 0, 0, 0];
    out.extend((vni << 8).to_be_bytes());
    out.extend(frame);
    out
}

/// A Geneve header (RFC 8926 section 3.4) with options, multiples of 4 bytes, and the frame inside.
#[must_use]
pub fn geneve(vni: u32, options: &[u8], frame: &[u8]) -> Vec<u8> {
    let mut out = vec![u8::try_from(options.len() / 4).unwrap(), 0, 0x65, 0x58];
    out.extend((vni << 8).to_be_bytes());
    out.extend(options);
    out.extend(frame);
    out
}

/// A TCP segment with a header of 20 bytes.
#[must_use]
pub fn tcp(data: usize) -> Vec<u8> {
    let mut out = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0];
    out.extend((0..data).map(|i| i as u8));
    out
}

/// An ICMP message of `kind` with 8 bytes of header and `data` more.
#[must_use]
pub fn icmp(kind: u8, data: usize) -> Vec<u8> {
    let mut out = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    out.extend((0..data).map(|i| i as u8));
    let sum = checksum(&out);
    out[2..4].copy_from_slice(&sum.to_be_bytes());
    out
}

/// A router's word that a packet, of which it quotes something, was too big for a way of so many bytes (RFC 1191 section 4,
/// RFC 4443 section 3.2).
#[must_use]
pub fn too_big(router: &str, to: &str, mtu: u16, quote: &[u8]) -> Draft {
    let is_ipv4 = !router.contains(':');
    let mut payload = if is_ipv4 { vec![3, 4, 0, 0, 0, 0] } else { vec![2, 0, 0, 0, 0, 0] };
    payload.extend(mtu.to_be_bytes());
    payload.extend(quote);
    let mut message = draft(router, to, if is_ipv4 { 1 } else { 58 }, payload);
    let sum = if is_ipv4 { checksum(&message.payload) } else { checksum_v6(&message) };
    message.payload[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ARP packet of operation `op` to everyone.
#[must_use]
pub fn arp(op: u8, sender: &str, target: &str) -> Vec<u8> {
    let mut out = vec![0xff; 6];
    out.extend(POD_MAC);
    out.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, op]);
    out.extend(POD_MAC);
    out.extend(sender.parse::<Ipv4Addr>().unwrap().octets());
    out.extend([0; 6]);
    out.extend(target.parse::<Ipv4Addr>().unwrap().octets());
    out
}

/// A neighbour solicitation (RFC 4861 section 4.3), with the source's link-layer address when `option` is set.
#[must_use]
pub fn solicitation(source: &str, target: &str, option: bool) -> Vec<u8> {
    let target: Ipv6Addr = target.parse().unwrap();
    let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    if option {
        body.extend([1, 1]);
        body.extend(POD_MAC);
    }
    let last = target.octets();
    let group = format!("ff02::1:ff{:02x}:{:02x}{:02x}", last[13], last[14], last[15]);
    let mut draft = draft(source, &group, 58, body).ttl(255);
    draft.eth_destination = [0x33, 0x33, 0xff, last[13], last[14], last[15]];
    let sum = checksum_v6(&draft);
    draft.payload[2..4].copy_from_slice(&sum.to_be_bytes());
    draft.bytes()
}

/// RFC 1071, the plain way: 16 bits at a time over bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn checksum_v6(draft: &Draft) -> u16 {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (draft.source, draft.destination) else { return 0 };
    let mut all = Vec::from(source.octets());
    all.extend(destination.octets());
    all.extend(u32::try_from(draft.payload.len()).unwrap().to_be_bytes());
    all.extend([0, 0, 0, draft.protocol]);
    all.extend(&draft.payload);
    checksum(&all)
}

/// What is wrong with the checksums of an answer; nothing when all are right.
#[must_use]
pub fn wrong_checksum(frame: &[u8]) -> Option<&'static str> {
    match frame[12..14] {
        [0x08, 0x00] => {
            let ip = &frame[14..];
            let (header_len, total) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
            if checksum(&ip[..header_len]) != 0 {
                return Some("IPv4 header");
            }
            (checksum(&ip[header_len..total]) != 0).then_some("ICMP")
        }
        [0x86, 0xdd] => {
            let ip = &frame[14..];
            let length = u16::from_be_bytes([ip[4], ip[5]]);
            let mut all = Vec::from(&ip[8..40]);
            all.extend(u32::from(length).to_be_bytes());
            all.extend([0, 0, 0, 58]);
            all.extend(&ip[40..40 + usize::from(length)]);
            (checksum(&all) != 0).then_some("ICMPv6")
        }
        _ => None,
    }
}
