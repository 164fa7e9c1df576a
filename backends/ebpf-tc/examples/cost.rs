//! What the kernel programs cost: verified instructions, and nanoseconds per packet in the kernel's test run.
//!
//! `cargo run -p kinesin-ebpf-tc --example cost` as root; the programs are the same in every profile. The harness itself
//! takes 22 to 26 ns a packet (an empty program, on the machine of the figures in README.md). `./x bench programs` takes
//! the same figures with the benchmarks; the instructions have a budget in bench/budget.toml.
#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

#[path = "../tests/test_run/cost.rs"]
mod cost;
#[path = "../tests/test_run/node.rs"]
mod node;

use kinesin_packet::samples::node::{native_tables, tables};

use crate::node::Kernel;

fn main() {
    for (what, tables) in [("without tunnels", native_tables()), ("with VXLAN and Geneve", tables())] {
        let mut kernel = Kernel::load(&tables);
        println!("A node {what}:\n\n{:<16} {:>9} {:>12}", "program", "verified", "translated");
        for (name, verified, translated) in cost::instructions(&mut kernel) {
            println!("{name:<16} {verified:>9} {translated:>12}");
        }
        println!("\n{:<16} {:>6}  packet", "program", "ns");
        for (name, nanoseconds, packet) in cost::nanoseconds(&mut kernel) {
            println!("{name:<16} {nanoseconds:>6}  {packet}");
        }
        println!();
    }
}
