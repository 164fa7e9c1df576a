//! A packet at a tc hook.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::{bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_store_bytes},
    programs::TcContext,
};
use kinesin_packet::Packet;

/// `PACKET_HOST`, Linux `include/uapi/linux/if_packet.h`.
const PACKET_HOST: u32 = 0;

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
        // SAFETY: the context is valid; no view outlives the `&mut self`.
        unsafe { bpf_skb_adjust_room(self.ctx.as_ptr().cast(), length as i32, BPF_ADJ_ROOM_MAC, 0) == 0 }
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
