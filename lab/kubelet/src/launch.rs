//! Starting processes in containers: the hidden subcommand `lab-launch`.
//!
//! `run SPEC` becomes the shim of one container: it starts the process in namespaces of its own, writes its log and its
//! exit, and lives as long as it does, whatever becomes of the kubelet. `exec SPEC` starts one more process inside a
//! running container. Both are small programs with one thread, so they may fork.

mod enter;
mod process;
mod rootfs;
mod shim;

use std::path::PathBuf;
use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a process in a container is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) tty: bool,
}

/// A file or directory of the node that is seen in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) read_only: bool,
}

/// A container, as its shim reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    pub(crate) process: Process,
    /// `None` stays in the node's network and has the node's host name.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) hostname: Option<String>,
    pub(crate) host_pid: bool,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) binds: Vec<Bind>,
    /// Symbolic links in the container: where, and to what.
    pub(crate) links: Vec<(PathBuf, PathBuf)>,
    /// An empty directory of this container for the mounts of its file system.
    pub(crate) scratch: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) log: PathBuf,
    /// A FIFO whose bytes become the process' stdin.
    pub(crate) stdin: Option<PathBuf>,
    pub(crate) stdin_once: bool,
}

/// One more process in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecSpec {
    pub(crate) process: Process,
    pub(crate) pid: i32,
    pub(crate) cgroup: Option<PathBuf>,
    /// Where to say why the process could not be started.
    pub(crate) failure: PathBuf,
}

/// What the shim says about its container; absent until the process was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) shim: ProcessId,
    pub(crate) process: ProcessId,
    pub(crate) started: Timestamp,
    pub(crate) exit: Option<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) finished: Timestamp,
    /// Why it was never started.
    pub(crate) failure: Option<String>,
}

/// A process, told apart from later ones of the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// In clock ticks since boot.
    pub(crate) start_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything, so fields are counted from its closing bracket.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        if fields.next()? == "Z" {
            return None;
        }
        Some(Self { pid, start_ticks: fields.nth(18)?.parse().ok()? })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Serves `lab-launch run SPEC` and `lab-launch exec SPEC`; the arguments are those after `lab-launch`.
///
/// Must be called before the program starts any thread.
pub fn launch_main(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run", spec] => shim::run(spec.as_ref()),
        ["exec", spec] => enter::exec(spec.as_ref()),
        _ => Err(format!("lab-launch needs run SPEC or exec SPEC, not {arguments:?}; it is called by the kubelet")),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("lab-launch: {why}");
            ExitCode::from(255)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_start() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start_ticks: own.start_ticks + 1, ..own }.is_alive());
        assert_eq!(ProcessId::of(i32::MAX), None);
    }
}
