//! Packet counters per reason and direction: a per-CPU array.

use crate::{
    reason::DropReason,
    record::{numbers, record},
};

record! {
    /// Value of the counter table, one per CPU.
    pub struct MetricsValue [16] {
        /// Packets.
        pub packets: u64,
        /// Bytes with link header.
        pub bytes: u64,
    }
}

numbers! {
    /// Towards an endpoint.
    pub const DIRECTION_INGRESS: u8 = 1;
    /// From an endpoint.
    pub const DIRECTION_EGRESS: u8 = 2;
    /// Entries of the counter table: four directions of 256 reasons.
    pub const METRICS_ENTRIES: u32 = 1024;
}

/// Index of the counter of `reason` in `direction`.
#[must_use]
#[inline(always)]
pub const fn index(reason: DropReason, direction: u8) -> u32 {
    ((direction as u32 & 3) << 8) | reason.0 as u32
}

/// The reason and direction that an index stands for.
#[must_use]
pub const fn parts(index: u32) -> (DropReason, u8) {
    (DropReason((index & 0xff) as u8), ((index >> 8) & 3) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_is_one_reason_and_direction() {
        for i in 0..METRICS_ENTRIES {
            let (reason, direction) = parts(i);
            assert_eq!(index(reason, direction), i);
        }
    }
}
