//! The tests of tunnels that need devices and disciplines which not every kernel has: `backends/ebpf-tc/tests/chassis`,
//! `stock.rs` and `disturbed.rs`; and one of `tunnel_merging.rs`, whose outcome is each kernel's own.

use crate::message::Answer;

/// What the test program is told to run.
pub(crate) const FILTERS: [&str; 3] = ["stock::", "disturbed::", MERGING];

const MERGING: &str = "tunnel_merging::a_vxlan_device_on_geneves_port_is_what_merges_geneve";

/// One test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Test {
    /// As the test program calls it.
    pub(crate) name: &'static str,
    /// As the page does.
    pub(crate) says: &'static str,
}

/// All of them.
pub(crate) const TESTS: [Test; 8] = [
    Test {
        name: "stock::the_kernels_vxlan_device_understands_us_and_we_it",
        says: "interop: the kernel's `vxlan` device with an id",
    },
    Test {
        name: "stock::the_kernels_geneve_device_understands_us_and_we_it",
        says: "interop: the kernel's `geneve` device with an id",
    },
    Test {
        name: "stock::options_that_nobody_knows_are_accepted_from_the_kernels_geneve_device",
        says: "interop: the kernel's `geneve` device, external, with options",
    },
    Test {
        name: "stock::a_critical_option_ends_the_packet_and_another_does_not",
        says: "Geneve's critical option is refused",
    },
    Test {
        name: "disturbed::streams_are_whole_natively_though_the_network_loses_and_reorders",
        says: "loss, delay, reordering: `native`",
    },
    Test {
        name: "disturbed::streams_are_whole_in_vxlan_though_the_network_loses_and_reorders",
        says: "loss, delay, reordering: `vxlan`",
    },
    Test {
        name: "disturbed::streams_are_whole_in_geneve_though_the_network_loses_and_reorders",
        says: "loss, delay, reordering: `geneve`",
    },
    Test { name: MERGING, says: "Geneve's segments are merged at a `vxlan` device on its port" },
];

/// Whether each of [`TESTS`] passed, and what was said of those that did not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// In the order of [`TESTS`].
    pub(crate) passed: [bool; TESTS.len()],
    /// One fault for each test that failed or is not there.
    pub(crate) faults: Vec<String>,
}

/// Reads what Rust's test harness says: `test NAME ... ok`, and below `failures:` the output of those that failed.
pub(crate) fn outcome(answer: &Answer) -> Outcome {
    let mut outcome = Outcome::default();
    for (test, passed) in TESTS.iter().zip(&mut outcome.passed) {
        let line = answer.stdout.lines().find_map(|line| line.strip_prefix("test ")?.strip_prefix(test.name));
        *passed = line.is_some_and(|line| line.trim() == "... ok");
        if !*passed {
            let said = line.map_or("it did not run", |_| said_of(&answer.stdout, test.name));
            outcome.faults.push(format!("{}: {said}", test.name));
        }
    }
    if !answer.is_ok() && outcome.faults.is_empty() {
        outcome.faults.push(format!("{}: {}", answer.step.text(), answer.failure()));
    }
    outcome
}

/// The output of one test.
fn said_of<'a>(stdout: &'a str, name: &str) -> &'a str {
    let begin = format!("---- {name} stdout ----");
    let said = stdout.split_once(&begin).map(|(_, rest)| rest.split("\n\n").next().unwrap_or_default().trim());
    said.unwrap_or("it failed")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::message::Step;

    /// What a test program says when all is well.
    pub(crate) fn all_passed() -> String {
        let lines = TESTS.map(|test| format!("test {} ... ok\n", test.name)).concat();
        format!("\nrunning {} tests\n{lines}\ntest result: ok. {} passed; 0 failed\n", TESTS.len(), TESTS.len())
    }

    fn answer(code: Option<i32>, stdout: &str) -> Answer {
        Answer { step: Step::Tunnels, code, stdout: stdout.to_owned(), stderr: String::new(), seconds: 1.0 }
    }

    #[test]
    fn what_passed_is_told_test_by_test() {
        let outcome = outcome(&answer(Some(0), &all_passed()));
        assert_eq!(outcome, Outcome { passed: [true; TESTS.len()], faults: Vec::new() });
    }

    #[test]
    fn what_failed_is_told_with_its_words() {
        let [first, second, ..] = TESTS.map(|test| test.name);
        let said = all_passed().replace(&format!("{first} ... ok"), &format!("{first} ... FAILED"));
        let said = said.replace(&format!("test {second} ... ok\n"), "");
        let said = format!("{said}\nfailures:\n\n---- {first} stdout ----\nthread panicked:\nthe kernel has no x\n\n");
        let outcome = outcome(&answer(Some(101), &said));
        assert_eq!(outcome.passed[..3], [false, false, true]);
        assert_eq!(
            outcome.faults,
            [format!("{first}: thread panicked:\nthe kernel has no x"), format!("{second}: it did not run")]
        );
    }

    #[test]
    fn a_failure_of_the_program_is_told_whatever_its_tests_said() {
        let outcome = outcome(&answer(None, &all_passed()));
        assert_eq!(outcome.faults, ["tunnels: it was killed: it said nothing"]);
    }
}
