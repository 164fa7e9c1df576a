//! What a node holds for its pods, counted in every place where something could be left behind.
//!
//! The agent keeps the same facts in several places: leases, endpoints, files, the kernel's maps, devices. [`held`]
//! compares them all, so a leak in any of them shows as a difference; [`surroundings`] is what a node has besides, which must
//! be the same before a storm and after it. Nothing here changes anything.

mod held;
mod maps;
mod surroundings;

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, thread, time::Duration, time::Instant};

use kinesin_agent_api::Client;
use kinesin_core::causes::with_causes;
use kinesin_netlink::{Link, NetNs, Netlink, NetlinkError, Route};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

pub use held::{Held, held};
pub use surroundings::{stale_pins, surroundings};

/// How long an agent may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// A node, as this machine can look into it.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its network namespace.
    pub netns: Arc<NetNs>,
    /// Its files, such as `/proc/PID/root` of a process on it.
    pub root: PathBuf,
    /// Directories in which the node's runtime keeps a file for each pod: its network namespace, what the plugin answered.
    pub runtime_dirs: Vec<String>,
    /// Where requests run; nothing here may be called from within it.
    pub runtime: Handle,
}

impl Site {
    /// A file of the node as this machine can open it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        // An absolute link, which /var/run is on most machines, would lead out of the node.
        let inside = inside.replacen("/var/run", "/run", 1);
        self.root.join(inside.trim_start_matches('/'))
    }

    /// `GET /v1{path}` of the node's agent.
    ///
    /// # Errors
    /// The client's.
    pub fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let agent = Client::new(self.path("/var/run/cilium/cilium.sock")).with_timeout(ANSWER);
        self.runtime.block_on(agent.get(path)).map_err(|error| format!("{path}: {}", with_causes(&error)))
    }

    /// Its devices.
    ///
    /// # Errors
    /// The kernel's.
    pub fn links(&self) -> Result<Vec<Link>, String> {
        let links = self.runtime.block_on(async { Netlink::in_netns(&self.netns)?.links().await });
        links.map_err(|error: NetlinkError| with_causes(&error))
    }

    /// Its routes, of all tables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn routes(&self) -> Result<Vec<Route>, String> {
        let routes = self.runtime.block_on(async { Netlink::in_netns(&self.netns)?.routes().await });
        routes.map_err(|error: NetlinkError| with_causes(&error))
    }

    /// Names of files in a directory of the node, sorted; none if it does not exist.
    #[must_use]
    pub fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Names of the programs that run in the node's network namespace, sorted.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        use std::os::fd::AsRawFd as _;
        let namespace = |path: String| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let own = namespace(format!("/proc/self/fd/{}", self.netns.as_raw_fd()));
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
        // Those that end while this looks at them are none.
        let inside = pids.filter(|pid| own.is_some() && namespace(format!("/proc/{pid}/ns/net")) == own);
        let mut names: Vec<String> = inside
            .filter_map(|pid| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned()))
            .collect();
        names.sort();
        names
    }

    /// Deletions that wait for the agent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.files("/var/run/cilium/deleteQueue").iter().filter(|name| name.ends_with(".delete")).count()
    }
}

/// What is held once what goes on has come to rest: right after an agent's start, queued deletions are still performed.
///
/// # Errors
/// With the difference that is still there after `patience`.
pub fn settled(site: &Site, patience: Duration) -> Result<Held, String> {
    let end = Instant::now() + patience;
    loop {
        let looked = held(site);
        match (looked, site.queued()) {
            (Ok(held), 0) => return Ok(held),
            (looked, queued) if Instant::now() >= end => {
                let difference = looked.err().unwrap_or_else(|| "everything agrees".to_owned());
                return Err(format!("{difference}, and {queued} deletions wait"));
            }
            _ => thread::sleep(LOOK),
        }
    }
}
