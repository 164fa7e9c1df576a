//! The handle of one node.

use std::{
    ffi::OsString,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
};

use kinesin_core::causes::with_causes;
use kinesin_netlink::NetNs;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    LabError,
    enter::{Door, exit_code, shell},
    network::netns_of,
    process::Process,
    start,
};

/// A node of a lab.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) dir: PathBuf,
    pub(crate) door: Option<Door>,
    /// The program that enters nodes on behalf of [`Node::output`].
    pub(crate) helper: PathBuf,
}

impl Node {
    /// Its name, which is also its host name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses on the underlay.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The directory that it shares with this machine, at the same path in both.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its holder, if that runs. Killing it ends everything on the node.
    #[must_use]
    pub fn holder(&self) -> Option<Process> {
        self.door.as_ref().map(|door| door.holder).filter(Process::is_alive)
    }

    fn door(&self) -> Result<&Door, LabError> {
        let door = self.door.as_ref().filter(|door| door.holder.is_alive());
        door.ok_or_else(|| LabError::NodeDown { node: self.name.clone() })
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// [`LabError::NodeDown`].
    pub fn netns(&self) -> Result<NetNs, LabError> {
        netns_of(&self.door()?.holder)
    }

    /// A file of the node as this machine can open it, links in the last part included.
    ///
    /// # Errors
    /// [`LabError::NodeDown`].
    pub fn path(&self, inside: &str) -> Result<PathBuf, LabError> {
        let root = PathBuf::from(format!("/proc/{}/root", self.door()?.holder.pid));
        Ok(root.join(inside.trim_start_matches('/')))
    }

    /// Every process of the node, as this machine numbers them, with its command line.
    ///
    /// # Errors
    /// [`LabError::NodeDown`].
    pub fn processes(&self) -> Result<Vec<(Process, String)>, LabError> {
        let mut found = Vec::new();
        pids_below(&self.door()?.cgroup, &mut found);
        let command_line = |process: Process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            (process, words.join(" ").trim().to_owned())
        };
        Ok(found.into_iter().filter_map(Process::find).map(command_line).collect())
    }

    /// Becomes a member of the node and runs the command there; standard streams are the caller's. The answer is the
    /// exit code, as a shell would have it. No command stands for a shell.
    ///
    /// Only for a process with one thread, which stays in the node.
    ///
    /// # Errors
    /// [`LabError::NodeDown`], and `Io` when the command cannot be started.
    pub async fn exec(&self, command: &[OsString]) -> Result<u8, LabError> {
        let door = self.door()?;
        door.enter()?;
        let default = [shell()];
        let words = if command.is_empty() { &default[..] } else { command };
        let started = tokio::process::Command::from(with_args(door, words)).spawn();
        let program = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        let mut child = started.map_err(LabError::io(format!("run {program:?} on node {:?}", self.name)))?;
        let listen = |kind| signal(kind).map_err(LabError::io("listen for signals"));
        // The terminal sends these to the command as well; it decides what they mean.
        let (mut interrupt, mut quit) = (listen(SignalKind::interrupt())?, listen(SignalKind::quit())?);
        let (mut terminate, mut hang_up) = (listen(SignalKind::terminate())?, listen(SignalKind::hangup())?);
        loop {
            tokio::select! {
                ended = child.wait() => {
                    return Ok(exit_code(ended.map_err(LabError::io(format!("wait for {program:?}")))?));
                }
                _ = interrupt.recv() => {}
                _ = quit.recv() => {}
                _ = terminate.recv() => { let _ = child.start_kill(); }
                _ = hang_up.recv() => { let _ = child.start_kill(); }
            }
        }
    }

    /// Runs a command on the node from a process of any number of threads, and collects its output.
    ///
    /// # Errors
    /// [`LabError::NodeDown`], and `Io` when the command cannot be started.
    pub fn output<S: Into<OsString>>(&self, command: impl IntoIterator<Item = S>) -> Result<Output, LabError> {
        let plan = serde_json::to_string(self.door()?).map_err(LabError::io("describe the node"))?;
        let mut process: Command = start::hidden(&self.helper, "exec");
        process.arg(plan).args(command.into_iter().map(Into::into)).stdin(Stdio::null());
        process.output().map_err(LabError::io(format!("run a command on node {:?}", self.name)))
    }
}

fn with_args(door: &Door, words: &[OsString]) -> Command {
    let mut command = door.command(words.first().unwrap_or(&OsString::new()));
    command.args(words.iter().skip(1));
    command
}

/// The hidden command behind [`Node::output`]: becomes the node's, runs the command and ends like it.
pub(crate) fn exec_main(door: &str, words: &[OsString]) -> Result<ExitStatus, String> {
    let door: Door =
        serde_json::from_str(door).map_err(|error| format!("the node's description is broken: {error}"))?;
    door.enter().map_err(|error| with_causes(&error))?;
    with_args(&door, words).status().map_err(|error| format!("cannot run {words:?}: {error}"))
}

fn pids_below(cgroup: &Path, found: &mut Vec<i32>) {
    let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids_below(&entry.path(), found);
        }
    }
}
