//! The registry's cases as tests of their own, for cargo test and nextest.

use std::{io::Write as _, process::ExitCode};

use kinesin_core::{capability::ThisMachine, registry::Registry};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{contract::registry_runs, outcome::Outcome};

/// Runs every case of every backend that is linked into this binary; the whole `main` of a test with `harness = false`.
///
/// The arguments are those of any test binary. A case that this machine cannot judge is listed as ignored, and says
/// what is missing when it is run all the same.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    match trials() {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(error) => {
            // Nothing can be done if stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn trials() -> Result<Vec<Trial>, Box<dyn std::error::Error>> {
    let machine = ThisMachine::new()?;
    let runs = registry_runs(&Registry::collect()?)?;
    Ok(runs
        .into_iter()
        .map(|run| {
            let missing = run.missing(&machine).is_some();
            let name = run.name().to_owned();
            Trial::ignorable_test(name, move || completion(run.judge(&machine))).with_ignored_flag(missing)
        })
        .collect())
}

fn completion(outcome: Outcome) -> Result<Completion, Failed> {
    match outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Failed { reason } => Err(reason.into()),
        skipped @ Outcome::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
    }
}
