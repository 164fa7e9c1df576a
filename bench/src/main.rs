//! `kinesin-bench`: see the crate's documentation and `--help`.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use clap::Parser as _;
use kinesin_bench::{
    BenchError,
    args::{Args, Hidden},
    budget::Budget,
    case::Case,
    cni, ipam,
    output::print,
    run::{self, Interrupt},
};
use kinesin_core::causes::with_causes;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = Args::parse();
    match answer(&args) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "bench: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn answer(args: &Args) -> Result<ExitCode, BenchError> {
    let told = |error| BenchError::Io { action: "write to stdout".to_owned(), source: error };
    if let Some(Hidden::OnNode { file }) = &args.hidden {
        let outcome = serde_json::to_string(&cni::on_node_main(file)?);
        let outcome = outcome.map_err(|error| told(error.into()))?;
        print(&outcome).map_err(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Hidden::Ipam { used, seconds }) = args.hidden {
        let figures = serde_json::to_string(&ipam::main(used, seconds)?);
        print(&figures.map_err(|error| told(error.into()))?).map_err(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.list {
        let line = |case: Case| {
            let set = if case.is_quick() { "" } else { " (--full)" };
            format!("{:<28} {}{set}\n", case.name(), case.summary())
        };
        print(&Case::all().into_iter().map(line).collect::<String>()).map_err(told)?;
        return Ok(ExitCode::SUCCESS);
    }
    let request = args.request()?;
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|source| BenchError::Io { action: "start".to_owned(), source })?;
    let report = runtime.block_on(async {
        let interrupt = watch_for_signals()?;
        run::run(&request, &interrupt).await
    })?;
    print(&report.text()).map_err(told)?;
    report.save(&args.out)?;
    if args.record {
        report.record(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    }
    if let Some(cost) = report.programs.as_ref().filter(|_| args.update_budget) {
        Budget::around(&cost.programs, &report.facts.kernel).save()?;
    }
    let _ = writeln!(io::stderr(), "bench: results are in {}", args.out.display());
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ends the run at its next step, so that the labs are taken down.
fn watch_for_signals() -> Result<Arc<Interrupt>, BenchError> {
    let interrupt = Arc::new(Interrupt::new(false));
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let mut signal =
            signal(kind).map_err(|source| BenchError::Io { action: "listen for signals".to_owned(), source })?;
        let interrupt = Arc::clone(&interrupt);
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                interrupt.store(true, Relaxed);
            }
        });
    }
    Ok(interrupt)
}
