//! The mark on packets that pass the node's stack (reference 6.5).

/// A packet mark that carries a source identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u32);

impl Mark {
    /// The mark of a tunnel's packet from a node, on its way through the stack to the kernel's tunnel device. Who has it
    /// was let in by an uplink's program. The reference marks a tunnel's packets so too.
    pub const OVERLAY: Self = Self(0x0400);
    /// Magic of a packet whose mark carries an identity.
    pub const MAGIC_IDENTITY: u32 = 0x0f00;
    /// Bits of the magic.
    pub const MAGIC_MASK: u32 = 0x0f00;

    /// The mark of a packet with this source identity, of which 24 bits count.
    ///
    /// The identity's low 16 bits stand in the mark's high half and its high 8 bits in the mark's low byte.
    #[must_use]
    pub const fn of_identity(identity: u32) -> Self {
        Self(((identity & 0xffff) << 16) | ((identity >> 16) & 0xff) | Self::MAGIC_IDENTITY)
    }

    /// The identity that the mark carries, if it carries one.
    #[must_use]
    pub const fn identity(self) -> Option<u32> {
        if self.0 & Self::MAGIC_MASK == Self::MAGIC_IDENTITY {
            Some((self.0 >> 16) | ((self.0 & 0xff) << 16))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_the_mark() {
        for identity in [0, 1, 5, 0xffff, 0x1_0000, 0xab_cdef, 0xff_ffff] {
            assert_eq!(Mark::of_identity(identity).identity(), Some(identity));
        }
        assert_eq!(Mark(0x200).identity(), None);
        assert_eq!(Mark::OVERLAY.identity(), None);
    }
}
