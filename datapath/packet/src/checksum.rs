//! The Internet checksum.
//!
//! Sums are kept over words as they stand in memory, whatever the byte order: the one's-complement sum does not depend
//! on it as long as the result is stored the same way. Source: RFC 1071 sections 1 and 2.

use crate::packet::Packet;

/// Folds a sum of 32-bit words into the checksum that makes it zero; ready to store.
///
/// # Examples
/// ```
/// assert_eq!(kinesin_packet::checksum::fold(0x2_fffd), 0);
/// ```
#[inline(always)]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    // 64 to 32 bits and to 16, each twice for the carry: a fixed number of steps, since the verifier cannot follow a
    // loop that ends by data.
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // The upper bits are zero by now.
    !(sum as u16)
}

/// The IPv4 header checksum after the TTL went down by one, from the one before.
///
/// `check` is as it stands in the packet. Source: RFC 1141; the TTL is the high byte of its word.
#[inline(always)]
#[must_use]
pub fn after_ttl_decrement(check: u16) -> u16 {
    let sum = u32::from(check) + u32::from(u16::to_be(0x0100));
    // At most 0x1_feff, so one fold is enough; 0xffff is turned into 0 as by `fold` of a whole header.
    (sum + u32::from(sum >= 0xffff)) as u16
}

/// Adds up `words` words at `offset`; `MAX` bounds the loop for the verifier. Nothing when the packet is shorter.
#[inline(always)]
pub fn sum_words<const MAX: usize>(packet: &impl Packet, offset: usize, words: usize) -> Option<u64> {
    let mut sum = 0;
    for index in 0..MAX {
        if index >= words {
            break;
        }
        sum += u64::from(packet.view::<4>(offset + 4 * index)?.u32::<0>());
    }
    Some(sum)
}

/// The sum of an address or of any four words.
#[inline(always)]
#[must_use]
pub fn sum4(words: [u32; 4]) -> u64 {
    let [a, b, c, d] = words;
    u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_rfc_1071_folds_to_its_checksum() {
        let words = [u32::from_be_bytes([0x00, 0x01, 0xf2, 0x03]), u32::from_be_bytes([0xf4, 0xf5, 0xf6, 0xf7])];
        assert_eq!(fold(words.iter().map(|word| u64::from(*word)).sum()), !0xddf2);
    }

    #[test]
    fn largest_sum_folds_without_losing_a_carry() {
        assert_eq!(fold(u64::MAX), 0);
        assert_eq!(fold(0x1_ffff_ffff), !1);
    }
}
