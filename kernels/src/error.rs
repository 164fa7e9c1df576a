//! Why a run could not be made. What a kernel does not do is no error but a finding.

use std::{io, path::PathBuf, time::Duration};

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelsError {
    /// A file of the run could not be read or written.
    #[error("cannot {action} {path:?}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The emulator could not be used.
    #[error("cannot {action} the virtual machine of {release}")]
    Machine {
        /// What was tried.
        action: &'static str,
        /// Which kernel's.
        release: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The machine did not say that it was done.
    #[error("the virtual machine of {release} {end} while it was at {step:?}; the end of its console:\n{console}")]
    Unfinished {
        /// Which kernel's.
        release: String,
        /// `ended` or `was stopped`, and after how long.
        end: End,
        /// Its last step.
        step: String,
        /// What the kernel and the emulator said last.
        console: String,
    },
    /// An answer has another form than this version of the program writes.
    #[error("the virtual machine of {release} answered what cannot be read: {text:?}")]
    Answer {
        /// Which kernel's.
        release: String,
        /// The line, cut.
        text: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The programs are not in this build.
    #[error(transparent)]
    Programs(#[from] kinesin_loader::LoaderError),
    /// The answer could not be told.
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
}

/// How a machine ended that was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Ended,
    /// Stopped after so long.
    Stopped(Duration),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => f.write_str("ended"),
            Self::Stopped(after) => write!(f, "was stopped after {} s", after.as_secs()),
        }
    }
}
