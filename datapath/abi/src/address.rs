//! How addresses and MACs are stored in keys and values.

use core::net::IpAddr;

use crate::record::numbers;

numbers! {
    /// No address: the key names a device by its index ([`crate::EndpointKey::device`]).
    pub const FAMILY_DEVICE: u8 = 0;
    /// IPv4.
    pub const FAMILY_V4: u8 = 1;
    /// IPv6.
    pub const FAMILY_V6: u8 = 2;
}

/// An address as four words of network-order bytes; IPv4 fills the first word and leaves the others zero.
pub type Words = [u32; 4];

/// The words and family of an address.
///
/// # Examples
/// ```
/// use kinesin_abi::address::{FAMILY_V4, words};
/// let (words, family) = words("10.0.0.1".parse().unwrap());
/// assert_eq!((words[0].to_ne_bytes(), family), ([10, 0, 0, 1], FAMILY_V4));
/// ```
#[must_use]
pub fn words(address: IpAddr) -> (Words, u8) {
    match address {
        IpAddr::V4(address) => ([u32::from_ne_bytes(address.octets()), 0, 0, 0], FAMILY_V4),
        IpAddr::V6(address) => {
            let bytes = address.octets();
            let mut words = [0; 4];
            for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            }
            (words, FAMILY_V6)
        }
    }
}

/// The address that the words and family stand for; nothing for [`FAMILY_DEVICE`] and unknown families.
#[must_use]
pub fn ip(words: Words, family: u8) -> Option<IpAddr> {
    match family {
        FAMILY_V4 => Some(IpAddr::from(words[0].to_ne_bytes())),
        FAMILY_V6 => {
            let mut bytes = [0; 16];
            for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            Some(IpAddr::from(bytes))
        }
        _ => None,
    }
}

/// A MAC as one number: its six bytes in the order of memory, then two zero bytes.
#[must_use]
pub const fn mac(bytes: [u8; 6]) -> u64 {
    u64::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], 0, 0])
}

/// The six bytes of a MAC stored by [`mac`].
#[must_use]
pub const fn mac_bytes(mac: u64) -> [u8; 6] {
    let [a, b, c, d, e, f, _, _] = mac.to_ne_bytes();
    [a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_the_address() {
        for text in ["192.0.2.1", "2001:db8::1:2:3", "::"] {
            let address: IpAddr = text.parse().unwrap();
            let (words, family) = words(address);
            assert_eq!(ip(words, family), Some(address));
        }
        assert_eq!(ip([7, 0, 0, 0], FAMILY_DEVICE), None);
    }

    #[test]
    fn macs_come_back_as_their_bytes() {
        let bytes = [2, 1, 0, 0xfe, 0x80, 9];
        assert_eq!(mac_bytes(mac(bytes)), bytes);
    }
}
