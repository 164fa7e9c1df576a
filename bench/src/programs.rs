//! The kernel programs by themselves: what the verifier went through, and nanoseconds per packet in a test run, on a node
//! with VXLAN and Geneve and on one without, whose programs are smaller.
//!
//! The kernel runs one buffer many times between two looks at the clock. What goes into a tunnel or comes out of one is
//! another packet the second time, so it is run once at a look; packets that stay native are beside it, for comparison.
//!
//! Instructions are the same on every run of one kernel with one compiler, so they have a budget ([`crate::budget`]).
//! Nanoseconds are the machine's, and only reported.

#[path = "../../backends/ebpf-tc/tests/test_run/cost.rs"]
mod cost;
#[path = "../../backends/ebpf-tc/tests/test_run/node.rs"]
mod node;

use std::thread;

use aya::programs::{TestRun as _, TestRunOptions};
use kinesin_ebpf_tc::OBJECT;
use kinesin_packet::{
    Verdict,
    host::{self, HostTables},
    samples::{
        self, Row,
        node::{DEVICE, native_tables, tables},
    },
};
use serde::Serialize;

use crate::BenchError;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Instructions that the verifier went through when it was loaded, with tunnels.
    pub verified: u32,
    /// The same without.
    pub verified_native: u32,
    /// Instructions of the program as the kernel translated it, with tunnels.
    pub translated: u32,
}

/// One kind of packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// The program that it enters.
    pub program: &'static str,
    /// Nanoseconds on a node with tunnels, the harness of the kernel included: the best of five means.
    pub nanoseconds: u64,
    /// The same on a node without, where that was measured.
    pub native: Option<u64>,
    /// What packet it is.
    pub packet: String,
}

/// The programs and the packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Every program.
    pub programs: Vec<Program>,
    /// Packets that are forwarded, and some more: means of 100,000 runs.
    pub packets: Vec<Packet>,
    /// Packets into tunnels and out of them, and some that stay native: means of 400 single runs, each with the time of
    /// reading the clock.
    pub single: Vec<Packet>,
}

/// Native packets among the single runs.
const SCALE: [&str; 3] = ["IPv4 to another node", "IPv6 to another node", "network to pod, IPv4"];
/// Single runs of a mean; one takes some microseconds with all around it.
const SINGLE: u32 = 400;

/// Loads the programs, without attaching them, and counts their instructions.
///
/// # Errors
/// `Programs` when this build has none or the kernel refuses them.
pub fn instructions() -> Result<Vec<Program>, BenchError> {
    let native = with_kernel(native_tables, cost::instructions)?;
    Ok(beside(with_kernel(tables, cost::instructions)?, &native))
}

fn beside(found: Vec<(&'static str, u32, u32)>, native: &[(&'static str, u32, u32)]) -> Vec<Program> {
    let without = |name| native.iter().find(|(other, ..)| *other == name).map_or(0, |(_, verified, _)| *verified);
    let program = |(name, verified, translated)| Program { name, verified, verified_native: without(name), translated };
    found.into_iter().map(program).collect()
}

/// As [`instructions`], and runs packets through them.
///
/// # Errors
/// As [`instructions`].
pub fn measure() -> Result<Cost, BenchError> {
    let native = with_kernel(native_tables, |kernel| (cost::instructions(kernel), cost::nanoseconds(kernel)))?;
    with_kernel(tables, |kernel| {
        let programs = beside(cost::instructions(kernel), &native.0);
        let short = |nanoseconds: u128| u64::try_from(nanoseconds).unwrap_or(u64::MAX);
        let packet = |(program, nanoseconds, packet): (&'static str, u128, String)| {
            let native = native.1.iter().find(|(of, _, other)| (*of, other) == (program, &packet));
            Packet { program, nanoseconds: short(nanoseconds), native: native.map(|(_, time, _)| short(*time)), packet }
        };
        let packets = cost::nanoseconds(kernel).into_iter().map(packet).collect();
        Cost { programs, packets, single: single(kernel) }
    })
}

/// Packets that get longer or shorter, and some that do not.
fn single(kernel: &mut node::Kernel) -> Vec<Packet> {
    let tables = tables();
    let changes_length = |row: &Row| {
        let mut packet = row.packet.clone();
        let _ = host::run(row.entry, &mut packet, &tables, DEVICE);
        packet.bytes.len() != row.packet.bytes.len()
    };
    let wanted = |row: &Row| {
        let forwarded = matches!(row.verdict, Verdict::Deliver { .. } | Verdict::Carry(_));
        SCALE.contains(&row.name) || (forwarded && changes_length(row))
    };
    samples::rows().into_iter().filter(wanted).map(|row| once_at_a_look(kernel, &row)).collect()
}

fn once_at_a_look(kernel: &mut node::Kernel, row: &Row) -> Packet {
    let program = node::name_of(row.entry);
    let context = node::context(row.packet.segment_size, row.packet.mark);
    let mut best = u64::MAX;
    for _ in 0..5 {
        let run = |_| {
            let options = TestRunOptions {
                data_in: Some(&row.packet.bytes),
                ctx_in: Some(&context),
                repeat: 1,
                ..TestRunOptions::new()
            };
            kernel.program(program).test_run(options).expect("test run").duration.as_nanos()
        };
        let sum: u128 = (0..SINGLE).map(run).sum();
        best = best.min(u64::try_from(sum / u128::from(SINGLE)).unwrap_or(u64::MAX));
    }
    Packet { program, nanoseconds: best, native: None, packet: row.name.to_string() }
}

/// In a thread of its own, which moves to a network namespace for good.
fn with_kernel<T: Send>(
    tables: fn() -> HostTables,
    work: impl FnOnce(&mut node::Kernel) -> T + Send,
) -> Result<T, BenchError> {
    if OBJECT.is_empty() {
        let reason = "they are not in this build: `./x bench` builds them";
        return Err(BenchError::Programs(reason.to_owned()));
    }
    let measured = thread::scope(|scope| scope.spawn(|| work(&mut node::Kernel::load(&tables()))).join());
    // The shared code is a test's and panics; it has told on stderr why.
    measured.map_err(|_| BenchError::Programs("the kernel refused what is told above".to_owned()))
}
