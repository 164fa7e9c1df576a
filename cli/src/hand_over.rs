//! Hands a command over to the agent's own binary, which has the backends linked.

use std::{
    env,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::output::Format;

const AGENT: &str = "kinesin-agent";

/// Becomes `kinesin-agent COMMAND`; comes back only with an error.
pub(crate) fn to_agent(command: &str, format: Format) -> anyhow::Error {
    let Some(binary) = find(AGENT) else {
        return anyhow::anyhow!(
            "{AGENT} is neither beside this program nor in PATH; install it there, or build it with `cargo build -p {AGENT}`"
        );
    };
    let mut process = Command::new(&binary);
    process.arg(command);
    match format {
        Format::Summary => {}
        Format::Json => drop(process.args(["-o", "json"])),
        Format::Yaml => drop(process.args(["-o", "yaml"])),
    }
    let error = process.exec();
    anyhow::Error::new(error).context(format!("cannot run {}", binary.display()))
}

/// The program beside this one, else the first in PATH.
fn find(name: &str) -> Option<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain(env::split_paths(&path)).map(|dir| dir.join(name)).find(|found| found.is_file())
}
