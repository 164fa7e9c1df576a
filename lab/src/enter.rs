//! Into a node: all its namespaces, its cgroup, its environment.

use std::{
    env,
    ffi::OsString,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use nix::{
    sched::{CloneFlags, setns},
    unistd::chdir,
};
use serde::{Deserialize, Serialize};

use crate::{
    LabError, cgroup,
    process::Process,
    rootfs::{BIN, KUBECONFIG},
    start,
};

/// What is needed to run something on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Door {
    pub(crate) node: String,
    pub(crate) holder: Process,
    pub(crate) cgroup: PathBuf,
}

impl Door {
    /// Moves the calling process into the node.
    ///
    /// Only for a process with one thread, which then belongs to the node; children are in its PID namespace as well.
    pub(crate) fn enter(&self) -> Result<(), LabError> {
        let gone = || LabError::NodeDown { node: self.node.clone() };
        let open = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", self.holder.pid));
        let mut namespaces = Vec::new();
        // The mounts last: until then /proc is the machine's.
        for kind in ["cgroup", "ipc", "uts", "net", "pid", "mnt"] {
            namespaces.push((kind, open(kind).map_err(|_| gone())?));
        }
        // Opened first, then looked at: the number cannot have changed hands in between.
        if !self.holder.is_alive() {
            return Err(gone());
        }
        cgroup::join(&self.cgroup).map_err(LabError::io(format!("join {}", self.cgroup.display())))?;
        for (kind, namespace) in namespaces {
            let entered = setns(namespace, CloneFlags::empty());
            entered.map_err(LabError::io(format!("enter the {kind} namespace of node {:?}", self.node)))?;
        }
        chdir("/root").or_else(|_| chdir("/")).map_err(LabError::io("change into the node's root"))
    }

    /// A command with the environment of a login on the node.
    pub(crate) fn command(&self, program: &OsString) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        for (key, value) in [
            ("PATH", format!("{BIN}:{}", start::PATH)),
            ("HOME", "/root".to_owned()),
            ("USER", "root".to_owned()),
            ("SHELL", shell().to_string_lossy().into_owned()),
            ("KUBECONFIG", KUBECONFIG.to_owned()),
            ("K8S_NODE_NAME", self.node.clone()),
        ] {
            command.env(key, value);
        }
        for key in ["TERM", "LANG", "LC_ALL", "COLORTERM"] {
            if let Some(value) = env::var_os(key) {
                command.env(key, value);
            }
        }
        command
    }
}

/// The shell of whoever names no command.
pub(crate) fn shell() -> OsString {
    let bash = Path::new("/bin/bash");
    if bash.exists() { bash.into() } else { "/bin/sh".into() }
}

/// As a shell tells it: 128 and the signal for a process that was killed.
#[must_use]
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
