//! What the kernel programs cost: verified instructions, and nanoseconds per packet in the kernel's test run.
//!
//! `cargo run -p kinesin-ebpf-tc --example cost` as root; the programs are the same in every profile. The harness itself
//! takes 22 to 26 ns a packet (an empty program, on the machine of the figures in README.md).
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[path = "../tests/test_run/node.rs"]
mod node;

use aya::programs::{TestRun as _, TestRunOptions};
use kinesin_packet::{
    Verdict,
    ip::ethertype,
    samples::{self, Row, node::tables, packets::checksum},
};

use crate::node::{Kernel, PROGRAMS, context, name_of};

/// The kernel runs the same buffer again and again: a packet whose TTL goes down lives for this long.
const LIFE: u32 = 250;
const ROUNDS: u32 = 2000;

fn main() {
    let mut kernel = Kernel::load(&tables());
    println!("{:<16} {:>9} {:>12}", "program", "verified", "translated");
    for name in PROGRAMS {
        let info = kernel.program(name).info().expect("program info");
        let verified = info.verified_instruction_count().unwrap_or_default();
        println!("{name:<16} {verified:>9} {:>12}", info.size_translated().unwrap_or_default() / 8);
    }
    println!("\n{:<16} {:>6}  packet", "program", "ns");
    for row in samples::rows() {
        let forwarded = matches!(row.verdict, Verdict::Deliver { .. } | Verdict::Carry(_));
        if row.measured || forwarded {
            println!("{:<16} {:>6}  {}", name_of(row.entry), nanoseconds(&mut kernel, &row), row.name);
        }
    }
}

fn nanoseconds(kernel: &mut Kernel, row: &Row) -> u128 {
    let bytes = with_longest_life(&row.packet.bytes);
    let context = context(row.packet.segment_size);
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
