//! Starts the lab's own processes: the running program again, under a hidden name, away from the terminal.
//!
//! Two steps. `start` is a fresh process with one thread: it joins the cgroup, leaves the session and makes the
//! namespaces, then starts `run`, tells its number and ends; so `run` is process 1 of a new PID namespace, is nobody's
//! child, and no thread ever stood in two namespaces. What they have to say comes in lines over their stdout, which
//! `run` closes when it is ready.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{BufRead, BufReader, Write, stdout},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use kinesin_core::causes::with_causes;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{dup2_stdout, setsid},
};

use crate::{
    LabError, cgroup, control, enter, init,
    layout::{read_json, write_json},
    node,
    plan::{Plan, Role},
    process::Process,
};

/// First argument of the lab's own processes.
const HIDDEN: &str = "__lab";
/// How long a process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where programs are on a machine; the caller's own PATH has no place in a node.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs one of the lab's own processes if that is what the arguments ask for.
///
/// Must be called before the program starts a thread or a runtime: namespaces are made and entered in here.
#[must_use]
pub fn hidden_main(args: &[OsString]) -> Option<ExitCode> {
    let rest = || args.iter().skip(2).map(|word| word.to_string_lossy().into_owned());
    match args.get(1)?.to_str() {
        Some(HIDDEN) => {}
        // Names that the kubelet calls its own program by.
        Some("lab-launch") => return Some(kinesin_kubelet::launch_main(rest())),
        Some("lab-workload") => return Some(kinesin_kubelet::workload_main(rest())),
        _ => return None,
    }
    let (mode, plan) = (args.get(2).and_then(|mode| mode.to_str()), args.get(3).map(Path::new));
    let done = match (mode, plan) {
        (Some("start"), Some(plan)) => start(plan),
        (Some("run"), Some(plan)) => run(plan),
        (Some("kubelet"), Some(plan)) => init::kubelet(plan),
        (Some("exec"), Some(_)) => return Some(exec(args)),
        _ => Err("this is for the lab itself; see `kinesin lab --help`".to_owned()),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tell(&format!("error {}", reason.replace('\n', " ")));
            let _ = writeln!(std::io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    })
}

/// A command on a node, whose streams are the caller's: nothing is told but by the command itself.
fn exec(args: &[OsString]) -> ExitCode {
    match node::exec_main(&args[3].to_string_lossy(), args.get(4..).unwrap_or_default()) {
        Ok(status) => enter::exit_code(status).into(),
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "{reason}");
            ExitCode::from(127)
        }
    }
}

/// One line to whoever started this process; if nobody listens any more, nobody needs it.
pub(crate) fn tell(line: &str) {
    let mut out = stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Says `ready` and lets go of the pipe.
pub(crate) fn ready(line: &str) -> Result<(), String> {
    tell(line);
    let null =
        File::options().write(true).open("/dev/null").map_err(|error| format!("cannot open /dev/null: {error}"))?;
    dup2_stdout(null).map_err(|error| format!("cannot let go of stdout: {error}"))
}

fn load(plan: &Path) -> Result<Plan, String> {
    match read_json(plan) {
        Ok(Some(plan)) => Ok(plan),
        Ok(None) => Err(format!("there is no plan {}", plan.display())),
        Err(error) => Err(with_causes(&error)),
    }
}

fn start(path: &Path) -> Result<(), String> {
    let plan = load(path)?;
    cgroup::join(&plan.cgroup).map_err(|error| format!("cannot join {}: {error}", plan.cgroup.display()))?;
    setsid().map_err(|error| format!("cannot leave the session: {error}"))?;
    let namespaces = match plan.role {
        Role::Control(_) => CloneFlags::empty(),
        Role::Segment => CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID,
        Role::Node(_) => NODE_NAMESPACES,
    };
    unshare(namespaces).map_err(|error| format!("cannot make the namespaces: {error}"))?;
    let own = env::current_exe().map_err(|error| format!("cannot find the own program: {error}"))?;
    let child = Command::new(own).args([HIDDEN.as_ref(), "run".as_ref(), path.as_os_str()]).spawn();
    let child = child.map_err(|error| format!("cannot start the process: {error}"))?;
    tell(&format!("pid {}", child.id()));
    Ok(())
}

/// Those that a node has of its own.
pub(crate) const NODE_NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWCGROUP);

fn run(path: &Path) -> Result<(), String> {
    let plan = load(path)?;
    match &plan.role {
        Role::Segment => init::segment(),
        Role::Node(node) => init::node(node, path),
        Role::Control(control) => control::run(control),
    }
}

/// A started process, and what it said when it was ready.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) ready: String,
}

/// Writes the plan, starts the process and waits until it is ready.
pub(crate) fn launch(
    helper: &Path,
    what: &str,
    plan: &Plan,
    plan_file: &Path,
    log: &Path,
) -> Result<Started, LabError> {
    write_json(plan_file, plan)?;
    let failed = |reason: String| LabError::Start { what: what.to_owned(), reason, log: log.to_owned() };
    let append = File::options().create(true).append(true).open(log);
    let append = append.map_err(LabError::io(format!("open {}", log.display())))?;
    let mut starter = hidden(helper, "start");
    starter.arg(plan_file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(append).current_dir("/");
    let mut starter = starter.spawn().map_err(|error| failed(format!("cannot run {}: {error}", helper.display())))?;
    let lines = lines_of(starter.stdout.take());
    let (mut process, mut ready) = (None, None);
    let until = std::time::Instant::now() + PATIENCE;
    let outcome = loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) => match line.split_once(' ').unwrap_or((&line, "")) {
                ("pid", pid) => process = pid.parse().ok().and_then(Process::find),
                ("ready", said) => ready = Some(said.to_owned()),
                ("error", reason) => break Err(failed(reason.to_owned())),
                _ => break Err(failed(format!("it said {line:?}"))),
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                break Err(failed(format!("it was not ready within {} s", PATIENCE.as_secs())));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break Err(failed("it ended at once".to_owned())),
        }
        if let (Some(process), Some(ready)) = (process, ready.take_if(|_| process.is_some())) {
            break Ok(Started { process, ready });
        }
    };
    if outcome.is_err() {
        // A half-started process would stand in the way of the next attempt.
        if let Some(process) = process {
            let _ = process.kill();
        }
        let _ = starter.kill();
    }
    // It has ended by itself after `pid`, or is killed; it must only be collected.
    let _ = starter.wait();
    outcome
}

/// The program under its hidden name, with nothing of the caller's environment.
pub(crate) fn hidden(helper: impl AsRef<OsStr>, mode: &str) -> Command {
    let mut command = Command::new(helper);
    command.arg0("kinesin").args([HIDDEN, mode]).env_clear().env("PATH", PATH);
    if let Some(filter) = env::var_os("KINESIN_LAB_LOG") {
        command.env("KINESIN_LAB_LOG", filter);
    }
    command
}

fn lines_of(out: Option<std::process::ChildStdout>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    // Ends with the pipe, or with the first line after the receiver is gone.
    thread::spawn(move || {
        for line in out.map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Logs to stderr, which is the process's log file.
pub(crate) fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KINESIN_LAB_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // Only an earlier subscriber in this process could refuse it, and there is none.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
