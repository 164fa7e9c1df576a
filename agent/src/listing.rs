//! `backends` and `doctor`: what is compiled in, and what this machine can run, as JSON for `kinesin`.

use std::io::{self, Write as _};

use anyhow::Context as _;
use kinesin_agent_api::types::{BackendHealth, BackendInfo};
use kinesin_core::{
    capability::ThisMachine,
    combination::{self, Selection},
    registry::{Descriptor, Registry},
};
use serde::Serialize;

/// Every backend that is compiled in.
pub(crate) fn backends(registry: &Registry, selection: &Selection) -> Vec<BackendInfo> {
    registry.descriptors().iter().map(|backend| info(backend, selection)).collect()
}

fn info(backend: &Descriptor, selection: &Selection) -> BackendInfo {
    BackendInfo {
        r#trait: backend.role.to_string(),
        name: backend.name.to_owned(),
        summary: backend.summary.to_owned(),
        provides: backend.provides.iter().map(ToString::to_string).collect(),
        requires: backend.requires.iter().map(ToString::to_string).collect(),
        selected: selection.iter().any(|chosen| chosen == (backend.role, backend.name)),
    }
}

/// For every backend, what keeps this machine from running it.
pub(crate) fn doctor(registry: &Registry, machine: &ThisMachine) -> Vec<BackendHealth> {
    let descriptors = registry.descriptors();
    descriptors
        .iter()
        .map(|backend| BackendHealth {
            r#trait: backend.role.to_string(),
            name: backend.name.to_owned(),
            problems: combination::machine_conflicts(backend, machine)
                .into_iter()
                .map(|conflict| format!("{}; {}", conflict.reason, conflict.remedy))
                .collect(),
        })
        .collect()
}

/// Prints an answer; it is the only thing that goes to stdout. A reader that has heard enough is no error.
pub(crate) fn print(answer: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(answer).context("cannot write the answer as JSON")?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}
