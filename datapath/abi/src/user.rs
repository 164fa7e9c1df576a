//! Lets aya and readers of events read and write the records.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait, and records are read out of bytes")]

use crate::{
    Bucket, ConntrackKey, ConntrackValue, DeviceValue, DropEvent, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue,
    Metric, PacketState, PathMtuValue, PolicyKey, PolicyValue,
};

/// A record as a program wrote it; nothing when the bytes are too few.
#[must_use]
pub fn read_record<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: the slice has the record's size, the read needs no alignment, and every pattern of bytes is a value of a
    // `Pod` type.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: `record!` makes it `repr(C)`, `Copy`, of integers only, and asserts that it has no padding.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(
    Bucket,
    ConntrackKey,
    ConntrackValue,
    DeviceValue,
    DropEvent,
    EndpointKey,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    Metric,
    PacketState,
    PathMtuValue,
    PolicyKey,
    PolicyValue,
);
