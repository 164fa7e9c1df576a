//! What the kernel's tunnel devices are told of a packet, and tell of one.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_DONT_FRAGMENT, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX, bpf_tunnel_key as TunnelKey,
        bpf_tunnel_key__bindgen_ty_1 as Remote, bpf_tunnel_key__bindgen_ty_3 as Local,
    },
    helpers::{bpf_set_hash, bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use kinesin_abi::{DropReason, FAMILY_V4, identity};
use kinesin_packet::{
    Peer,
    tunnel::{TTL, device::Key},
};

use crate::packet::TcPacket;

/// As `encap.rs` writes: DF is set, and there is no checksum of UDP.
const FLAGS: u64 = BPF_F_DONT_FRAGMENT as u64 | BPF_F_ZERO_CSUM_TX as u64;
/// The part of the record that every kernel has; what follows are addresses of this node. Kernel: 4.6.
const SHORT: usize = core::mem::offset_of!(TunnelKey, __bindgen_anon_3);

/// Tells the device that the packet is redirected to where it goes and with what; the answer tells whether it could.
///
/// A call of its own, since frames of nested calls share 512 bytes of stack. Kernel: 6.0 for the source address.
#[inline(never)]
pub(crate) fn tell(packet: &TcPacket, peer: &Peer, key: &Key) -> bool {
    // SAFETY: the record has integers only, for which zero is a value.
    let mut told: TunnelKey = unsafe { core::mem::zeroed() };
    told.tunnel_id = key.vni;
    // Lossless: a byte each.
    (told.tunnel_tos, told.tunnel_ttl) = (key.class as u8, TTL as u8);
    let family = if peer.family == FAMILY_V4 {
        // The helper takes these in host order, and those of IPv6 as they stand in a header.
        told.__bindgen_anon_1 = Remote { remote_ipv4: u32::from_be(peer.node[0]) };
        told.__bindgen_anon_3 = Local { local_ipv4: u32::from_be(key.source[0]) };
        0
    } else {
        told.tunnel_label = key.label;
        told.__bindgen_anon_1 = Remote { remote_ipv6: peer.node };
        told.__bindgen_anon_3 = Local { local_ipv6: key.source };
        u64::from(BPF_F_TUNINFO_IPV6)
    };
    let skb = packet.ctx.as_ptr().cast();
    let size = size_of::<TunnelKey>() as u32;
    // SAFETY: the context is valid, the pointer is to a live local of the stated size.
    unsafe {
        bpf_set_hash(skb, key.hash);
        bpf_skb_set_tunnel_key(skb, &raw mut told, size, FLAGS | family) == 0
    }
}

/// The identity with which a packet came out of the device.
///
/// # Errors
/// The reason to drop the packet for.
#[inline(always)]
pub(crate) fn identity(packet: &TcPacket) -> Result<u32, DropReason> {
    // SAFETY: the record has integers only, for which zero is a value.
    let mut told: TunnelKey = unsafe { core::mem::zeroed() };
    let skb = packet.ctx.as_ptr().cast();
    // SAFETY: the context is valid, the pointer is to a live local that is longer than the stated size.
    let mut ask = |flags| unsafe { bpf_skb_get_tunnel_key(skb, &raw mut told, SHORT as u32, flags) == 0 };
    // Over which family it came the helper wants to know beforehand.
    if !ask(0) && !ask(u64::from(BPF_F_TUNINFO_IPV6)) {
        return Err(DropReason::InvalidTunnel);
    }
    match told.tunnel_id {
        0 | identity::HOST => Err(DropReason::InvalidIdentity),
        identity => Ok(identity),
    }
}
