//! A packet at a tc hook.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_RECOMPUTE_CSUM,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_change_type,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use kinesin_abi::FAMILY_V4;
use kinesin_packet::{ETH_LEN, Packet, ip::ethertype};

/// `PACKET_HOST`, Linux `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;
/// Bytes that `bpf_skb_change_proto` adds to make IPv6 of IPv4, and takes away to make IPv4 of IPv6.
const PROTO_STEP: i32 = 20;
/// Segments keep their size, although the packet gets longer or shorter: it is that of the packets inside.
const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;
/// What is put on ends with UDP, and is followed by an Ethernet frame. The kernel then knows how to cut it into segments.
const ENCAP_UDP: u64 = FIXED_GSO
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64
    | (ETH_LEN as u64) << BPF_ADJ_ROOM_ENCAP_L2_SHIFT;

/// A packet at a tc hook.
pub(crate) struct TcPacket {
    /// The context.
    pub(crate) ctx: TcContext,
}

impl TcPacket {
    /// The packet of a context.
    #[inline(always)]
    pub(crate) fn new(ctx: TcContext) -> Self {
        Self { ctx }
    }

    /// Index of the device that the hook is on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }

    /// Inserts bytes behind the Ethernet header, or removes some where `length` is negative.
    #[inline(always)]
    fn adjust_room(&mut self, length: i32, flags: u64) -> bool {
        // SAFETY: the context is valid; no view outlives the `&mut self`.
        unsafe { bpf_skb_adjust_room(self.ctx.as_ptr().cast(), length, BPF_ADJ_ROOM_MAC, flags) == 0 }
    }

    /// Makes the kernel take it for a packet of another family, which gets `PROTO_STEP` bytes longer as IPv6 and shorter
    /// as IPv4.
    #[inline(always)]
    fn change_family(&mut self, kind: u16) -> bool {
        // SAFETY: the context is valid; no view outlives the `&mut self`.
        unsafe { bpf_skb_change_proto(self.ctx.as_ptr().cast(), kind, 0) == 0 }
    }

    /// Inserts bytes into a packet that the kernel takes for one of a tunnel already, a pod's own: to a second tunnel it
    /// says no (`bpf_skb_net_grow`, Linux 6.18). Without segments there is nothing that it would have to know.
    ///
    /// A call of its own, since it is rare.
    #[inline(never)]
    fn grow_unseen(&mut self, length: i32, family: u32) -> bool {
        if self.segment_size() != 0 {
            return false;
        }
        let is_v6 = match self.view::<14>(0) {
            Some(view) => view.u16::<12>() == ethertype::IPV6,
            None => return false,
        };
        match (is_v6, family == u32::from(FAMILY_V4)) {
            // In this order: what the change takes away must be of what was inserted.
            (true, true) => self.adjust_room(length + PROTO_STEP, 0) && self.change_family(ethertype::IPV4),
            (false, false) => self.change_family(ethertype::IPV6) && self.adjust_room(length - PROTO_STEP, 0),
            _ => self.adjust_room(length, 0),
        }
    }

    /// Puts an Ethernet header of zeros and the packet's ethertype before a packet that has none.
    #[inline(always)]
    pub(crate) fn add_ethernet(&mut self) -> bool {
        // SAFETY: the context is valid for the whole run of the program. Lossless: an ethertype in network order.
        let kind = unsafe { (*self.ctx.skb.skb).protocol } as u16;
        // SAFETY: the context is valid; no view outlives the `&mut self`.
        if unsafe { bpf_skb_change_head(self.ctx.as_ptr().cast(), ETH_LEN as u32, 0) } != 0 {
            return false;
        }
        match self.view_mut::<14>(0) {
            Some(mut view) => {
                view.set_u16::<12>(kind);
                true
            }
            None => false,
        }
    }

    /// Makes it a packet to its receiver alone, whatever it came as; for answers to what was sent to a group.
    #[inline(always)]
    pub(crate) fn address_to_receiver(&mut self) {
        // SAFETY: the context is valid. The helper fails for other types only.
        unsafe { bpf_skb_change_type(self.ctx.as_ptr().cast(), PACKET_HOST) };
    }
}

impl Packet for TcPacket {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        (self.ctx.data(), self.ctx.data_end())
    }

    #[inline(always)]
    fn segment_size(&self) -> usize {
        // SAFETY: the context is valid for the whole run of the program. Kernel: 5.7.
        unsafe { (*self.ctx.skb.skb).gso_size as usize }
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.ctx.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn is_addressed_to_us(&self) -> bool {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.ctx.skb.skb).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn pull(&mut self, length: usize) -> bool {
        self.ctx.pull_data(length as u32).is_ok()
    }

    #[inline(always)]
    fn set_len(&mut self, length: usize) -> bool {
        // SAFETY: the context is valid; no view outlives the `&mut self`.
        unsafe { bpf_skb_change_tail(self.ctx.as_ptr().cast(), length as u32, 0) == 0 }
    }

    #[inline(always)]
    fn grow_front(&mut self, length: usize) -> bool {
        // Not bpf_skb_change_head: it leaves the network header where it was, so that a packet that is redirected to be
        // received would be read from its quote on.
        self.adjust_room(length as i32, 0)
    }

    #[inline(always)]
    fn encapsulate(&mut self, length: usize, family: u8) -> bool {
        let outer = if family == FAMILY_V4 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 };
        self.adjust_room(length as i32, ENCAP_UDP | u64::from(outer)) || self.grow_unseen(length as i32, family.into())
    }

    #[inline(always)]
    fn decapsulate(&mut self, length: usize, outer: u8, inner: u8) -> bool {
        let length = length as i32;
        if outer == inner {
            return self.adjust_room(-length, FIXED_GSO);
        }
        // The helper has flags that change the family as well, since Linux 6.3 only.
        if outer == FAMILY_V4 {
            self.change_family(ethertype::IPV6) && self.adjust_room(-(length + PROTO_STEP), FIXED_GSO)
        } else {
            self.change_family(ethertype::IPV4) && self.adjust_room(PROTO_STEP - length, FIXED_GSO)
        }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.ctx.skb.skb).mark }
    }

    #[inline(always)]
    fn write_u8(&mut self, offset: usize, value: u8) -> bool {
        let from = (&raw const value).cast();
        // SAFETY: `from` points to one byte that lives until the helper returns.
        unsafe {
            bpf_skb_store_bytes(self.ctx.as_ptr().cast(), offset as u32, from, 1, u64::from(BPF_F_RECOMPUTE_CSUM)) == 0
        }
    }
}
