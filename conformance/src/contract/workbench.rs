//! What every case is built on: instances of an implementation, a directory, a runtime, and patience that ends.

use std::{fmt, future::Future, io, path::Path, sync::Arc, time::Duration};

use kinesin_core::{
    capability::{Capability, KernelFeature, KernelVersion},
    config::Section,
    registry::{BuildContext, BuildError},
    values::Families,
};
use kinesin_netlink::NetNs;
use serde_json::{Map, Value};
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

type Make<T> = dyn Fn(&BuildContext) -> Result<Arc<T>, BuildError> + Send + Sync;

/// How instances of one implementation of a trait are made, each as a run of the agent makes one.
pub(crate) struct Maker<T: ?Sized> {
    name: String,
    provides: Vec<Capability>,
    make: Box<Make<T>>,
}

impl<T: ?Sized> Maker<T> {
    pub(crate) fn new(
        name: &str,
        provides: &[Capability],
        make: impl Fn(&BuildContext) -> Result<Arc<T>, BuildError> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.to_owned(), provides: provides.to_vec(), make: Box::new(make) }
    }

    pub(crate) fn provides(&self) -> &[Capability] {
        &self.provides
    }

    /// Families that it says it serves.
    pub(crate) fn families(&self) -> Result<Families, Stop> {
        let serves = |family| self.provides.contains(&family);
        let families = Families { v4: serves(Capability::IPV4), v6: serves(Capability::IPV6) };
        if families.v4 || families.v6 {
            return Ok(families);
        }
        Err(Stop::broken(format!("{} provides neither {} nor {}", self.name, Capability::IPV4, Capability::IPV6)))
    }

    /// An instance with these options of its section; every other one is at its default.
    pub(crate) fn start(
        &self,
        families: Families,
        state_dir: &Path,
        options: &Map<String, Value>,
    ) -> Result<Arc<T>, Stop> {
        let section = Section::new(&self.name, options.clone());
        let built = (self.make)(&BuildContext { section, ..context(&self.name, families, state_dir) });
        let changed = if options.is_empty() { String::new() } else { format!(" but {options:?}") };
        built.map_err(|error| Stop::broken(format!("cannot be built with its defaults{changed}: {error}")))
    }
}

impl<T: ?Sized> fmt::Debug for Maker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

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
fn context(backend: &str, families: Families, state_dir: &Path) -> BuildContext {
    BuildContext {
        node_name: "local".to_owned(),
        families,
        state_dir: state_dir.to_owned(),
        bpffs: "/sys/fs/bpf".into(),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new(backend, Map::new()),
    }
}

/// Trouble of the suite itself, which is no verdict on the backend but must not pass as one either.
fn local(action: &str, error: &io::Error) -> Stop {
    Stop::broken(format!("the suite cannot {action}: {error}"))
}
