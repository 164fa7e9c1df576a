//! Why a benchmark could not be run.

use std::{io, path::PathBuf};

use kinesin_agent_api::ClientError;
use kinesin_lab::LabError;
use kinesin_netlink::{NetlinkError, SysctlError};

/// Why a benchmark could not be run; a measurement is never made up for one that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// Namespaces and kernel programs need root.
    #[error("a benchmark needs root: run it with sudo")]
    NotRoot,
    /// A name that no case has.
    #[error(
        "no case is called {name:?}; `--list` shows them, and a part of a name such as \"rr\" picks all that have it"
    )]
    NoSuchCase {
        /// What was asked for.
        name: String,
    },
    /// An option has a value that cannot be.
    #[error("{what}: {remedy}")]
    Option {
        /// What is wrong.
        what: String,
        /// What would be right.
        remedy: String,
    },
    /// The plugins to compare with are not there.
    #[error(
        "the CNI plugin {plugin:?} is not in {dir}: `./x bench` fetches it, or give the directory of the reference \
         plugins with --cni-dir, or leave the comparison out with --without bridge,flannel"
    )]
    NoPlugin {
        /// The program's name.
        plugin: &'static str,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Traffic did not arrive as it should.
    #[error("{what} failed")]
    Traffic {
        /// Which load, from where to where.
        what: String,
        /// What the socket said.
        #[source]
        source: io::Error,
    },
    /// A CNI plugin refused or broke.
    #[error("CNI {command} of {plugin:?} failed: {reason}")]
    Plugin {
        /// `ADD` or `DEL`.
        command: &'static str,
        /// Its `type`.
        plugin: String,
        /// What it said.
        reason: String,
    },
    /// A lab did not come up as it should.
    #[error("{0}")]
    Scene(String),
    /// The kernel programs cannot be measured.
    #[error("the kernel programs cannot be measured: {0}")]
    Programs(String),
    /// A file or a process could not be used.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The plot could not be drawn.
    #[error("cannot draw the plot: {0}")]
    Plot(String),
    /// A lab did not come up or could not be used.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The kernel refused a device, address or route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused a sysctl.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The agent did not answer.
    #[error(transparent)]
    Agent(#[from] ClientError),
}

impl BenchError {
    /// For `map_err` on whatever fails with an [`io::Error`] or can become one.
    pub(crate) fn io<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        |error| Self::Io { action: action.into(), source: error.into() }
    }
}
