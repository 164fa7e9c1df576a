//! What goes wrong between a program and the kernel's network configuration.

use std::io;

/// An error of one netlink request or namespace operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The kernel refused a request.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was tried, on what.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket to the kernel could not be opened or broke.
    #[error("the netlink socket failed while trying to {action}: {reason}")]
    Socket {
        /// What was tried.
        action: String,
        /// What happened.
        reason: String,
    },
    /// A device does not exist.
    #[error("device {name:?} does not exist in this network namespace")]
    NoSuchLink {
        /// Its name.
        name: String,
    },
    /// A network namespace could not be made, opened or entered.
    #[error("cannot {action}: {source}")]
    Namespace {
        /// What was tried, on which path.
        action: String,
        /// The cause.
        source: io::Error,
    },
}

impl NetlinkError {
    /// The kernel's error number, if it answered.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Namespace { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether what should have been removed was already gone.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NoSuchLink { .. })
            || matches!(
                self.errno(),
                Some(libc_errno::ENODEV | libc_errno::ENOENT | libc_errno::ESRCH | libc_errno::EADDRNOTAVAIL)
            )
    }

    /// Whether what should have been made was already there.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        self.errno() == Some(libc_errno::EEXIST)
    }

    /// Whether the kernel does not have what was asked for, such as a kind of device.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(libc_errno::EOPNOTSUPP)
    }

    /// Turns an answer of `rtnetlink` into an error that names what was tried.
    pub(crate) fn from_request(action: impl Into<String>, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Refused { action: action.into(), source: message.to_io() },
            other => Self::Socket { action: action.into(), reason: other.to_string() },
        }
    }
}

/// Numbers from Linux `include/uapi/asm-generic/errno-base.h` and `errno.h`.
mod libc_errno {
    use nix::errno::Errno;

    pub(super) const ENOENT: i32 = Errno::ENOENT as i32;
    pub(super) const ESRCH: i32 = Errno::ESRCH as i32;
    pub(super) const EEXIST: i32 = Errno::EEXIST as i32;
    pub(super) const EOPNOTSUPP: i32 = Errno::EOPNOTSUPP as i32;
    pub(super) const ENODEV: i32 = Errno::ENODEV as i32;
    pub(super) const EADDRNOTAVAIL: i32 = Errno::EADDRNOTAVAIL as i32;
}
