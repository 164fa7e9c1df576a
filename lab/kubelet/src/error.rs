//! What can go wrong, in the words that events and logs show.

use std::io;
use std::path::{Path, PathBuf};

/// Why the kubelet, or one of its pods, cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KubeletError {
    /// The configuration cannot be used.
    #[error("kubelet configuration: {field}: {reason}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The API server refused or was not reached.
    #[error("cannot {what} at the API server: {source}")]
    Api {
        /// What was asked.
        what: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A file or directory of the node.
    #[error("cannot {what} {path:?}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A network namespace.
    #[error(transparent)]
    Network(#[from] kinesin_netlink::NetlinkError),
    /// A CNI plugin, or the search for it.
    #[error("{0}")]
    Cni(String),
    /// A volume that cannot be set up.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    Volume {
        /// Its name in the pod.
        volume: String,
        /// What is missing.
        reason: String,
    },
    /// A container whose configuration cannot be worked out; `CreateContainerConfigError`.
    #[error("{0}")]
    ContainerConfig(String),
    /// A process that could not be started; `RunContainerError`.
    #[error("{0}")]
    Start(String),
}

impl KubeletError {
    /// Whether the same may succeed later without anybody changing the configuration.
    #[must_use]
    pub fn retryable(&self) -> bool {
        !matches!(self, Self::Config { .. })
    }

    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }
}
