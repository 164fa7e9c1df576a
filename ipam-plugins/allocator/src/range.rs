//! The addresses of a network that can be leased at all, by number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Host bits of the largest IPv4 block: a bit per address must stay affordable, and no node runs more pods.
pub const MAX_IPV4_HOST_BITS: u8 = 24;

/// Addresses of an IPv6 block that are used; the rest of a larger block lies idle, as with Cilium (reference 5.1).
pub const MAX_IPV6_ADDRESSES: usize = 1 << 16;

/// A network, seen as a row of addresses from which some can be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    network: IpNet,
    size: usize,
}

impl Range {
    /// The addresses of `network`; its host bits are ignored.
    ///
    /// # Errors
    /// Why the network cannot be used, and what to change.
    ///
    /// # Examples
    /// ```
    /// # use kinesin_ipam_allocator::Range;
    /// let range = Range::new("10.0.0.0/29".parse()?).map_err(|reason| reason)?;
    /// assert_eq!((range.usable(), range.index_of("10.0.0.7".parse()?)), (6, None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(network: IpNet) -> Result<Self, String> {
        let host_bits = network.max_prefix_len() - network.prefix_len();
        let size = match network {
            IpNet::V4(_) if host_bits > MAX_IPV4_HOST_BITS => {
                return Err(format!("it is larger than a /{}; give the node a smaller one", 32 - MAX_IPV4_HOST_BITS));
            }
            IpNet::V4(_) => 1_usize << host_bits,
            IpNet::V6(_) => 1_usize.checked_shl(host_bits.into()).unwrap_or(0),
        };
        // Zero: more addresses than a usize counts.
        let capped = network.addr().is_ipv6() && (size == 0 || size > MAX_IPV6_ADDRESSES);
        Ok(Self { network: network.trunc(), size: if capped { MAX_IPV6_ADDRESSES } else { size } })
    }

    /// The network, without host bits.
    #[must_use]
    pub fn network(&self) -> IpNet {
        self.network
    }

    /// Addresses in the row, those included that cannot be leased.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// How many addresses can be leased.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.last() + 1 - self.first()
    }

    /// Number of the first address that can be leased.
    pub(crate) fn first(&self) -> usize {
        usize::from(self.size > 2)
    }

    /// Number of the last address that can be leased.
    pub(crate) fn last(&self) -> usize {
        if self.size > 2 { self.size - 2 } else { self.size - 1 }
    }

    /// Number of an address; none when it is outside or cannot be leased.
    #[must_use]
    pub fn index_of(&self, ip: IpAddr) -> Option<usize> {
        if !self.network.contains(&ip) {
            return None;
        }
        let offset = number(ip) - number(self.network.network());
        usize::try_from(offset).ok().filter(|index| (self.first()..=self.last()).contains(index))
    }

    /// The address with a number below `size`.
    pub(crate) fn address(&self, index: usize) -> IpAddr {
        // Lossless: usize has at most 64 bits here, and an IPv4 index fits 32.
        let value = number(self.network.network()) + index as u128;
        match self.network {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(value as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(value)),
        }
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::new(text.parse().expect("a network")).expect("usable")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn network_and_last_address_are_left_out_of_more_than_two() {
        for (text, usable, first, last) in [
            ("10.0.0.0/24", 254, "10.0.0.1", "10.0.0.254"),
            ("10.0.0.8/29", 6, "10.0.0.9", "10.0.0.14"),
            ("10.0.0.0/30", 2, "10.0.0.1", "10.0.0.2"),
            ("10.0.0.2/31", 2, "10.0.0.2", "10.0.0.3"),
            ("10.0.0.5/32", 1, "10.0.0.5", "10.0.0.5"),
            ("255.255.255.254/31", 2, "255.255.255.254", "255.255.255.255"),
            ("10.0.0.0/8", (1 << 24) - 2, "10.0.0.1", "10.255.255.254"),
            ("fd00::/120", 254, "fd00::1", "fd00::fe"),
            ("fd00::/127", 2, "fd00::", "fd00::1"),
            ("fd00::9/128", 1, "fd00::9", "fd00::9"),
        ] {
            let range = range(text);
            let ends = (range.address(range.first()), range.address(range.last()));
            assert_eq!((range.usable(), ends), (usable, (ip(first), ip(last))), "{text}");
            for index in [range.first(), range.last()] {
                assert_eq!(range.index_of(range.address(index)), Some(index), "{text}");
            }
        }
    }

    #[test]
    fn huge_ipv6_ranges_are_capped() {
        for text in ["::/0", "fd00::/8", "fd00::/64", "fd00::/65", "fd00::/111", "fd00::/112"] {
            let range = range(text);
            assert_eq!(range.usable(), 65_534, "{text}");
        }
        assert_eq!(range("fd00::/64").index_of(ip("fd00::1:0")), None, "beyond the cap");
    }

    #[test]
    fn huge_ipv4_ranges_are_refused_with_a_way_out() {
        for text in ["0.0.0.0/0", "10.0.0.0/7"] {
            let reason = Range::new(text.parse().expect("a network")).expect_err("too large");
            assert_eq!(reason, "it is larger than a /8; give the node a smaller one");
        }
    }

    #[test]
    fn addresses_of_the_other_family_are_outside() {
        assert_eq!(range("10.0.0.0/24").index_of(ip("::10.0.0.5")), None);
        assert_eq!(range("fd00::/64").index_of(ip("10.0.0.5")), None);
    }
}
