//! As root: the kernel programs stay within `budget.toml`.

use kinesin_bench::{budget::Budget, programs};

#[test]
fn as_root_programs_stay_within_the_budget_of_verified_instructions() {
    let programs = programs::instructions().expect("the programs load");
    let exceeded = Budget::load().expect("the budget").exceeded(&programs);
    assert!(exceeded.is_empty(), "{exceeded:#?}");
}
