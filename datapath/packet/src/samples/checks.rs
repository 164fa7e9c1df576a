//! Judges of bytes that went in and bytes that came out.

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
