//! Map entries and events as bytes: what user space reads back from the kernel, whoever wrote it there.

use kinesin_abi::{
    Bucket, ConntrackKey, ConntrackValue, DeviceValue, DropEvent, DropReason, EndpointKey, EndpointValue, Entry,
    FIRST_DROP, IpcacheKey, IpcacheValue, Mark, Metric, PacketState, PathMtuValue, PolicyKey, PolicyValue, Stage,
    read_record, text_of,
};

macro_rules! whole_or_nothing {
    ($input:expr, $($name:ty),+ $(,)?) => {
        $( assert_eq!(read_record::<$name>($input).is_some(), $input.len() >= size_of::<$name>(), stringify!($name)); )+
    };
}

/// A record is read whole or not at all, and every number in it that stands for something is known or nothing.
pub(crate) fn run(input: &[u8]) {
    whole_or_nothing!(
        input,
        Bucket,
        ConntrackKey,
        ConntrackValue,
        DeviceValue,
        EndpointKey,
        EndpointValue,
        IpcacheKey,
        IpcacheValue,
        Metric,
        PathMtuValue,
        PolicyKey,
        PolicyValue,
    );
    if let Some(event) = read_record::<DropEvent>(input) {
        assert_eq!((event.kind, event.reason), (input[8], input[9]), "fields stand where C puts them");
        assert_eq!(event.ifindex.to_ne_bytes(), input[12..16]);
        assert_eq!(event.saddr[3].to_ne_bytes(), input[52..56]);
        if let Some(reason) = DropReason::from_number(event.reason) {
            assert!(reason as u8 == event.reason && event.reason >= FIRST_DROP);
            assert_eq!(text_of(event.reason), Some(reason.text()));
        }
        if let Some(entry) = Entry::from_number(event.observation) {
            assert_eq!(entry as u8, event.observation);
        }
        let identity = event.source_identity & 0xff_ffff;
        assert_eq!(Mark::of_identity(event.source_identity).identity(), Some(identity));
        if let Some(read) = Mark(event.time as u32).identity() {
            assert!(read <= 0xff_ffff, "an identity has 24 bits");
        }
    }
    if let Some(state) = read_record::<PacketState>(input) {
        if let Some(stage) = Stage::from_number(state.stage.into()) {
            assert_eq!(stage as u8, state.stage);
        }
        // A slot program wrote this; an unknown number must not become a reason.
        assert_eq!(
            DropReason::from_number(state.reason).is_some(),
            DropReason::ALL.iter().any(|reason| *reason as u8 == state.reason)
        );
    }
}
