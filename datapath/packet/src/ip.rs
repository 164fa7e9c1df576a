//! Headers of both families behind one trait.

use kinesin_abi::{Address, DropReason, EndpointKey, FAMILY_V4, FAMILY_V6, IpcacheKey, feature};

use crate::{ETH_LEN, checksum, packet::Packet, tables::Tables};

/// Ethertypes (IEEE 802, IANA), as they stand in memory.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// ARP.
    pub const ARP: u16 = 0x0806_u16.to_be();
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

/// IPv4 (RFC 791).
#[derive(Debug, Clone, Copy)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Debug, Clone, Copy)]
pub struct V6;

impl Ip for V4 {
    const FAMILY: u8 = FAMILY_V4;
    const FEATURE: u32 = feature::IPV4;
    const HEADER_LEN: usize = 20;
    const ICMP: u8 = protocol::ICMP;

    #[inline(always)]
    fn parse(packet: &impl Packet) -> Result<Header, DropReason> {
        let view = packet.view::<20>(ETH_LEN).ok_or(DropReason::InvalidPacket)?;
        let version_and_length = view.u8::<0>();
        let header_len = usize::from(version_and_length & 0x0f) * 4;
        let length = usize::from(u16::from_be(view.u16::<2>()));
        if version_and_length >> 4 != 4 || header_len < 20 || length < header_len || length > packet.len() - ETH_LEN {
            return Err(DropReason::InvalidPacket);
        }
        let flags_and_offset = u16::from_be(view.u16::<6>());
        let fragment = match (flags_and_offset & 0x1fff, flags_and_offset & 0x2000) {
            (0, 0) => Fragment::None,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        Ok(Header {
            src: [view.u32::<12>(), 0, 0, 0],
            dst: [view.u32::<16>(), 0, 0, 0],
            l4: ETH_LEN + header_len,
            length,
            protocol: view.u8::<9>(),
            ttl: view.u8::<8>(),
            fragment,
            dont_fragment: flags_and_offset & 0x4000 != 0,
        })
    }

    #[inline(always)]
    fn decrement_ttl(packet: &mut impl Packet, ttl: u8) -> Option<()> {
        let check = packet.view::<2>(ETH_LEN + 10)?.u16::<0>();
        let mut view = packet.view_mut::<4>(ETH_LEN + 8)?;
        view.set_u8::<0>(ttl.wrapping_sub(1));
        view.set_u16::<2>(checksum::after_ttl_decrement(check));
        Some(())
    }

    #[inline(always)]
    fn is_multicast(address: &Address) -> bool {
        // 224.0.0.0/4 (RFC 5771) and all above it, the limited broadcast address included.
        u32::from_be(address[0]) >= 0xe000_0000
    }

    #[inline(always)]
    fn is_local(address: &Address) -> bool {
        // 127.0.0.0/8 (RFC 1122 section 3.2.1.3). The stack would take it where `route_localnet` is set.
        u32::from_be(address[0]) >> 24 == 127
    }

    #[inline(always)]
    fn is_signalling(_packet: &impl Packet, header: &Header) -> bool {
        // RFC 3376 section 4: IGMP has a TTL of 1.
        header.protocol == protocol::IGMP && header.ttl == 1
    }

    #[inline(always)]
    fn router(tables: &impl Tables) -> Address {
        [tables.router4(), 0, 0, 0]
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // RFC 1122 section 3.2.2: everything but echo, timestamp and information requests and replies.
        !matches!(icmp_type, 0 | 8 | 13 | 14 | 15 | 16)
    }
}

impl Ip for V6 {
    const FAMILY: u8 = FAMILY_V6;
    const FEATURE: u32 = feature::IPV6;
    const HEADER_LEN: usize = 40;
    const ICMP: u8 = protocol::ICMPV6;

    #[inline(always)]
    fn parse(packet: &impl Packet) -> Result<Header, DropReason> {
        let view = packet.view::<40>(ETH_LEN).ok_or(DropReason::InvalidPacket)?;
        let length = 40 + usize::from(u16::from_be(view.u16::<4>()));
        if view.u8::<0>() >> 4 != 6 || length > packet.len() - ETH_LEN {
            return Err(DropReason::InvalidPacket);
        }
        let mut header = Header {
            src: view.words4::<8>(),
            dst: view.words4::<24>(),
            l4: ETH_LEN + 40,
            length,
            protocol: view.u8::<6>(),
            ttl: view.u8::<7>(),
            fragment: Fragment::None,
            dont_fragment: true,
        };
        skip_extensions(packet, &mut header)?;
        Ok(header)
    }

    #[inline(always)]
    fn decrement_ttl(packet: &mut impl Packet, ttl: u8) -> Option<()> {
        // No header checksum (RFC 8200 section 3), but a sum that the network card kept covers the byte.
        packet.write_u8(ETH_LEN + 7, ttl.wrapping_sub(1)).then_some(())
    }

    #[inline(always)]
    fn is_multicast(address: &Address) -> bool {
        // ff00::/8 (RFC 4291 section 2.7).
        u32::from_be(address[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_local(address: &Address) -> bool {
        is_link_local(address) || *address == [0, 0, 0, 1_u32.to_be()]
    }

    #[inline(always)]
    fn is_signalling(packet: &impl Packet, header: &Header) -> bool {
        if header.protocol != protocol::ICMPV6 || header.fragment == Fragment::Later {
            return false;
        }
        let kind = match packet.view::<2>(header.l4) {
            Some(view) => view.u8::<0>(),
            None => return false,
        };
        match header.ttl {
            // Listener reports (RFC 2710 section 3.1, RFC 3810 section 5.2) and the farewell.
            1 => matches!(kind, 131 | 132 | 143),
            // Solicitations of routers and neighbours (RFC 4861 sections 4.1, 4.3).
            255 => matches!(kind, 133 | 135),
            _ => false,
        }
    }

    #[inline(always)]
    fn router(tables: &impl Tables) -> Address {
        tables.router6()
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // RFC 4443 section 2.1: errors have the high bit clear. Redirects are not answered either (section 2.4 e.2).
        icmp_type < 128 || icmp_type == 137
    }
}

/// Whether an IPv6 address is one of its link alone: fe80::/10 (RFC 4291 section 2.5.6).
#[inline(always)]
pub fn is_link_local(address: &Address) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80 >> 6
}

/// Extension headers that are followed before a packet counts as hiding its transport header.
const MAX_EXTENSIONS: usize = 6;

/// Moves `header` to the transport header behind extension headers (RFC 8200 section 4).
#[inline(always)]
fn skip_extensions(packet: &impl Packet, header: &mut Header) -> Result<(), DropReason> {
    for _ in 0..MAX_EXTENSIONS {
        let fragment = match header.protocol {
            // Hop-by-hop, routing and destination options.
            0 | 43 | 60 => false,
            44 => true,
            _ => return Ok(()),
        };
        let view = packet.view::<8>(header.l4).ok_or(DropReason::ExtensionHeader)?;
        header.protocol = view.u8::<0>();
        if fragment {
            let offset_and_more = u16::from_be(view.u16::<2>());
            header.l4 += 8;
            header.fragment = match (offset_and_more & 0xfff8, offset_and_more & 1) {
                // An atomic fragment (RFC 6946) is whole.
                (0, 0) => Fragment::None,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            if header.fragment == Fragment::Later {
                return Ok(());
            }
        } else {
            header.l4 += (usize::from(view.u8::<1>()) + 1) * 8;
        }
    }
    match header.protocol {
        0 | 43 | 44 | 60 => Err(DropReason::ExtensionHeader),
        _ => Ok(()),
    }
}

/// The ports of a TCP or UDP packet as they stand in memory, source first.
#[inline(always)]
pub fn ports(packet: &impl Packet, header: &Header) -> Option<(u16, u16)> {
    let view = packet.view::<4>(header.l4)?;
    Some((view.u16::<0>(), view.u16::<2>()))
}
