//! Headers of both families behind one trait.

mod v4;
mod v6;

use kinesin_abi::{Address, DropReason, EndpointKey, IpcacheKey};

pub use self::{
    v4::V4,
    v6::{V6, is_link_local},
};
use crate::{packet::Packet, tables::Tables};

/// Ethertypes (IEEE 802, IANA), as they stand in memory.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// A provider's VLAN tag (IEEE 802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8_u16.to_be();
}

/// IP protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 without next header.
    pub const NONE: u8 = 59;
}

/// Which part of a fragmented packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// Whole.
    None,
    /// With the transport header.
    First,
    /// Without it.
    Later,
}

/// What the pipeline needs of an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Offset of the transport header from the start of the packet, in bytes.
    pub l4: usize,
    /// Length of IP header and payload, from the header, in bytes.
    pub length: usize,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Fragmentation.
    pub fragment: Fragment,
    /// Whether a router must not fragment it: DF, or IPv6.
    pub dont_fragment: bool,
}

/// One IP family.
pub trait Ip {
    /// Value of `family` fields.
    const FAMILY: u8;
    /// Bit in `Constants::features`.
    const FEATURE: u32;
    /// Length of the header without options in bytes.
    const HEADER_LEN: usize;
    /// The ICMP of this family.
    const ICMP: u8;

    /// Reads and checks the header after the Ethernet header.
    ///
    /// # Errors
    /// The reason to drop the packet for.
    fn parse(packet: &impl Packet) -> Result<Header, DropReason>;

    /// Takes one from TTL or hop limit; the caller has seen that it is above one.
    fn decrement_ttl(packet: &mut impl Packet, ttl: u8) -> Option<()>;

    /// Whether an address is multicast or broadcast.
    fn is_multicast(address: &Address) -> bool;

    /// Whether an address means another thing on each node or link and is never a pod's. IPv4's link-local ones are not
    /// among them: clouds serve their metadata there.
    fn is_local(address: &Address) -> bool;

    /// Whether a packet to a group is what every stack sends on a link of its own accord: who is there, and who listens
    /// to which group.
    fn is_signalling(packet: &impl Packet, header: &Header) -> bool;

    /// The router address of this family.
    fn router(tables: &impl Tables) -> Address;

    /// The node's address to other nodes in this family; zero when it has none.
    fn underlay(tables: &impl Tables) -> Address;

    /// Whether the checksum of a header without options is right, where the family has one.
    fn is_intact(packet: &impl Packet) -> bool;

    /// Whether an ICMP message of this type is an error, about which no error is sent.
    fn is_icmp_error(icmp_type: u8) -> bool;

    /// The key of an address in the endpoint table.
    #[inline(always)]
    fn endpoint_key(address: &Address) -> EndpointKey {
        EndpointKey { addr: *address, family: Self::FAMILY, pad: [0; 3] }
    }

    /// The key of an address in the prefix table.
    #[inline(always)]
    fn ipcache_key(address: &Address) -> IpcacheKey {
        IpcacheKey { family: [Self::FAMILY, 0, 0, 0], addr: *address }
    }
}

/// The ports of a TCP or UDP packet as they stand in memory, source first.
#[inline(always)]
pub fn ports(packet: &impl Packet, header: &Header) -> Option<(u16, u16)> {
    let view = packet.view::<4>(header.l4)?;
    Some((view.u16::<0>(), view.u16::<2>()))
}
