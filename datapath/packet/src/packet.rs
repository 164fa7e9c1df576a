//! Access to the bytes of a packet, checked once per view.
//!
//! A view is one bounds check followed by loads at constant offsets, which is what the verifier understands and what
//! costs least. A view borrows the packet, so none outlives a call that may move the packet.
#![expect(unsafe_code, reason = "the views read and write through pointers that were checked when they were made")]

use core::marker::PhantomData;

/// Largest offset at which a view can start, in bytes; it bounds the verifier's search.
pub const MAX_OFFSET: usize = 0x3ff;

/// A packet, starting with its Ethernet header.
pub trait Packet {
    /// Length in bytes, Ethernet header included.
    fn len(&self) -> usize;

    /// Whether it has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Start and end of the bytes that can be accessed directly.
    fn bounds(&self) -> (usize, usize);

    /// Bytes of payload per segment if the kernel will segment the packet later, otherwise 0.
    fn segment_size(&self) -> usize {
        0
    }

    /// Whether it carries a VLAN tag, which stands outside of the bytes.
    fn is_tagged(&self) -> bool {
        false
    }

    /// Whether its Ethernet destination is the device that it came in on, and not another or a group.
    fn is_addressed_to_us(&self) -> bool {
        true
    }

    /// Makes the first `length` bytes directly accessible; the answer tells whether they are.
    fn pull(&mut self, length: usize) -> bool;

    /// Cuts or extends the packet at its end to `length` bytes.
    fn set_len(&mut self, length: usize) -> bool;

    /// Inserts `length` bytes in front of the packet; the first 14 bytes are to be written anew.
    fn grow_front(&mut self, length: usize) -> bool;

    /// Inserts `length` bytes behind the Ethernet header for headers of a tunnel over an underlay of `family`: IP, UDP,
    /// the tunnel's own, and last an Ethernet header. Segments stay as long as they are.
    fn encapsulate(&mut self, length: usize, family: u8) -> bool;

    /// Removes `length` bytes behind the Ethernet header: the headers of a tunnel over an underlay of family `outer`.
    /// What is left is a packet of family `inner`, whose Ethernet header is to be written anew.
    fn decapsulate(&mut self, length: usize, outer: u8, inner: u8) -> bool;

    /// The packet's mark, where it passed the node's stack.
    fn mark(&self) -> u32 {
        0
    }

    /// Writes one byte of a header that a checksum kept by the driver covers.
    fn write_u8(&mut self, offset: usize, value: u8) -> bool;

    /// `N` bytes at `offset`, or nothing when the packet is shorter.
    #[inline(always)]
    fn view<const N: usize>(&self, offset: usize) -> Option<View<'_, N>> {
        Some(View(checked::<N>(self.bounds(), offset)?, PhantomData))
    }

    /// `N` bytes at `offset` for writing, or nothing when the packet is shorter.
    #[inline(always)]
    fn view_mut<const N: usize>(&mut self, offset: usize) -> Option<ViewMut<'_, N>> {
        Some(ViewMut(checked::<N>(self.bounds(), offset)?, PhantomData))
    }
}

/// `N` readable bytes.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, const N: usize>(*const u8, PhantomData<&'a [u8; N]>);

/// `N` writable bytes.
#[derive(Debug)]
pub struct ViewMut<'a, const N: usize>(*mut u8, PhantomData<&'a mut [u8; N]>);

#[inline(always)]
fn checked<const N: usize>((start, end): (usize, usize), offset: usize) -> Option<*mut u8> {
    if offset > MAX_OFFSET {
        return None;
    }
    let first = start + offset;
    // Hidden from LLVM, which would turn the comparison into one that gives the verifier no range.
    if opaque(first + N) > end {
        return None;
    }
    Some(first as *mut u8)
}

/// Hides a value from LLVM, not from the verifier.
#[inline(always)]
#[must_use]
pub fn opaque(value: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: the instruction moves a register onto itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags, pure)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

#[inline(always)]
unsafe fn read<T: Copy>(pointer: *const u8) -> T {
    // The kernel aligns packets so that network headers are aligned, and the verifier checks it; elsewhere nothing does.
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller has checked the range.
    unsafe {
        *pointer.cast()
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller has checked the range.
    unsafe {
        pointer.cast::<T>().read_unaligned()
    }
}

#[inline(always)]
unsafe fn write<T: Copy>(pointer: *mut u8, value: T) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller has checked the range.
    unsafe {
        *pointer.cast() = value;
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller has checked the range.
    unsafe {
        pointer.cast::<T>().write_unaligned(value);
    }
}

macro_rules! getters {
    ($($name:ident: $ty:ty, $what:literal;)+) => {
        $(
            #[doc = concat!($what, " at byte `O` of the view, as it stands in memory.")]
            #[inline(always)]
            #[must_use]
            pub fn $name<const O: usize>(&self) -> $ty {
                const { assert!(O + size_of::<$ty>() <= N) };
                // SAFETY: the view was checked for N bytes and the assertion keeps the access inside them.
                unsafe { read(self.0.add(O)) }
            }
        )+
    };
}

impl<const N: usize> View<'_, N> {
    getters! {
        u8: u8, "The byte";
        u16: u16, "Two bytes";
        u32: u32, "Four bytes";
    }

    /// Four words at byte `O`.
    #[inline(always)]
    #[must_use]
    pub fn words4<const O: usize>(&self) -> [u32; 4] {
        const { assert!(O + 16 <= N) };
        // SAFETY: the view was checked for N bytes and the assertion keeps the accesses inside them.
        unsafe { [read(self.0.add(O)), read(self.0.add(O + 4)), read(self.0.add(O + 8)), read(self.0.add(O + 12))] }
    }
}

macro_rules! setters {
    ($($name:ident: $ty:ty, $what:literal;)+) => {
        $(
            #[doc = concat!("Writes ", $what, " at byte `O` of the view.")]
            #[inline(always)]
            pub fn $name<const O: usize>(&mut self, value: $ty) {
                const { assert!(O + size_of::<$ty>() <= N) };
                // SAFETY: the view was checked for N bytes and the assertion keeps the access inside them.
                unsafe { write(self.0.add(O), value) }
            }
        )+
    };
}

impl<const N: usize> ViewMut<'_, N> {
    setters! {
        set_u8: u8, "a byte";
        set_u16: u16, "two bytes";
        set_u32: u32, "four bytes";
    }

    /// Writes four words at byte `O`.
    #[inline(always)]
    pub fn set_words4<const O: usize>(&mut self, words: [u32; 4]) {
        const { assert!(O + 16 <= N) };
        let [a, b, c, d] = words;
        // SAFETY: the view was checked for N bytes and the assertion keeps the accesses inside them.
        unsafe {
            write(self.0.add(O), a);
            write(self.0.add(O + 4), b);
            write(self.0.add(O + 8), c);
            write(self.0.add(O + 12), d);
        }
    }
}
