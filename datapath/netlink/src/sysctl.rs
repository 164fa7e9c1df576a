//! Network sysctls of one namespace.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens a file, so a write happens in a thread of that
//! namespace. Source: Linux `Documentation/networking/ip-sysctl.rst`.

use std::{fs, io};

use crate::{NetNs, NetlinkError};

/// The sysctls under `net.` of the namespace that `Netlink` users run in, or of a given one.
#[derive(Debug, Clone, Copy)]
pub struct Sysctl<'a> {
    netns: Option<&'a NetNs>,
}

/// Why a sysctl could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The file refused.
    #[error("cannot {action} sysctl net.{key}: {source}")]
    Access {
        /// `read` or `write`.
        action: &'static str,
        /// Key below `net.`, with slashes.
        key: String,
        /// The cause.
        source: io::Error,
    },
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NetlinkError),
}

impl<'a> Sysctl<'a> {
    /// Those of the calling thread's namespace.
    #[must_use]
    pub fn here() -> Sysctl<'static> {
        Sysctl { netns: None }
    }

    /// Those of another namespace.
    #[must_use]
    pub fn of(netns: &'a NetNs) -> Self {
        Sysctl { netns: Some(netns) }
    }

    /// Reads `key`, such as `ipv4/ip_forward`, without its line end.
    ///
    /// # Errors
    /// `Access` with `NotFound` when the kernel or the device does not have it.
    pub fn read(&self, key: &str) -> Result<String, SysctlError> {
        let text = self.inside(|| fs::read_to_string(path(key)))?;
        text.map(|text| text.trim_end().to_owned()).map_err(|source| access("read", key, source))
    }

    /// Writes `key` unless it has this value already; the answer tells whether it was changed.
    ///
    /// # Errors
    /// `Access` when the kernel refuses the value or `/proc/sys` is read-only.
    pub fn set(&self, key: &str, value: &str) -> Result<bool, SysctlError> {
        if self.read(key)? == value {
            return Ok(false);
        }
        self.inside(|| fs::write(path(key), value))?.map_err(|source| access("write", key, source))?;
        Ok(true)
    }

    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        match self.netns {
            Some(netns) => netns.run(work),
            None => Ok(work()),
        }
    }
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}

fn access(action: &'static str, key: &str, source: io::Error) -> SysctlError {
    SysctlError::Access { action, key: key.replace('/', "."), source }
}
