//! Asks the agent's own binary, which has the backends linked, where no agent answers.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::de::DeserializeOwned;

const AGENT: &str = "kinesin-agent";
/// Names the binary of a third party's agent, with backends of its own.
const AGENT_ENV: &str = "KINESIN_AGENT";

/// The answer of `kinesin-agent COMMAND`, which is JSON.
pub(crate) fn ask_agent<T: DeserializeOwned>(command: &str) -> anyhow::Result<T> {
    let binary = match env::var_os(AGENT_ENV) {
        Some(named) => PathBuf::from(named),
        None => find(AGENT).with_context(|| {
            format!(
                "{AGENT} is neither beside this program nor in PATH; install it there, name it in {AGENT_ENV}, or build \
                 it with `cargo build -p {AGENT}`"
            )
        })?,
    };
    let answer =
        Command::new(&binary).arg(command).output().with_context(|| format!("cannot run {}", binary.display()))?;
    anyhow::ensure!(
        answer.status.success(),
        "{} {command} failed: {}",
        binary.display(),
        String::from_utf8_lossy(&answer.stderr).trim_end()
    );
    serde_json::from_slice(&answer.stdout)
        .with_context(|| format!("the answer of {} {command} is not what is expected", binary.display()))
}

/// The program beside this one, else the first in PATH.
fn find(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join(name)).find(|found| found.is_file())
}
