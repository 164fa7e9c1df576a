//! IPv4.

use kinesin_abi::{Address, DropReason, FAMILY_V4, feature};

use super::{Fragment, Header, Ip, protocol};
use crate::{ETH_LEN, checksum, packet::Packet, tables::Tables};

/// IPv4 (RFC 791).
#[derive(Debug, Clone, Copy)]
pub struct V4;

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
    fn underlay(tables: &impl Tables) -> Address {
        [tables.underlay4(), 0, 0, 0]
    }

    #[inline(always)]
    fn is_intact(packet: &impl Packet) -> bool {
        let Some(view) = packet.view::<20>(ETH_LEN) else {
            return false;
        };
        let sum = checksum::sum4([view.u32::<0>(), view.u32::<4>(), view.u32::<8>(), view.u32::<12>()]);
        checksum::fold(sum + u64::from(view.u32::<16>())) == 0
    }

    #[inline(always)]
    fn is_icmp_error(icmp_type: u8) -> bool {
        // RFC 1122 section 3.2.2: everything but echo, timestamp and information requests and replies.
        !matches!(icmp_type, 0 | 8 | 13 | 14 | 15 | 16)
    }
}
