//! Every (combination, case) as a test of its own, for cargo test and nextest.
//!
//! | environment | what it says |
//! |---|---|
//! | `KINESIN_CONFORMANCE` | `default`, `covering` (if absent) or `full` |
//! | `KINESIN_SEED` | a number; repeats a run |
//! | `KINESIN_CONFORMANCE_SIZE` | `daily` (if absent) or `full`: how large the cases are that have a size |
//! | `KINESIN_CONFORMANCE_BIN_DIR` | where `kinesin-agent` and its companions are; else beside the test |

use std::{env, ffi::OsString, io::Write as _, os::unix::process::parent_id, path::PathBuf, process::ExitCode};

use kinesin_lab::Spec;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use super::{
    case::{Case, Scale},
    catalogue::{Selection, backends_of},
    hidden::hidden_main,
    lab,
    lease::{Lease, Session},
    plan::{Column, Filter, columns},
    random::unique,
    verdict::Verdict,
};

/// Runs the tests; the whole `main` of a test with `harness = false`.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().collect();
    if let Some(code) = hidden_main(&args) {
        return code;
    }
    let arguments = Arguments::from_args();
    let trials = trials().unwrap_or_else(|reason| {
        // A list of tests cannot fail by itself, so the reason is told by a test.
        vec![Trial::test("programs_and_environment_are_usable", move || Err(reason.into()))]
    });
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// One run, whatever the number of processes that take part in it.
#[derive(Debug, Clone)]
struct Run {
    session: Session,
    scale: Scale,
    seed: u64,
}

fn trials() -> Result<Vec<Trial>, String> {
    let text = |key: &str| env::var(key).ok().filter(|value| !value.is_empty());
    let selection = match text("KINESIN_CONFORMANCE").as_deref() {
        None | Some("covering") => Selection::Covering,
        Some("default") => Selection::Default,
        Some("full") => Selection::Full,
        Some(other) => return Err(format!("KINESIN_CONFORMANCE is {other:?}; write default, covering or full")),
    };
    let scale = match text("KINESIN_CONFORMANCE_SIZE").as_deref() {
        None | Some("daily") => Scale::DAILY,
        Some("full") => Scale::FULL,
        Some(other) => return Err(format!("KINESIN_CONFORMANCE_SIZE is {other:?}; write daily or full")),
    };
    let seed = match text("KINESIN_SEED") {
        Some(seed) => number(&seed).ok_or_else(|| format!("KINESIN_SEED is {seed:?}; write a number, such as 0x2a"))?,
        None => unique(),
    };
    let bin_dir = text("KINESIN_CONFORMANCE_BIN_DIR").map_or_else(|| Spec::default().bin_dir, PathBuf::from);
    let backends = backends_of(&lab::agent(&bin_dir))
        .map_err(|error| format!("{error}; build the programs first: cargo build --workspace --bins"))?;
    let owner = parent_id();
    let id = text("NEXTEST_RUN_ID").unwrap_or_else(|| owner.to_string());
    let run = Run { session: Session::new(&id, owner, &bin_dir), scale, seed };
    let filter = Filter { selection, ..Filter::default() };
    let trials = columns(&backends, &filter).into_iter().flat_map(|column| {
        let run = run.clone();
        column.cases.clone().into_iter().map(move |case| {
            let (run, column) = (run.clone(), column.clone());
            let name = format!("{}/{}", column.combination, case.name);
            Trial::ignorable_test(name, move || judge(&run, &column, case))
        })
    });
    Ok(trials.collect())
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok())
}

fn judge(run: &Run, column: &Column, case: &Case) -> Result<Completion, Failed> {
    let say = |line: &str| {
        // Shown with a failure; nothing can be done if stderr is gone.
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    say(&format!("repeat it with KINESIN_SEED={:#x}", run.seed));
    let lease = Lease::take(&run.session, column, run.scale, case.alone)?;
    let verdict = case.judge(&lease.target, run.scale, run.seed);
    say(&verdict.to_string());
    match verdict {
        Verdict::Passed { .. } => Ok(Completion::Completed),
        Verdict::Failed { reason } => {
            say(&lease.logs());
            lease.spoil().map_err(|error| format!("{reason}; and the lab cannot be given up: {error}"))?;
            Err(reason.into())
        }
        skipped @ Verdict::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
    }
}
