//! The skb mark, with which packets cross the host's stack. Source: reference, section 6.5.

use crate::record::numbers;

numbers! {
    /// The bits that say what the mark is.
    pub const MARK_MAGIC_MASK: u32 = 0x0F00;
    /// To the proxy; the upper half is the proxy port. Reserved for L7.
    pub const MARK_TO_PROXY: u32 = 0x0200;
    /// Source address already translated. Reserved for masquerading.
    pub const MARK_SNAT_DONE: u32 = 0x0300;
    /// Overlay packet with an identity. Reserved for carriers.
    pub const MARK_OVERLAY: u32 = 0x0400;
    /// From the ingress proxy, with an identity. Reserved for L7.
    pub const MARK_FROM_INGRESS_PROXY: u32 = 0x0A00;
    /// From the egress proxy, with an identity. Reserved for L7.
    pub const MARK_FROM_EGRESS_PROXY: u32 = 0x0B00;
    /// From the host itself.
    pub const MARK_HOST: u32 = 0x0C00;
    /// Carries an identity.
    pub const MARK_IDENTITY: u32 = 0x0F00;
}

/// The mark of a packet of `identity` (24 bits).
///
/// # Examples
/// ```
/// use kinesin_abi::mark::{identity, with_identity};
/// assert_eq!(with_identity(5), 0x0005_0F00);
/// assert_eq!(identity(with_identity(0x01_2345)), Some(0x01_2345));
/// ```
#[must_use]
#[inline(always)]
pub const fn with_identity(identity: u32) -> u32 {
    ((identity & 0xffff) << 16) | ((identity >> 16) & 0xff) | MARK_IDENTITY
}

/// The identity that a mark carries, where it carries one.
#[must_use]
#[inline(always)]
pub const fn identity(mark: u32) -> Option<u32> {
    match mark & MARK_MAGIC_MASK {
        MARK_IDENTITY | MARK_OVERLAY | MARK_FROM_INGRESS_PROXY | MARK_FROM_EGRESS_PROXY => {
            Some((mark >> 16) | ((mark & 0xff) << 16))
        }
        _ => None,
    }
}
