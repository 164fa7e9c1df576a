//! The shim of a container: starts its process, keeps its log, tells its end.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, sethostname, setsid};

use super::process::{Stdio, become_program};
use super::{Exit, ProcessId, RunSpec, RunState, enter, rootfs};
use crate::logs::LogWriter;
use crate::sys::SingleThreaded;
use crate::{files, sys};

/// How long a line without an end waits for the rest of it, in milliseconds.
const PARTIAL_LINE_MS: u16 = 50;

/// Runs the container of a specification to its end.
pub(super) fn run(spec: &Path) -> Result<u8, String> {
    let text = fs::read(spec).map_err(|error| format!("read {spec:?}: {error}"))?;
    let spec: RunSpec = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    // Signals for the kubelet's terminal or group are not for the container.
    let _ = setsid();
    if let Some(cgroup) = &spec.cgroup {
        join_cgroup(cgroup);
    }
    let own = own_id()?;
    let started = match start(&spec) {
        Ok(started) => started,
        Err(why) => {
            let exit = Exit { code: 128, finished: Timestamp::now(), failure: Some(why) };
            let state = RunState { shim: own, process: own, started: exit.finished, exit: Some(exit) };
            return save(&spec, &state).map(|()| 0);
        }
    };
    let process =
        ProcessId::of(started.child.as_raw()).unwrap_or(ProcessId { pid: started.child.as_raw(), start_ticks: 0 });
    let mut state = RunState { shim: own, process, started: Timestamp::now(), exit: None };
    save(&spec, &state)?;
    release_stdout();
    let code = pump(&spec, started);
    state.exit = Some(Exit { code, finished: Timestamp::now(), failure: None });
    save(&spec, &state).map(|()| 0)
}

/// Joins a cgroup as well as it goes: a node without cgroups works, only without programs on them.
pub(super) fn join_cgroup(cgroup: &Path) {
    if let Err(error) = fs::write(cgroup.join("cgroup.procs"), "0") {
        eprintln!("lab-launch: cannot join {cgroup:?}: {error}");
    }
}

fn own_id() -> Result<ProcessId, String> {
    let pid = i32::try_from(std::process::id()).map_err(|error| error.to_string())?;
    ProcessId::of(pid).ok_or_else(|| "/proc is not mounted, or is not that of this pid namespace".to_owned())
}

fn save(spec: &RunSpec, state: &RunState) -> Result<(), String> {
    files::write_json(&spec.state, state).map_err(|error| error.to_string())
}

/// The kubelet reads our stdout until its end, which says that the state is written.
fn release_stdout() {
    if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(null.as_fd());
    }
}

struct Started {
    child: Pid,
    /// Our ends: the process' output, and where its input goes.
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
}

fn start(spec: &RunSpec) -> Result<Started, String> {
    let system = |what: &'static str| move |error: Errno| format!("{what}: {}", error.desc());
    let alone = SingleThreaded::check().map_err(|error| format!("fork: {error}"))?;
    let (why_read, why_write) = pipe2(OFlag::O_CLOEXEC).map_err(system("pipe"))?;
    let (ours, theirs) = if spec.process.tty { terminal()? } else { pipes(spec)? };
    if !spec.host_pid {
        unshare(CloneFlags::CLONE_NEWPID).map_err(system("make a pid namespace"))?;
    }
    let Some(child) = alone.fork().map_err(|error| format!("fork: {error}"))? else {
        drop(ours);
        let why = match isolate(spec) {
            Ok(()) => become_program(&spec.process, Some(theirs)),
            Err(why) => why,
        };
        let _ = fs::File::from(why_write).write_all(why.as_bytes());
        std::process::exit(128);
    };
    drop((why_write, theirs));
    let mut why = String::new();
    // The end comes when the program runs: its copy of the pipe is closed by exec.
    let _ = fs::File::from(why_read).read_to_string(&mut why);
    if !why.is_empty() {
        let _ = waitpid(child, None);
        return Err(why);
    }
    let (stdout, stderr, stdin) = ours;
    Ok(Started { child, stdout, stderr, stdin })
}

type Ours = (OwnedFd, Option<OwnedFd>, Option<OwnedFd>);

fn pipes(spec: &RunSpec) -> Result<(Ours, Stdio), String> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| format!("pipe: {error}"));
    let ((out, stdout), (err, stderr)) = (pipe()?, pipe()?);
    let (stdin, input) = match spec.stdin {
        Some(_) => pipe().map(|(theirs, ours)| (theirs, Some(ours)))?,
        None => (fs::File::open("/dev/null").map_err(|error| format!("open /dev/null: {error}"))?.into(), None),
    };
    Ok(((out, Some(err), input), Stdio { stdin, stdout, stderr }))
}

fn terminal() -> Result<(Ours, Stdio), String> {
    let pair = nix::pty::openpty(None, None).map_err(|error| format!("make a terminal: {error}"))?;
    let copy = |fd: &OwnedFd| fd.try_clone().map_err(|error| error.to_string());
    let theirs = Stdio { stdin: copy(&pair.slave)?, stdout: copy(&pair.slave)?, stderr: pair.slave };
    let input = copy(&pair.master)?;
    Ok(((pair.master, None, Some(input)), theirs))
}

/// In the child: namespaces and file system.
fn isolate(spec: &RunSpec) -> Result<(), String> {
    // Without its shim nobody would notice the end of the process.
    set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("set_pdeathsig: {error}"))?;
    if let Some(path) = &spec.netns {
        let netns = fs::File::open(path).map_err(|error| format!("open {path:?}: {error}"))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|error| format!("enter {path:?}: {}", error.desc()))?;
    }
    let mut own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if spec.hostname.is_some() {
        own |= CloneFlags::CLONE_NEWUTS;
    }
    unshare(own).map_err(|error| format!("make namespaces: {}", error.desc()))?;
    if let Some(name) = &spec.hostname {
        sethostname(name).map_err(|error| format!("set the host name: {}", error.desc()))?;
    }
    rootfs::enter(spec)
}

/// Carries output to the log and input to the process until the process has ended; its exit code.
fn pump(spec: &RunSpec, mut started: Started) -> i32 {
    let mut log = LogWriter::open(&spec.log);
    let exited = sys::pidfd_open(started.child.as_raw());
    let mut input = spec.stdin.as_deref().and_then(open_fifo);
    let mut buffer = vec![0; 16 * 1024];
    let (mut has_out, mut has_err) = (true, started.stderr.is_some());
    let mut code = None;
    loop {
        let mut fds = Vec::with_capacity(4);
        let mut whats = Vec::with_capacity(4);
        if has_out {
            fds.push(PollFd::new(started.stdout.as_fd(), PollFlags::POLLIN));
            whats.push("stdout");
        }
        if let Some(err) = started.stderr.as_ref().filter(|_| has_err) {
            fds.push(PollFd::new(err.as_fd(), PollFlags::POLLIN));
            whats.push("stderr");
        }
        if let Some(fifo) = input.as_ref().filter(|_| started.stdin.is_some() && code.is_none()) {
            fds.push(PollFd::new(fifo.as_fd(), PollFlags::POLLIN));
            whats.push("stdin");
        }
        if let Ok(exited) = exited.as_ref().map(std::os::fd::AsFd::as_fd)
            && code.is_none()
        {
            fds.push(PollFd::new(exited, PollFlags::POLLIN));
            whats.push("exit");
        }
        // Once the process has ended, only what it left in the pipes is waited for.
        let wait = match (code.is_some(), log.has_partial_line(), exited.is_err()) {
            (true, ..) => PollTimeout::ZERO,
            (false, true, _) => PollTimeout::from(PARTIAL_LINE_MS),
            (false, false, true) => PollTimeout::from(100_u16),
            (false, false, false) => PollTimeout::NONE,
        };
        let count = match poll(&mut fds, wait) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(_) => 0,
        };
        let ready: Vec<&str> = fds
            .iter()
            .zip(&whats)
            .filter(|(fd, _)| fd.revents().is_some_and(|events| !events.is_empty()))
            .map(|(_, what)| *what)
            .collect();
        drop(fds);
        if count == 0 {
            log.flush_partial_lines();
            if let Some(code) = code {
                return code;
            }
        }
        for what in &ready {
            match *what {
                "stdout" => has_out = carry(&started.stdout, "stdout", &mut buffer, &mut log),
                "stderr" => {
                    has_err = started.stderr.as_ref().is_some_and(|fd| carry(fd, "stderr", &mut buffer, &mut log))
                }
                "stdin" => feed(spec, &mut input, &mut started.stdin, &mut buffer),
                _ => {}
            }
        }
        if code.is_none() && (exited.is_err() || ready.contains(&"exit")) {
            code = match waitpid(started.child, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
                Ok(status) => enter::code_of(status),
                Err(_) => Some(255),
            };
        }
    }
}

/// Moves one read of output into the log; whether there may be more.
fn carry(from: &OwnedFd, stream: &'static str, buffer: &mut [u8], log: &mut LogWriter) -> bool {
    match nix::unistd::read(from, buffer) {
        // A terminal says EIO after its last process.
        Ok(0) | Err(Errno::EIO) => false,
        Ok(count) => {
            log.write(stream, &buffer[..count]);
            true
        }
        Err(error) => error == Errno::EINTR || error == Errno::EAGAIN,
    }
}

fn open_fifo(path: &Path) -> Option<fs::File> {
    fs::File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).ok()
}

/// Moves one read of input to the process; the last writer's leaving ends it, if it is to be given once.
fn feed(spec: &RunSpec, fifo: &mut Option<fs::File>, stdin: &mut Option<OwnedFd>, buffer: &mut [u8]) {
    let Some(file) = fifo.as_mut() else { return };
    match file.read(buffer) {
        Ok(0) => {
            *fifo = None;
            if spec.stdin_once {
                *stdin = None;
            } else {
                *fifo = spec.stdin.as_deref().and_then(open_fifo);
            }
        }
        Ok(count) => {
            let Some(to) = stdin.as_ref().and_then(|fd| fd.try_clone().ok()) else { return };
            if fs::File::from(to).write_all(&buffer[..count]).is_err() {
                *stdin = None;
            }
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock || error.kind() == io::ErrorKind::Interrupted => {}
        Err(_) => *fifo = None,
    }
}
