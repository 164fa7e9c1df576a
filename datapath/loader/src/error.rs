//! What goes wrong between user space and the BPF subsystem.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// An error of loading, pinning, attaching or reading.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoaderError {
    /// The pin directory is on another file system.
    #[error("{path:?} is no bpffs; mount one there: mount -t bpf bpf {path:?}")]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },
    /// Pins of another layout are there.
    #[error("{path:?} holds the pins of layout {found:?}, this program writes {own:?}")]
    OtherLayout {
        /// The directory that holds the layouts.
        path: PathBuf,
        /// Name of the other layout's directory.
        found: String,
        /// Name of our layout's directory.
        own: String,
    },
    /// A pinned map has another shape than the program expects.
    #[error(
        "pinned map {path:?} has keys of {key_size} and values of {value_size} bytes, expected {expected_key} and \
         {expected_value}"
    )]
    MapMismatch {
        /// The pin.
        path: PathBuf,
        /// Found.
        key_size: u32,
        /// Found.
        value_size: u32,
        /// Wanted.
        expected_key: u32,
        /// Wanted.
        expected_value: u32,
    },
    /// A file or directory of the pins could not be accessed.
    #[error("cannot {action} {path:?}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The object file was refused.
    #[error("cannot load the object file: {}", tail(.0))]
    Object(EbpfError),
    /// There is no object file.
    #[error("this binary was built without the kernel programs; {remedy}")]
    NoObject {
        /// What to do about it.
        remedy: &'static str,
    },
    /// A program or map is not in the object file.
    #[error("the object file has no {kind} {name:?}; build programs and loader together")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A program was refused or could not be attached.
    #[error("cannot {action}: {}", tail(.source))]
    Program {
        /// What was tried.
        action: String,
        /// The cause; for a refusal by the verifier the end of its log.
        source: ProgramError,
    },
    /// A map could not be read or written.
    #[error("cannot {action}")]
    Map {
        /// What was tried, on which map.
        action: String,
        /// The cause.
        #[source]
        source: MapError,
    },
    /// Somebody else holds the lock.
    #[error("{path:?} is locked by process {pid}")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who wrote its number there; 0 when it is not readable.
        pid: u32,
    },
}

impl LoaderError {
    /// Whether the same call may succeed later without a change on the machine.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Map { .. } | Self::Pin { .. } | Self::Program { .. } | Self::Locked { .. })
    }
}

/// Lines of a verifier log that a message carries: the end says what was refused.
const LOG_LINES: usize = 15;

/// An error with its causes, cut to the last lines.
fn tail(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        text.push_str(": ");
        text.push_str(&found.to_string());
        cause = found.source();
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= LOG_LINES + 1 {
        return text;
    }
    let end = lines[lines.len() - LOG_LINES..].join("\n");
    format!("{} ... {end}", lines[0])
}
