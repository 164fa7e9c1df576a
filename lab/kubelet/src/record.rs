//! What is kept on disk about a pod, so that a restarted kubelet goes on with what runs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::launch::{RunSpec, RunState};
use crate::{KubeletError, cni, files};

/// A pod of this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PodRecord {
    pub(crate) pod: Pod,
    pub(crate) started: Timestamp,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) containers: BTreeMap<String, Container>,
}

/// The namespaces that the containers of a pod share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// `None` is the node's own network.
    pub(crate) netns: Option<PathBuf>,
    /// Written before the first ADD, so that a kubelet killed during it still knows what to DEL.
    pub(crate) network: Option<cni::Attachment>,
    /// Whether ADD came to its end.
    pub(crate) is_ready: bool,
    pub(crate) ips: Vec<IpAddr>,
}

/// A container of a pod; each of its runs has a directory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Container {
    /// 0 for the first run.
    pub(crate) attempt: u32,
    pub(crate) id: String,
    pub(crate) backoff: Backoff,
    pub(crate) last: Option<Ended>,
}

/// How a run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
}

impl PodRecord {
    pub(crate) fn new(pod: Pod) -> Self {
        Self { pod, started: Timestamp::now(), sandbox: None, containers: BTreeMap::new() }
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Everything of the pod.
    pub(crate) fn dir(&self, pods_dir: &Path) -> PathBuf {
        pods_dir.join(self.uid())
    }

    /// Everything of the current run of a container.
    pub(crate) fn run_dir(&self, pods_dir: &Path, container: &str) -> PathBuf {
        let attempt = self.containers.get(container).map_or(0, |c| c.attempt);
        self.dir(pods_dir).join("containers").join(container).join(attempt.to_string())
    }

    /// The log of a run of a container, where a real kubelet has it.
    pub(crate) fn log(&self, log_dir: &Path, container: &str, attempt: u32) -> PathBuf {
        let pod = format!("{}_{}_{}", self.namespace(), self.name(), self.uid());
        log_dir.join(pod).join(container).join(format!("{attempt}.log"))
    }

    pub(crate) fn save(&self, pods_dir: &Path) -> Result<(), KubeletError> {
        let dir = self.dir(pods_dir);
        files::make_dir(&dir)?;
        files::write_json(&dir.join("pod.json"), self)
    }

    pub(crate) fn state(&self, pods_dir: &Path, container: &str) -> Option<RunState> {
        files::read_json(&self.run_dir(pods_dir, container).join("state.json")).ok().flatten()
    }

    pub(crate) fn spec(&self, pods_dir: &Path, container: &str) -> Option<RunSpec> {
        files::read_json(&self.run_dir(pods_dir, container).join("spec.json")).ok().flatten()
    }
}

/// Reads what an earlier kubelet left; what cannot be read is reported and left where it is.
pub(crate) fn load_all(pods_dir: &Path) -> BTreeMap<String, PodRecord> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(pods_dir).into_iter().flatten().flatten() {
        match files::read_json::<PodRecord>(&entry.path().join("pod.json")) {
            Ok(Some(record)) => {
                found.insert(record.uid().to_owned(), record);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "a pod's record cannot be used"),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}}))
                .unwrap();
        let mut record = PodRecord::new(pod);
        record.containers.insert("c".into(), Container { attempt: 3, ..Container::default() });
        record.save(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join("broken")).unwrap();
        std::fs::write(dir.path().join("broken/pod.json"), "{").unwrap();
        let all = load_all(dir.path());
        assert_eq!(all.get("u"), Some(&record));
        assert_eq!(all.len(), 1);
        assert!(record.run_dir(dir.path(), "c").ends_with("u/containers/c/3"));
    }
}
