//! Judges of bytes that went in and bytes that came out.

use std::{net::IpAddr, vec::Vec};

use super::{
    node::NEIGHBOUR_ETH,
    packets::{HOST_MAC, POD_MAC, checksum},
};

/// MACs of the target, TTL one less, IPv4 checksum right, the rest untouched.
pub(super) fn delivered_v4(input: &[u8], output: &[u8]) {
    assert_eq!(output[..12], NEIGHBOUR_ETH);
    aged_v4(input, output);
}

pub(super) fn aged_v4(input: &[u8], output: &[u8]) {
    assert_eq!(output.len(), input.len());
    assert_eq!(output[22], input[22] - 1);
    let header_len = usize::from(output[14] & 15) * 4;
    assert_eq!(checksum(&output[14..14 + header_len]), 0);
    assert_eq!((&output[12..22], &output[26..]), (&input[12..22], &input[26..]));
}

pub(super) fn delivered_v6(input: &[u8], output: &[u8]) {
    assert_eq!(output[..12], NEIGHBOUR_ETH);
    assert_eq!(output[21], input[21] - 1);
    assert_eq!((&output[12..21], &output[22..]), (&input[12..21], &input[22..]));
}

pub(super) fn untouched(input: &[u8], output: &[u8]) {
    assert_eq!(input, output);
}

pub(super) fn answered_arp(input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&POD_MAC[..], &HOST_MAC[..]));
    assert_eq!(output[20..22], [0, 2]);
    assert_eq!((&output[22..28], &output[28..32]), (&HOST_MAC[..], &input[38..42]));
    assert_eq!((&output[32..38], &output[38..42]), (&POD_MAC[..], &input[28..32]));
}

/// RFC 4861 section 4.4 and 7.2.4.
pub(super) fn answered_neighbour(input: &[u8], output: &[u8]) {
    assert_eq!(output.len(), 86);
    assert_eq!((&output[..6], &output[6..12]), (&POD_MAC[..], &HOST_MAC[..]));
    assert_eq!((output[20], output[21]), (58, 255));
    assert_eq!((&output[22..38], &output[38..54]), (&input[62..78], &input[22..38]));
    assert_eq!((output[54], output[55]), (136, 0));
    assert_eq!(output[58] & 0x60, 0x60, "solicited and override");
    assert_eq!((&output[62..78], &output[78..80], &output[80..86]), (&input[62..78], &[2, 1][..], &HOST_MAC[..]));
}

pub(super) fn error_v4(kind: u8, code: u8, input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&input[6..12], &input[..6]));
    assert_eq!((&output[26..30], &output[30..34]), (&[10, 244, 1, 1][..], &input[26..30]));
    assert_eq!((output[23], output[34], output[35]), (1, kind, code));
    let quoted = output.len() - 42;
    assert!(quoted >= 28, "header and 8 bytes (RFC 792)");
    assert_eq!(output[42..], input[14..14 + quoted]);
}

pub(super) fn error_v6(kind: u8, code: u8, input: &[u8], output: &[u8]) {
    assert_eq!((&output[..6], &output[6..12]), (&input[6..12], &input[..6]));
    assert_eq!(output[38..54], input[22..38]);
    assert_eq!((output[20], output[54], output[55]), (58, kind, code));
    let quoted = output.len() - 62;
    assert!(quoted >= 48);
    assert_eq!(output[62..], input[14..14 + quoted]);
}

/// Length of the headers in front of the inner Ethernet header.
fn outer_len(frame: &[u8]) -> usize {
    if frame[12..14] == [0x08, 0x00] { 14 + 20 + 16 } else { 14 + 40 + 16 }
}

/// Sender and receiver of a tunnel's packet, its port, the first word of its own header and its network.
pub(super) struct Outer {
    pub(super) ends: [&'static str; 2],
    pub(super) port: u16,
    pub(super) first: [u8; 4],
    pub(super) vni: u32,
}

/// A frame with Ethernet addresses of the input's around the packet inside.
pub(super) fn judge_outer(outer: &Outer, input: &[u8], output: &[u8]) -> Vec<u8> {
    let [source, destination] = outer.ends.map(|text| text.parse::<IpAddr>().unwrap());
    let start = outer_len(output);
    let class = match input[12..14] {
        [0x08, 0x00] => input[15],
        _ => input[14] << 4 | input[15] >> 4,
    };
    let length = u16::try_from(output.len() - 14).unwrap();
    let udp = &output[start - 16..start - 8];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            assert_eq!(output[12..14], [0x08, 0x00]);
            assert_eq!(output[14..16], [0x45, class]);
            assert_eq!(output[16..18], length.to_be_bytes());
            assert_eq!(output[18..24], [0, 0, 0x40, 0, 64, 17], "no identification, DF, TTL 64, UDP");
            assert_eq!(checksum(&output[14..34]), 0);
            assert_eq!((&output[26..30], &output[30..34]), (&source.octets()[..], &destination.octets()[..]));
            assert_eq!(udp[4..6], (length - 20).to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            assert_eq!(output[12..14], [0x86, 0xdd]);
            assert_eq!((output[14], output[15] & 0xf0), (0x60 | class >> 4, class << 4));
            assert_eq!(output[18..20], (length - 40).to_be_bytes());
            assert_eq!(output[20..22], [17, 64]);
            assert_eq!((&output[22..38], &output[38..54]), (&source.octets()[..], &destination.octets()[..]));
            assert_eq!(udp[4..6], (length - 40).to_be_bytes());
        }
        mixed => panic!("{mixed:?}"),
    }
    assert!(u16::from_be_bytes([udp[0], udp[1]]) >= 49152, "a dynamic port");
    assert_eq!((&udp[2..4], &udp[6..8]), (&outer.port.to_be_bytes()[..], &[0, 0][..]), "port and no checksum");
    assert_eq!(output[start - 8..start - 4], outer.first);
    assert_eq!(output[start - 4..start], (outer.vni << 8).to_be_bytes());
    assert_eq!(output[start] & 1, 0, "to one receiver");
    assert_eq!(output[start + 12..start + 14], input[12..14]);
    [&input[..12], &output[start + 12..]].concat()
}

/// The inner frame of a tunnel's packet without options.
pub(super) fn inner(frame: &[u8]) -> &[u8] {
    &frame[outer_len(frame)..]
}
