//! As root: the kernel programs stay within `budget.toml`.

use kinesin_bench::{budget::Budget, programs};
use kinesin_core::capability::KernelVersion;

/// Verifiers from here on count what `budget.toml` says, to a few percent. Older ones recognise less of what they have seen
/// and go through four to seven times as much (`docs/kernels.md`).
const SINCE: KernelVersion = KernelVersion { major: 6, minor: 12 };
/// What is allowed on those: half of the kernel's own limit.
const OLDER: u32 = 500_000;

#[test]
fn as_root_programs_stay_within_the_budget_of_verified_instructions() {
    let programs = programs::instructions().expect("the programs load");
    if KernelVersion::running().expect("a kernel") >= SINCE {
        let exceeded = Budget::load().expect("the budget").exceeded(&programs);
        assert!(exceeded.is_empty(), "{exceeded:#?}");
    } else {
        let exceeded: Vec<_> = programs.iter().filter(|program| program.verified > OLDER).collect();
        assert!(!programs.is_empty() && exceeded.is_empty(), "{exceeded:#?}");
    }
}
