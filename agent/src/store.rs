//! Files that outlive the agent: what the node was given, and its endpoints.
//!
//! Every file is written beside its place and renamed, so a reader finds the old content or the new one. They live below
//! `/run`, which a reboot clears together with the devices that they speak of, so nothing is flushed to a disk.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use kinesin_core::{
    causes::with_causes,
    ipam::{Block, Lease},
    values::{Carrier, EndpointId},
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Error as _},
};

use crate::{carriers::Said, endpoint::Record};

/// The agent's state directory.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    directory: PathBuf,
}

/// What is done about each damaged file, and left to whoever reads of it.
mod remedy {
    pub(super) const ENDPOINT: &str = "it is removed; a pod that has lost its network by that is to be deleted, and the next \
                                       one gets a new one";
    pub(super) const NODE: &str = "it counts as none, and the node's blocks and peers are read from the API again";
    pub(super) const CONFIG: &str = "it counts as none, and the next configuration that is accepted replaces it";
}

/// What the node was given and has published.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// Registry name of the IPAM mode that the blocks were given to; empty in the files of the first version.
    #[serde(default)]
    pub(crate) mode: String,
    /// Blocks that IPAM has accepted and may lease from. One that is given up is gone from here before the cluster is told.
    pub(crate) blocks: Vec<Block>,
    /// Ranges of the Node object that were copied to the CiliumNode: those entries are this agent's to take out.
    #[serde(default)]
    pub(crate) node_cidrs: Vec<IpNet>,
    /// The node's addresses in Kubernetes.
    pub(crate) internal_ips: Vec<IpAddr>,
    /// Leases of the node's own: router and health.
    pub(crate) leases: Vec<Lease>,
    /// Uid of the Node object.
    #[serde(default)]
    pub(crate) uid: String,
    /// Labels of the Node object.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// When its CiliumNode was created, in seconds since 1970; absent before it was seen.
    #[serde(default)]
    pub(crate) created_unix_seconds: Option<i64>,
    /// The other nodes, so that they stay reachable while the API is away at the next start.
    #[serde(default)]
    pub(crate) peers: BTreeMap<String, PeerRecord>,
    /// What this node last did about carriers, and so may announce.
    #[serde(default)]
    pub(crate) announced: Said,
    /// What carried packets to each node last.
    #[serde(default)]
    pub(crate) carried: BTreeMap<String, Carrier>,
    /// The MTU of its uplink that this node announces.
    #[serde(default)]
    pub(crate) mtu_bytes: Option<u32>,
    /// What routers said last of ways to other nodes, by the node's address: for the next start, until the datapath is asked.
    #[serde(default)]
    pub(crate) told_mtus: BTreeMap<IpAddr, u32>,
}

/// Another node, as it published itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerRecord {
    /// Underlay addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Pod CIDRs.
    pub(crate) pod_cidrs: Vec<IpNet>,
    /// Addresses of its health endpoint.
    pub(crate) health: Vec<IpAddr>,
    /// What it announces of carriers.
    #[serde(default)]
    pub(crate) carriers: Said,
    /// When its CiliumNode was created, in seconds since 1970.
    #[serde(default)]
    pub(crate) created_unix_seconds: Option<i64>,
    /// The MTU of its uplink in bytes, as it announces it.
    #[serde(default)]
    pub(crate) mtu_bytes: Option<u32>,
}

/// Why a state file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {path:?}; the agent needs a writable state directory (key state-dir) with free space")]
    Access {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path:?} holds no state of this agent; {remedy}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What becomes of it, and what is to be done about it.
        remedy: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Store {
    /// A store in `directory`, which need not exist yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> Result<(), StoreError> {
        let endpoints = self.endpoints_dir();
        fs::create_dir_all(&endpoints).map_err(|source| access("make directory", &endpoints, source))
    }

    /// The directory of everything.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn endpoints_dir(&self) -> PathBuf {
        self.directory.join("endpoints")
    }

    fn endpoint_path(&self, id: EndpointId) -> PathBuf {
        self.endpoints_dir().join(format!("{id}.json"))
    }

    fn node_path(&self) -> PathBuf {
        self.directory.join("node.json")
    }

    /// What the node was given in an earlier run; nothing on a new node. A damaged file counts as none and is reported.
    pub(crate) fn load_node(&self) -> Result<Option<NodeRecord>, StoreError> {
        none_if_damaged(read(&self.node_path(), remedy::NODE))
    }

    /// Saves what the node was given, unless the file says so already.
    pub(crate) fn save_node(&self, record: &NodeRecord) -> Result<(), StoreError> {
        let (path, written) = (self.node_path(), serde_json::to_vec(record).map_err(io::Error::from));
        let saved = written.and_then(|text| match fs::read(&path) {
            // One that cannot be read is replaced.
            Ok(there) if there == text => Ok(()),
            _ => write_atomically(&path, &text, 0o600),
        });
        saved.map_err(|source| access("write", &path, source))
    }

    /// Every endpoint of an earlier run. A damaged file costs only its own endpoint, and is removed.
    pub(crate) fn load_endpoints(&self) -> Result<Vec<Record>, StoreError> {
        let directory = self.endpoints_dir();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(access("list", &directory, source)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| access("list", &directory, source))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // What an interrupted write left behind.
                remove(&path)?;
                continue;
            }
            match read_endpoint(&path) {
                Ok(Some(record)) if path == self.endpoint_path(record.id) => records.push(record),
                Ok(_) => tracing::warn!(path = %path.display(), "state file of another name is ignored"),
                Err(error @ StoreError::Content { .. }) => {
                    // Nobody will ever read it, and its endpoint's number may be given to another one.
                    tracing::warn!(error = with_causes(&error), "damaged state file");
                    remove(&path)?;
                }
                Err(error) => return Err(error),
            }
        }
        records.sort_by_key(|record| record.id);
        Ok(records)
    }

    /// Saves an endpoint.
    pub(crate) fn save_endpoint(&self, record: &Record) -> Result<(), StoreError> {
        write(&self.endpoint_path(record.id), record)
    }

    /// Forgets an endpoint; one that is not there is fine.
    pub(crate) fn remove_endpoint(&self, id: EndpointId) -> Result<(), StoreError> {
        remove(&self.endpoint_path(id))
    }

    /// The configuration that was accepted last: keys and values as they were written.
    ///
    /// A damaged file counts as none and is reported.
    pub(crate) fn load_config(&self) -> Result<Option<Vec<(String, String)>>, StoreError> {
        none_if_damaged(read(&self.directory.join("config.json"), remedy::CONFIG))
    }

    /// Saves an accepted configuration.
    pub(crate) fn save_config(&self, keys: &[(String, String)]) -> Result<(), StoreError> {
        write(&self.directory.join("config.json"), &keys)
    }

    /// Removes all files.
    pub(crate) fn remove_all(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(access("remove", &self.directory, error)),
            _ => Ok(()),
        }
    }
}

fn access(action: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Access { action, path: path.to_owned(), source }
}

fn none_if_damaged<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(error @ StoreError::Content { .. }) => {
            tracing::warn!(error = with_causes(&error), "damaged state file");
            Ok(None)
        }
        other => other,
    }
}

/// An endpoint that is whole: one that could not have been made must not stand in the way of those that could.
fn read_endpoint(path: &Path) -> Result<Option<Record>, StoreError> {
    let record: Option<Record> = read(path, remedy::ENDPOINT)?;
    if let Some(reason) = record.as_ref().and_then(|record| record.defect()) {
        let source = serde_json::Error::custom(reason);
        return Err(StoreError::Content { path: path.to_owned(), remedy: remedy::ENDPOINT, source });
    }
    Ok(record)
}

fn read<T: DeserializeOwned>(path: &Path, remedy: &'static str) -> Result<Option<T>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(access("read", path, source)),
    };
    let content = |source| StoreError::Content { path: path.to_owned(), remedy, source };
    serde_json::from_slice(&text).map(Some).map_err(content)
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let written = serde_json::to_vec(value).map_err(io::Error::from);
    let written = written.and_then(|text| write_atomically(path, &text, 0o600));
    written.map_err(|source| access("write", path, source))
}

/// Replaces a file by a rename within its directory.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&beside)?;
    let written = file.write_all(content).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to tell; what is left is overwritten by the next attempt.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(access("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::record;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().expect("directory");
        let store = Store::new(directory.path().join("state"));
        store.prepare().expect("directories");
        (directory, store)
    }

    #[test]
    fn endpoints_come_back_as_they_were() {
        let (_directory, store) = store();
        let records = [record(7, "10.0.0.7"), record(300, "10.0.0.8")];
        for record in &records {
            store.save_endpoint(record).expect("saved");
        }
        assert_eq!(store.load_endpoints().expect("read"), records);
        store.remove_endpoint(EndpointId(7)).expect("removed");
        store.remove_endpoint(EndpointId(7)).expect("removed twice");
        assert_eq!(store.load_endpoints().expect("read"), records[1..]);
    }

    #[test]
    fn damaged_files_cost_only_their_own_endpoint() {
        let (_directory, store) = store();
        store.save_endpoint(&record(7, "10.0.0.7")).expect("saved");
        fs::write(store.endpoints_dir().join("8.json"), "{\"id\": 8,").expect("written");
        let mut foreign = record(10, "10.0.0.10");
        foreign.lease.addresses[0].block.cidr = "10.9.0.0/24".parse().expect("a network");
        store.save_endpoint(&foreign).expect("saved");
        fs::write(store.endpoints_dir().join("9.tmp"), "").expect("written");
        fs::write(store.node_path(), [0xff, 0]).expect("written");
        assert_eq!(store.load_endpoints().expect("read"), [record(7, "10.0.0.7")]);
        for left in ["8.json", "9.tmp", "10.json"] {
            assert!(!store.endpoints_dir().join(left).exists(), "{left}");
        }
        assert_eq!(store.load_node().expect("read"), None);
    }

    #[test]
    fn damage_is_told_with_the_file_the_reason_and_the_way_out() {
        let (_directory, store) = store();
        store.save_endpoint(&Record { id: EndpointId(0), ..record(7, "10.0.0.7") }).expect("saved");
        let error = read_endpoint(&store.endpoint_path(EndpointId(0))).expect_err("no number");
        let told = with_causes(&error);
        for part in ["endpoints/0.json", "number 0", "is to be deleted"] {
            assert!(told.contains(part), "{told}");
        }
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let store = Store::new(PathBuf::from("/proc/none/state"));
        let error = store.save_endpoint(&record(7, "10.0.0.7")).expect_err("no such directory").to_string();
        assert!(error.contains("/proc/none/state/endpoints/7.json") && error.contains("state-dir"), "{error}");
    }
}
