//! A range that blocks are cut from, and the objects that hold its claims.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use kinesin_core::values::Family;

/// Blocks of one object at most: 4096 claims of some 70 bytes stay far below the 1.5 MiB that etcd takes.
pub const BLOCKS_PER_OBJECT: u32 = 1 << BLOCK_BITS;
const BLOCK_BITS: u8 = 12;

/// A network and the size of the blocks that are cut from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockRange {
    cidr: IpNet,
    block_prefix: u8,
}

impl BlockRange {
    /// Blocks of prefix length `block_prefix` out of `cidr`, whose host bits are ignored.
    ///
    /// # Errors
    /// Why the two do not fit, and what to change.
    ///
    /// # Examples
    /// ```
    /// # use kinesin_ipam_blocks::BlockRange;
    /// let range = BlockRange::new("172.20.0.0/16".parse()?, 28)?;
    /// assert_eq!((range.count(), range.nth(1).to_string()), (4096, "172.20.0.16/28".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(cidr: IpNet, block_prefix: u8) -> Result<Self, String> {
        let (cidr, longest) = (cidr.trunc(), cidr.max_prefix_len());
        if block_prefix > longest {
            return Err(format!("mask size {block_prefix} is no prefix length of {cidr}; write at most {longest}"));
        }
        if block_prefix < cidr.prefix_len() {
            return Err(format!(
                "a block of mask size {block_prefix} is larger than {cidr}; write a mask size from {} to {longest}",
                cidr.prefix_len()
            ));
        }
        // The allocator of the node keeps a bit per address.
        if cidr.addr().is_ipv4() && block_prefix < 8 {
            return Err(format!("a block of mask size {block_prefix} is too large for a node; write at least 8"));
        }
        Ok(Self { cidr, block_prefix })
    }

    /// The network.
    #[must_use]
    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    /// Prefix length of a block.
    #[must_use]
    pub fn block_prefix(&self) -> u8 {
        self.block_prefix
    }

    /// Family of the addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of_net(&self.cidr)
    }

    /// How many blocks there are; the largest number if there are more than it counts.
    #[must_use]
    pub fn count(&self) -> u128 {
        1_u128.checked_shl(u32::from(self.block_prefix - self.cidr.prefix_len())).unwrap_or(u128::MAX)
    }

    /// The block with this number, which is below [`count`](Self::count).
    #[must_use]
    pub fn nth(&self, number: u128) -> IpNet {
        let host_bits = u32::from(self.cidr.max_prefix_len() - self.block_prefix);
        // A shift by all 128 bits happens for the one block of ::/0 only.
        let offset = number.checked_shl(host_bits).unwrap_or(0);
        network_at(self.family(), start(&self.cidr).wrapping_add(offset), self.block_prefix)
    }

    /// Number of the first block that begins after `network` has ended; nothing if that is beyond the range.
    pub(crate) fn number_after(&self, network: &IpNet) -> Option<u128> {
        let past = end(network).checked_add(1)?;
        let offset = past.checked_sub(start(&self.cidr))?;
        let host_bits = u32::from(self.cidr.max_prefix_len() - self.block_prefix);
        let number = offset.checked_shr(host_bits).unwrap_or(0);
        (number < self.count()).then_some(number)
    }

    /// Whether `network` lies in the range.
    #[must_use]
    pub fn contains(&self, network: &IpNet) -> bool {
        self.cidr.contains(network)
    }

    /// The network of the object that holds the claim of `block`: the range, or a part of it if it has many blocks.
    #[must_use]
    pub fn object_of(&self, block: &IpNet) -> IpNet {
        let prefix = self.cidr.prefix_len().max(block.prefix_len().saturating_sub(BLOCK_BITS));
        network_at(self.family(), start(block), prefix)
    }
}

/// How many addresses of a block a node can lease: without the network's and the last one if there are more than two,
/// and of IPv6 at most 65,534, as the allocator has it.
#[must_use]
pub fn usable_addresses(block: &IpNet) -> u64 {
    let mut host_bits = u32::from(block.max_prefix_len() - block.prefix_len());
    if block.addr().is_ipv6() {
        host_bits = host_bits.min(16);
    }
    match 1_u64 << host_bits {
        size @ (1 | 2) => size,
        size => size - 2,
    }
}

/// Name of the object that holds the claims of a network, such as `v4-172-20-0-0-16`.
#[must_use]
pub fn object_name(network: &IpNet) -> String {
    let prefix = network.prefix_len();
    match network.network() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("v4-{a}-{b}-{c}-{d}-{prefix}")
        }
        IpAddr::V6(address) => {
            let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:x}")).collect();
            format!("v6-{}-{prefix}", groups.join("-"))
        }
    }
}

/// The network of an object's name; nothing if it is no such name.
#[must_use]
pub fn parse_object_name(name: &str) -> Option<IpNet> {
    let parts: Vec<&str> = name.split('-').collect();
    let (kind, rest) = parts.split_first()?;
    let (prefix, address) = rest.split_last()?;
    let address: IpAddr = match (*kind, address.len()) {
        ("v4", 4) => IpAddr::V4(address.join(".").parse().ok()?),
        ("v6", 8) => IpAddr::V6(address.join(":").parse().ok()?),
        _ => return None,
    };
    let network = IpNet::new(address, prefix.parse().ok()?).ok()?.trunc();
    // Only what `object_name` writes: two names of one network would be two objects.
    (object_name(&network) == name).then_some(network)
}

/// First address as a number.
pub(crate) fn start(network: &IpNet) -> u128 {
    number(network.network())
}

/// Last address as a number.
pub(crate) fn end(network: &IpNet) -> u128 {
    number(network.broadcast())
}

/// The network of a prefix length around an address; bits beyond the prefix are cut off.
pub(crate) fn network_at(family: Family, address: u128, prefix: u8) -> IpNet {
    let address = match family {
        #[expect(clippy::cast_possible_truncation, reason = "addresses of this family have 32 bits")]
        Family::V4 => IpAddr::V4(Ipv4Addr::from(address as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(address)),
    };
    let prefix = prefix.min(family.host_prefix());
    IpNet::new_assert(address, prefix).trunc()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn blocks_are_numbered_upwards() {
        for (range, prefix, count, first, last) in [
            ("172.20.0.0/16", 28, 4096, "172.20.0.0/28", "172.20.255.240/28"),
            ("10.0.0.0/28", 29, 2, "10.0.0.0/29", "10.0.0.8/29"),
            ("10.0.0.0/24", 24, 1, "10.0.0.0/24", "10.0.0.0/24"),
            ("0.0.0.0/0", 32, 1 << 32, "0.0.0.0/32", "255.255.255.255/32"),
            ("fd00::/104", 120, 1 << 16, "fd00::/120", "fd00::ff:ff00/120"),
            ("fd00::/32", 64, 1 << 32, "fd00::/64", "fd00:0:ffff:ffff::/64"),
        ] {
            let range = BlockRange::new(net(range), prefix).expect("it fits");
            assert_eq!(range.count(), count);
            assert_eq!((range.nth(0), range.nth(count - 1)), (net(first), net(last)));
            assert_eq!(range.number_after(&range.nth(0)), (count > 1).then_some(1));
            assert_eq!(range.number_after(&range.nth(count - 1)), None);
        }
        assert_eq!(BlockRange::new(net("::/0"), 128).expect("it fits").count(), u128::MAX, "as many as can be counted");
    }

    #[test]
    fn masks_that_do_not_fit_are_refused_with_a_way_out() {
        for (range, prefix, reason) in [
            ("10.0.0.0/24", 23, "from 24 to 32"),
            ("10.0.0.0/24", 33, "at most 32"),
            ("0.0.0.0/0", 7, "at least 8"),
            ("fd00::/64", 129, "at most 128"),
        ] {
            let refused = BlockRange::new(net(range), prefix).expect_err("refused");
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn usable_addresses_are_those_of_the_allocator() {
        for text in ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.0/32"]
            .iter()
            .chain(&["fd00::/64", "fd00::/112", "fd00::/113", "fd00::/120", "fd00::/127", "fd00::/128"])
        {
            let range = kinesin_ipam_allocator::Range::new(net(text)).expect("usable");
            assert_eq!(usable_addresses(&net(text)), range.usable() as u64, "{text}");
        }
    }

    #[test]
    fn large_ranges_have_several_objects_and_each_block_one() {
        let small = BlockRange::new(net("172.20.0.0/16"), 28).expect("it fits");
        assert_eq!(small.object_of(&net("172.20.255.240/28")), net("172.20.0.0/16"));
        let large = BlockRange::new(net("10.0.0.0/8"), 24).expect("it fits");
        assert_eq!(large.object_of(&net("10.1.2.0/24")), net("10.0.0.0/12"));
        assert_eq!(large.object_of(&net("10.255.2.0/24")), net("10.240.0.0/12"));
        let ipv6 = BlockRange::new(net("fd00::/32"), 64).expect("it fits");
        assert_eq!(ipv6.object_of(&net("fd00:0:1:2::/64")), net("fd00:0:1::/52"));
    }

    #[test]
    fn names_of_objects_lead_back_to_their_network() {
        for (text, name) in [
            ("172.20.0.0/16", "v4-172-20-0-0-16"),
            ("fd00:12::/104", "v6-fd00-12-0-0-0-0-0-0-104"),
            ("::/0", "v6-0-0-0-0-0-0-0-0-0"),
        ] {
            assert_eq!(object_name(&net(text)), name);
            assert_eq!(parse_object_name(name), Some(net(text)));
        }
        for text in ["", "v4", "v4-10-0-0-0", "v4-10-0-0-0-33", "v4-10-0-0-1-24", "v5-1-1-1-1-8", "v4-010-0-0-0-8"] {
            assert_eq!(parse_object_name(text), None, "{text}");
        }
    }
}
