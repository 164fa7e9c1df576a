//! The registry's cases as tests of their own, for cargo test and nextest.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    process::ExitCode,
};

use kinesin_core::{capability::ThisMachine, registry::Registry};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    contract::{Run, registry_runs},
    outcome::Outcome,
};

/// Runs every case of every backend that is linked into this binary; the whole `main` of a test with `harness = false`.
///
/// The arguments are those of any test binary. A case that this machine cannot judge is ignored, and what is missing is
/// told on stderr; with `--include-ignored` it fails instead.
///
/// # Examples
/// ```no_run
/// // use my_backend as _;
/// fn main() -> std::process::ExitCode {
///     kinesin_conformance::contracts()
/// }
/// ```
#[must_use]
pub fn contracts() -> ExitCode {
    let arguments = Arguments::from_args();
    match found() {
        Ok((runs, machine)) => run(&arguments, runs, machine),
        Err(error) => {
            tell(&format!("Error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn found() -> Result<(Vec<Run>, ThisMachine), Box<dyn std::error::Error>> {
    let runs = registry_runs(&Registry::collect()?)?;
    if runs.is_empty() {
        return Err("no backend of this binary fills a role that has a contract here: ipam, routing".into());
    }
    Ok((runs, ThisMachine::new()?))
}

fn run(arguments: &Arguments, runs: Vec<Run>, machine: ThisMachine) -> ExitCode {
    let strict = arguments.ignored || arguments.include_ignored;
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    let mut trials = Vec::new();
    for run in runs {
        let missing = run.missing(&machine);
        if let Some((feature, reason)) = &missing {
            let (role, backend) = (run.role, run.backend);
            let why = format!("{role}/{backend}: missing {}: {reason}; {}", feature.name, feature.remedy);
            *skipped.entry(why).or_default() += 1;
        }
        let name = run.name().to_owned();
        let judge = move || completion(run.judge(&machine), strict);
        trials.push(Trial::ignorable_test(name, judge).with_ignored_flag(missing.is_some()));
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if conclusion.num_ignored > 0 && !arguments.list {
        for (why, count) in skipped {
            tell(&format!("skipped {count} of {why}"));
        }
    }
    conclusion.exit_code()
}

/// Whoever asks for the ignored ones wants a verdict on each, and a skip is none.
fn completion(outcome: Outcome, strict: bool) -> Result<Completion, Failed> {
    match outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Failed { reason } => Err(reason.into()),
        skipped @ Outcome::Skipped { .. } if strict => Err(skipped.into()),
        skipped @ Outcome::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
    }
}

fn tell(line: &str) {
    // Nothing can be done if stderr is gone as well.
    let _ = writeln!(io::stderr(), "{line}");
}
