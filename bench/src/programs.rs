//! The kernel programs by themselves: what the verifier went through, and nanoseconds per packet in a test run.
//!
//! Instructions are the same on every run of one kernel with one compiler, so they have a budget ([`crate::budget`]).
//! Nanoseconds are the machine's, and only reported.

#[path = "../../backends/ebpf-tc/tests/test_run/cost.rs"]
mod cost;
#[path = "../../backends/ebpf-tc/tests/test_run/node.rs"]
mod node;

use std::thread;

use kinesin_ebpf_tc::OBJECT;
use kinesin_packet::samples::node::tables;
use serde::Serialize;

use crate::BenchError;

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Instructions that the verifier went through when it was loaded.
    pub verified: u32,
    /// Instructions of the program as the kernel translated it.
    pub translated: u32,
}

/// One kind of packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packet {
    /// The program that it enters.
    pub program: &'static str,
    /// Nanoseconds, the harness of the kernel included: the best of five means of 100,000 runs.
    pub nanoseconds: u64,
    /// What packet it is.
    pub packet: String,
}

/// The programs and the packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Every program.
    pub programs: Vec<Program>,
    /// Packets that are forwarded, and some more.
    pub packets: Vec<Packet>,
}

/// Loads the programs, without attaching them, and counts their instructions.
///
/// # Errors
/// `Programs` when this build has none or the kernel refuses them.
pub fn instructions() -> Result<Vec<Program>, BenchError> {
    with_kernel(count)
}

/// As [`instructions`], and runs packets through them.
///
/// # Errors
/// As [`instructions`].
pub fn measure() -> Result<Cost, BenchError> {
    with_kernel(|kernel| {
        let programs = count(kernel);
        let packet = |(program, nanoseconds, packet)| Packet {
            program,
            nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
            packet,
        };
        Cost { programs, packets: cost::nanoseconds(kernel).into_iter().map(packet).collect() }
    })
}

fn count(kernel: &mut node::Kernel) -> Vec<Program> {
    let program = |(name, verified, translated)| Program { name, verified, translated };
    cost::instructions(kernel).into_iter().map(program).collect()
}

/// In a thread of its own, which moves to a network namespace for good.
fn with_kernel<T: Send>(work: impl FnOnce(&mut node::Kernel) -> T + Send) -> Result<T, BenchError> {
    if OBJECT.is_empty() {
        let reason = "they are not in this build: `./x bench` builds them";
        return Err(BenchError::Programs(reason.to_owned()));
    }
    let measured = thread::scope(|scope| scope.spawn(|| work(&mut node::Kernel::load(&tables()))).join());
    // The shared code is a test's and panics; it has told on stderr why.
    measured.map_err(|_| BenchError::Programs("the kernel refused what is told above".to_owned()))
}
