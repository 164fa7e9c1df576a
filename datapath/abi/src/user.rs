//! Lets aya read and write the records.
#![expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait")]

use crate::{
    Bucket, ConntrackKey, ConntrackValue, DeviceValue, DropEvent, EndpointKey, EndpointValue, IpcacheKey, IpcacheValue,
    Metric, PacketState, PolicyKey, PolicyValue,
};

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
    PolicyKey,
    PolicyValue,
);
