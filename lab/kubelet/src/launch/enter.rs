//! One more process in a running container, for exec and for probes.

use std::fs;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};

use super::{ExecSpec, process};
use crate::sys::{self, SingleThreaded};

/// Starts the process of a specification and waits for it; the code is that of a shell.
pub(super) fn exec(spec: &Path) -> Result<u8, String> {
    let text = fs::read(spec).map_err(|error| format!("read {spec:?}: {error}"))?;
    let _ = fs::remove_file(spec);
    let spec: ExecSpec = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    // Opened now: the path means nothing inside the container.
    let mut failure = fs::File::create(&spec.failure).map_err(|error| format!("make {:?}: {error}", spec.failure))?;
    match start(&spec, &mut failure) {
        Ok(code) => Ok(code),
        Err(why) => {
            let _ = failure.write_all(why.as_bytes());
            Ok(255)
        }
    }
}

fn start(spec: &ExecSpec, failure: &mut fs::File) -> Result<u8, String> {
    let alone = SingleThreaded::check().map_err(|error| format!("fork: {error}"))?;
    let target = sys::pidfd_open(spec.pid).map_err(|error| format!("container is not running: {error}"))?;
    if let Some(cgroup) = &spec.cgroup {
        super::shim::join_cgroup(cgroup);
    }
    // The uts and ipc namespaces may be the node's own; entering those again does no harm.
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    setns(target, all).map_err(|error| format!("enter the container's namespaces: {}", error.desc()))?;
    let Some(child) = alone.fork().map_err(|error| format!("fork: {error}"))? else {
        // The process is not to outlive the request when the kubelet is killed.
        let _ = set_pdeathsig(Signal::SIGKILL);
        let why = process::become_program(&spec.process, None);
        let _ = failure.write_all(why.as_bytes());
        std::process::exit(255);
    };
    // Whoever reads our output must see its end when the process closes it.
    let null: Result<OwnedFd, _> = fs::File::options().read(true).write(true).open("/dev/null").map(Into::into);
    if let Ok(null) = null {
        let _ = nix::unistd::dup2_stdin(&null)
            .and_then(|()| nix::unistd::dup2_stdout(&null))
            .and_then(|()| nix::unistd::dup2_stderr(&null));
    }
    loop {
        match waitpid(child, None) {
            Ok(status) => {
                if let Some(code) = code_of(status) {
                    return Ok(u8::try_from(code).unwrap_or(255));
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

/// The exit code as a shell counts; `None` while it goes on.
pub(super) fn code_of(status: WaitStatus) -> Option<i32> {
    match status {
        WaitStatus::Exited(_, code) => Some(code),
        WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
        _ => None,
    }
}
