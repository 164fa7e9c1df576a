//! What every case is built on: a directory, a runtime, a build context, and patience that ends.

use std::{future::Future, io, path::Path, time::Duration};

use kinesin_core::{
    capability::{KernelFeature, KernelVersion},
    config::Section,
    registry::BuildContext,
    values::Families,
};
use kinesin_netlink::NetNs;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::outcome::Stop;

/// How long one call of a backend may take; far more than any needs on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The right to make network namespaces, which comes with root.
pub(crate) const NETWORK_NAMESPACES: KernelFeature = KernelFeature {
    name: "network namespaces",
    since: KernelVersion::new(3, 8),
    remedy: "run as root, on a kernel with CONFIG_NET_NS",
    probe: Some(|| NetNs::anonymous().map(drop).map_err(|error| error.to_string())),
};

/// A runtime of the calling thread, and a way to wait in it.
#[derive(Debug)]
pub(crate) struct Waiter(Runtime);

impl Waiter {
    pub(crate) fn new() -> Result<Self, Stop> {
        Builder::new_current_thread().enable_all().build().map(Self).map_err(|error| local("make a runtime", &error))
    }

    /// Waits for an answer, but not forever.
    pub(crate) fn wait<T>(&self, what: &str, answer: impl Future<Output = T>) -> Result<T, Stop> {
        let answer = self.0.block_on(async { tokio::time::timeout(PATIENCE, answer).await });
        answer.map_err(|_| Stop::broken(format!("{what} has not answered within {PATIENCE:?}")))
    }
}

/// A directory of the case's own.
pub(crate) fn directory() -> Result<TempDir, Stop> {
    let made = tempfile::Builder::new().prefix("kinesin-conformance-").tempdir();
    made.map_err(|error| local("make a directory", &error))
}

/// What is left in a directory, by name.
pub(crate) fn leftovers(directory: &Path) -> Result<Vec<String>, Stop> {
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| local("read the state directory", &error))?;
    Ok(entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// A context with every option at its default.
pub(crate) fn context(backend: &str, families: Families, state_dir: &Path) -> BuildContext {
    BuildContext {
        node_name: "local".to_owned(),
        families,
        state_dir: state_dir.to_owned(),
        bpffs: "/sys/fs/bpf".into(),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        section: Section::new(backend, serde_json::Map::new()),
    }
}

/// Trouble of the suite itself, which is no verdict on the backend but must not pass as one either.
fn local(action: &str, error: &io::Error) -> Stop {
    Stop::broken(format!("the suite cannot {action}: {error}"))
}
