//! What the kernel programs cost: verified instructions, and nanoseconds per packet in the kernel's test run.
//!
//! Not a test: the example `cost` and the benchmarks include it beside `node`.

use aya::programs::{TestRun as _, TestRunOptions};
use kinesin_packet::{
    Verdict, host,
    ip::ethertype,
    samples::{self, Row, packets::checksum},
};

use super::node::{Kernel, PROGRAMS, context, name_of};

/// The kernel runs the same buffer again and again: a packet whose TTL goes down lives for this long.
const LIFE: u32 = 250;
const ROUNDS: u32 = 2000;

/// Per program: its name, the instructions that the verifier went through, and those of the translated program.
pub(crate) fn instructions(kernel: &mut Kernel) -> Vec<(&'static str, u32, u32)> {
    let of = |name: &'static str| {
        let info = kernel.program(name).info().expect("program info");
        let verified = info.verified_instruction_count().unwrap_or_default();
        (name, verified, info.size_translated().unwrap_or_default() / 8)
    };
    PROGRAMS.into_iter().map(of).collect()
}

/// Per packet that is forwarded or worth a look: the program, nanoseconds, and what packet it is.
pub(crate) fn nanoseconds(kernel: &mut Kernel) -> Vec<(&'static str, u128, String)> {
    let mut costs = Vec::new();
    for row in samples::rows() {
        let forwarded = matches!(row.verdict, Verdict::Deliver { .. } | Verdict::Carry(_));
        // The kernel runs the same buffer again and again, and what went into a tunnel or came out of one is another packet
        // the second time.
        if row.measured || (forwarded && !changes_length(&row)) {
            costs.push((name_of(row.entry), fastest(kernel, &row), row.name.to_string()));
        }
    }
    costs
}

fn changes_length(row: &Row) -> bool {
    let tables = samples::node::tables();
    let mut packet = row.packet.clone();
    let _ = host::run(row.entry, &mut packet, &tables, samples::node::DEVICE);
    packet.bytes.len() != row.packet.bytes.len()
}

fn fastest(kernel: &mut Kernel, row: &Row) -> u128 {
    let bytes = with_longest_life(&row.packet.bytes);
    let context = context(row.packet.segment_size, row.packet.mark);
    let mut best = u128::MAX;
    for _ in 0..5 {
        let mut sum = 0;
        for _ in 0..ROUNDS / 5 {
            let options =
                TestRunOptions { data_in: Some(&bytes), ctx_in: Some(&context), repeat: LIFE, ..TestRunOptions::new() };
            sum += kernel.program(name_of(row.entry)).test_run(options).expect("test run").duration.as_nanos();
        }
        best = best.min(sum / u128::from(ROUNDS / 5));
    }
    best
}

fn with_longest_life(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    match u16::from_ne_bytes([bytes[12], bytes[13]]) {
        ethertype::IPV4 => {
            let end = 14 + usize::from(bytes[14] & 15) * 4;
            bytes[22] = 255;
            bytes[24..26].fill(0);
            let sum = checksum(&bytes[14..end]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        ethertype::IPV6 => bytes[21] = 255,
        _ => {}
    }
    bytes
}
