//! What the program is started for by the suite itself, under a hidden name.

use std::{ffi::OsString, io::Write as _, path::Path, process::ExitCode};

use kinesin_lab::Process;

use super::{keeper, worker};

/// First argument of the suite's own processes.
pub const HIDDEN: &str = "__conformance";

/// Runs one of the suite's own processes if that is what the arguments ask for: a keeper of a lab, a worker in a pod, or
/// a process that only keeps its pod alive.
#[must_use]
pub fn hidden_main(args: &[OsString]) -> Option<ExitCode> {
    if args.get(1)?.to_str() != Some(HIDDEN) {
        return None;
    }
    let word = |at: usize| args.get(at).and_then(|word| word.to_str());
    let done = match (word(2), args.get(3), word(4), word(5)) {
        (Some("keep"), Some(base), Some(name), Some(owner)) => {
            let owner = owner.parse().ok().and_then(Process::find);
            keeper::keep(Path::new(base), name, owner).map_err(|error| error.to_string())
        }
        (Some("work"), ..) => in_runtime(async {
            let input = tokio::io::BufReader::new(tokio::io::stdin());
            worker::serve(input, tokio::io::stdout()).await.map_err(|error| error.to_string())
        }),
        (Some("wait"), ..) => in_runtime(wait()),
        _ => Err("this is for the suite itself; see `kinesin conformance --help`".to_owned()),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Nothing can be done if stderr is gone as well.
            let _ = writeln!(std::io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    })
}

fn in_runtime(what: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let done = runtime.block_on(what);
    // A read of stdin that nobody will answer any more must not hold it up.
    runtime.shutdown_background();
    done
}

/// Process 1 of a PID namespace ignores signals that it has not asked for.
async fn wait() -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
