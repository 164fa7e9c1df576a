//! One table of packets, two runners: the pipeline on the host and the compiled programs in the kernel.
//!
//! Both must come to the same fate, byte for byte, on the table and on random changes of it. The kernel runs packets by
//! `BPF_PROG_TEST_RUN`: nothing is attached, and no packet leaves. That shows the return code, the packet, the mark and
//! the counters; the target of a redirect it does not show, which the tests with real traffic do.

mod fate;
mod learned;
mod node;

use kinesin_abi::{Bucket, DropReason, Entry};
use kinesin_packet::{
    Verdict,
    host::{Buffer, HostTables},
    ip::ethertype,
    samples::{self, node::tables, packets::wrong_checksum},
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use crate::{
    fate::{Fate, on_host},
    learned::learned_on_host,
    node::{Kernel, PROGRAMS},
};

/// Whether the kernel runs it: not without a whole Ethernet header, and newer ones not without a whole IP header of the
/// kind that it announces (`bpf_prog_test_run_skb`, 6.18).
fn is_runnable(bytes: &[u8]) -> bool {
    let Some(kind) = bytes.get(12..14) else { return false };
    let header = match u16::from_ne_bytes([kind[0], kind[1]]) {
        ethertype::IPV4 => 20,
        ethertype::IPV6 => 40,
        _ => 0,
    };
    bytes.len() >= 14 + header
}

#[test]
fn both_runners_agree_with_the_table() {
    let tables = tables();
    let mut kernel = Kernel::load(&tables);
    for row in samples::rows() {
        tables.error_tokens.set(1);
        kernel.set_bucket(Bucket::default());
        let (verdict, on_host) = on_host(&tables, row.entry, &row.packet);
        assert_eq!(verdict, row.verdict, "host: {}", row.name);
        let in_kernel = kernel.run(row.entry, &row.packet);
        assert_eq!(in_kernel, on_host, "kernel and host: {}", row.name);
        assert_eq!(kernel.take_learned(&tables), learned_on_host(&tables), "kernel and host: {}", row.name);
        if let Some(check) = row.bytes {
            let (Fate::Redirect { bytes } | Fate::Pass { bytes, .. }) = &in_kernel else {
                panic!("{}: nothing came out", row.name);
            };
            check(&row.packet.bytes, bytes);
        }
        if let (Verdict::Answer(_), Fate::Redirect { bytes }) = (verdict, &in_kernel) {
            assert_eq!(wrong_checksum(bytes), None, "{}", row.name);
        }
    }
}

#[test]
fn every_truncation_of_the_table_has_one_fate() {
    let tables = tables();
    let mut kernel = Kernel::load(&tables);
    for row in samples::rows() {
        for length in 0..row.packet.bytes.len().min(120) {
            let packet = Buffer { bytes: row.packet.bytes[..length].to_vec(), ..row.packet.clone() };
            if !is_runnable(&packet.bytes) {
                continue;
            }
            assert_same(&tables, &mut kernel, row.entry, &packet)
                .unwrap_or_else(|e| panic!("{} cut to {length}: {e}", row.name));
        }
    }
}

#[test]
fn random_changes_of_the_table_have_one_fate() {
    let tables = tables();
    let mut kernel = Kernel::load(&tables);
    let rows = samples::rows();
    let change = (any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(1)]);
    let strategy = (any::<prop::sample::Index>(), prop::collection::vec(change, 1..6), 0..4_u8);
    // A fixed seed: the same packets in every run, so that a failure is the change's and not the day's.
    let mut runner = TestRunner::new_with_rng(
        ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let kernel = std::cell::RefCell::new(&mut kernel);
    runner
        .run(&strategy, |(row, changes, entry)| {
            let mut packet = row.get(&rows).packet.clone();
            for (at, value) in changes {
                // The headers, where a change means something.
                let end = packet.bytes.len().min(96);
                packet.bytes[at.index(end)] = value;
            }
            if !is_runnable(&packet.bytes) {
                return Err(TestCaseError::reject("the kernel does not run it"));
            }
            let entry = Entry::from_number(entry).ok_or_else(|| TestCaseError::reject("no such entry"))?;
            assert_same(&tables, &mut kernel.borrow_mut(), entry, &packet).map_err(TestCaseError::fail)
        })
        .unwrap();
}

#[test]
fn errors_beyond_the_limit_are_counted_and_not_sent() {
    let tables = tables();
    let mut kernel = Kernel::load(&tables);
    let row =
        samples::rows().into_iter().find(|row| matches!(row.verdict, Verdict::Answer(kinesin_packet::Answer::Icmp(_))));
    let row = row.expect("the table has an error");
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let refilled = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    kernel.set_bucket(Bucket { refilled, tokens: 1 });
    assert!(matches!(kernel.run(row.entry, &row.packet), Fate::Redirect { .. }));
    // Far inside the second in which nothing is refilled, and on whichever CPU the runs happen.
    kernel.set_bucket(Bucket { refilled, tokens: 0 });
    assert_eq!(kernel.run(row.entry, &row.packet), Fate::End(DropReason::RateLimited as u8));
}

#[test]
fn programs_stay_far_below_the_verifiers_limit() {
    let tables = tables();
    let mut kernel = Kernel::load(&tables);
    for name in PROGRAMS {
        let info = kernel.program(name).info().unwrap();
        // Kernels before 5.16 do not tell.
        let Some(verified) = info.verified_instruction_count() else { continue };
        eprintln!("{name}: {verified} instructions verified, {} bytes translated", info.size_translated().unwrap_or(0));
        // Half of it: under 6.1 a program takes almost four times what newer kernels need (docs/kernels.md). What those
        // need is held by bench/budget.toml.
        assert!(verified < 500_000, "{name}: {verified}");
    }
}

fn assert_same(tables: &HostTables, kernel: &mut Kernel, entry: Entry, packet: &Buffer) -> Result<(), String> {
    tables.error_tokens.set(1);
    kernel.set_bucket(Bucket::default());
    let (verdict, on_host) = on_host(tables, entry, packet);
    let in_kernel = kernel.run(entry, packet);
    let (learned, expected) = (kernel.take_learned(tables), learned_on_host(tables));
    if learned != expected {
        return Err(format!("{entry:?}: learned {learned:?} and not {expected:?}, packet {:02x?}", packet.bytes));
    }
    if packet.segment_size != 0 && in_kernel == Fate::End(DropReason::WriteError as u8) {
        // A test run cannot say of what kind its segments are, and the kernel changes the headers of none of no kind.
        return Ok(());
    }
    if in_kernel == on_host {
        Ok(())
    } else {
        Err(format!(
            "{entry:?}: host {verdict:?} {on_host:02x?}, kernel {in_kernel:02x?}, packet {:02x?}",
            packet.bytes
        ))
    }
}
