//! IPv6.

use kinesin_abi::{Address, DropReason, FAMILY_V6, feature};

use super::{Fragment, Header, Ip, protocol};
use crate::{ETH_LEN, packet::Packet, tables::Tables};

/// IPv6 (RFC 8200).
#[derive(Debug, Clone, Copy)]
pub struct V6;

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
    fn underlay(tables: &impl Tables) -> Address {
        tables.underlay6()
    }

    #[inline(always)]
    fn is_intact(_packet: &impl Packet) -> bool {
        // No header checksum (RFC 8200 section 3).
        true
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
