//! What can go wrong with a lab, and the way out of it.

use std::{io, path::PathBuf, time::Duration};

use kinesin_core::config::ConfigError;
use kinesin_netlink::{NetlinkError, SysctlError};

/// Why a lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// Namespaces and mounts need root.
    #[error("a lab needs root: run it with sudo")]
    NotRoot,
    /// The specification asks for what cannot be.
    #[error("{what}: {remedy}")]
    Spec {
        /// What is wrong.
        what: String,
        /// What would be right.
        remedy: String,
    },
    /// Another command holds the lab's lock.
    #[error("another command is working on lab {name:?}; wait for it or end it, then try again")]
    Busy {
        /// The lab.
        name: String,
    },
    /// No lab of this name is known.
    #[error("there is no lab {name:?} in {dir}; `kinesin lab up` makes one, `kinesin lab list` shows those that are")]
    NoSuchLab {
        /// The lab.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The lab has no such node.
    #[error("lab {lab:?} has no node {node:?}; its nodes are {known}")]
    NoSuchNode {
        /// The lab.
        lab: String,
        /// What was asked for.
        node: String,
        /// What there is.
        known: String,
    },
    /// A node's holder is gone.
    #[error("node {node:?} is down; `kinesin lab up` starts it again")]
    NodeDown {
        /// The node.
        node: String,
    },
    /// A lab of this name is there and is not what was asked for.
    #[error(
        "lab {name:?} is there already with {difference}; `kinesin lab down` first, or give this one another --name"
    )]
    Different {
        /// The lab.
        name: String,
        /// In what it differs.
        difference: String,
    },
    /// A program that nodes run is missing.
    #[error(
        "{program} is not in {dir}; build it with `cargo build --workspace --bins`, or name its directory with --bin-dir"
    )]
    NoProgram {
        /// Its name.
        program: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The machine has no cgroup2 tree.
    #[error(
        "no cgroup2 file system is mounted; `mount -t cgroup2 none /sys/fs/cgroup` mounts one where systemd did not"
    )]
    NoCgroup2,
    /// A file or a system call.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// One of the lab's own processes did not start.
    #[error("{what} did not start: {reason} (its log is {log})")]
    Start {
        /// Which one.
        what: String,
        /// What it said.
        reason: String,
        /// Where it says more.
        log: PathBuf,
    },
    /// A device, address or route of the lab.
    #[error(transparent)]
    Network(#[from] NetlinkError),
    /// A sysctl of a node.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The values file.
    #[error("the values are refused")]
    Values(#[from] ConfigError),
    /// A manifest that is no Kubernetes object.
    #[error("{origin} cannot be applied: {reason}")]
    Manifest {
        /// The file.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The lab's API server.
    #[error("cannot {action}")]
    Api {
        /// What was asked.
        action: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// Something did not come about in time.
    #[error("{what} within {} s: {state}; the lab stays up: {hint}", after.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// How far it had come.
        state: String,
        /// Where to look.
        hint: String,
    },
    /// Something of the lab could not be removed.
    #[error("lab {name:?} is not gone altogether: {left}")]
    Left {
        /// The lab.
        name: String,
        /// What is left, and why.
        left: String,
    },
}

impl LabError {
    /// Whether the same call may succeed later without a change.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Timeout { .. } | Self::Api { .. } | Self::Left { .. })
    }

    /// For `map_err`: an i/o error with what was tried.
    pub(crate) fn io<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source: source.into() }
    }

    /// For `map_err`: an answer of the API server with what was asked.
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source: Box::new(source) }
    }

    pub(crate) fn spec(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Spec { what: what.into(), remedy: remedy.into() }
    }
}
