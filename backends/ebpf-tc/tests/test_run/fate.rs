//! What becomes of a packet: in the kernel as far as a test run shows it, and on the host.

use aya::{
    maps::{MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions},
};
use kinesin_abi::{Direction, DropReason, Entry, Mark, Metric, SIGNALLING, map, metric_index};
use kinesin_packet::{
    Verdict,
    host::{self, Buffer, HostTables},
    samples::node::DEVICE,
};

use crate::node::{Kernel, context, name_of};

/// What a hook did with a packet, as far as a test run shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// On to the next program or the stack, with this mark.
    Pass { mark: u32, bytes: Vec<u8> },
    /// Redirected. A test run does not say where to; the MACs in the bytes do.
    Redirect { bytes: Vec<u8> },
    /// Ended here and counted under this number, once.
    End(u8),
}

impl Kernel {
    fn ended(&mut self, entry: Entry) -> Vec<(u8, u64)> {
        let direction = if entry == Entry::FromContainer { Direction::Egress } else { Direction::Ingress };
        let metrics: PerCpuArray<&mut MapData, Metric> = self.map(map::METRICS);
        let count = |number| {
            let values = metrics.get(&metric_index(number, direction), 0).unwrap();
            values.iter().map(|metric| metric.packets).sum()
        };
        let drops = DropReason::ALL.iter().map(|reason| *reason as u8);
        drops.chain([SIGNALLING]).map(|number| (number, count(number))).collect()
    }

    /// Runs a packet through one entry point.
    pub(crate) fn run(&mut self, entry: Entry, packet: &Buffer) -> Fate {
        let before = self.ended(entry);
        let context = context(packet.segment_size, packet.mark);
        let (mut context_out, mut bytes) = (vec![0; context.len()], vec![0; packet.bytes.len() + 256]);
        let options = TestRunOptions {
            data_in: Some(&packet.bytes),
            data_out: Some(&mut bytes),
            ctx_in: Some(&context),
            ctx_out: Some(&mut context_out),
            ..TestRunOptions::new()
        };
        let result = self.program(name_of(entry)).test_run(options).expect("the kernel runs the packet");
        bytes.truncate(result.data_size_out as usize);
        match result.return_value as i32 {
            -1 => Fate::Pass { mark: u32::from_ne_bytes(context_out[8..12].try_into().unwrap()), bytes },
            7 => Fate::Redirect { bytes },
            2 => {
                let after = self.ended(entry);
                let counted: Vec<_> = before.iter().zip(&after).filter(|(old, new)| old.1 != new.1).collect();
                match counted[..] {
                    [(old, new)] if new.1 == old.1 + 1 => Fate::End(new.0),
                    _ => panic!("what ends is counted once under one number, not as {counted:?}"),
                }
            }
            other => panic!("{entry:?} returned {other}"),
        }
    }
}

/// The same packet through the pipeline on the host.
pub(crate) fn on_host(tables: &HostTables, entry: Entry, packet: &Buffer) -> (Verdict, Fate) {
    let mut packet = packet.clone();
    let verdict = host::run(entry, &mut packet, tables, DEVICE);
    let bytes = std::mem::take(&mut packet.bytes);
    let fate = match verdict {
        Verdict::Pass => Fate::Pass { mark: packet.mark, bytes },
        Verdict::ToStack(Mark(mark)) => Fate::Pass { mark, bytes },
        Verdict::Deliver { .. } | Verdict::ToHost(_) | Verdict::Carry(_) | Verdict::Answer(_) => {
            Fate::Redirect { bytes }
        }
        Verdict::Absorb => Fate::End(SIGNALLING),
        Verdict::Drop(reason) => Fate::End(reason as u8),
        Verdict::Decapsulate(_) => panic!("it was taken apart"),
        Verdict::Slot(stage) => panic!("no slot is filled, yet {stage:?} was asked for"),
    };
    (verdict, fate)
}
