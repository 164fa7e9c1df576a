//! Network sysctls of one namespace.
//!
//! `/proc/sys/net` shows the namespace of the thread that opens a file, so a write happens in a thread of that
//! namespace. Source: Linux `Documentation/networking/ip-sysctl.rst`.

use std::{fs, io, path::Path};

use crate::{NetNs, NetlinkError};

/// Where the chart mounts the host's `/proc/sys/net`, as Cilium's does.
const HOST_PATH: &str = "/host/proc/sys/net";

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
    /// In a container that is not privileged `/proc/sys` is read-only; then the host's `/proc/sys/net` is written, where
    /// it is mounted at `/host/proc/sys/net`. Both show the namespace of whoever opens a file.
    ///
    /// # Errors
    /// `Access` when the kernel refuses the value, or `/proc/sys` is read-only and the host's is not mounted.
    pub fn set(&self, key: &str, value: &str) -> Result<bool, SysctlError> {
        if self.read(key)? == value {
            return Ok(false);
        }
        let write = || match fs::write(path(key), value) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && Path::new(HOST_PATH).is_dir() => {
                fs::write(format!("{HOST_PATH}/{key}"), value)
            }
            written => written,
        };
        self.inside(write)?.map_err(|source| access("write", key, source))?;
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
