//! One netlink socket in one network namespace.

use tokio::task::JoinHandle;

use crate::{NetNs, NetlinkError};

/// A netlink socket, bound for life to the network namespace in which it was opened.
///
/// Must be used within a Tokio runtime; the socket is closed with the last clone of the handle.
#[derive(Debug)]
pub struct Netlink {
    pub(crate) handle: rtnetlink::Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// `Socket` when the kernel gives none.
    pub fn new() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|error| NetlinkError::Socket {
            action: "open a netlink socket".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// `Namespace` when it cannot be entered, `Socket` when the kernel gives no socket.
    pub fn in_netns(netns: &NetNs) -> Result<Self, NetlinkError> {
        let runtime = tokio::runtime::Handle::current();
        netns.run(move || {
            let _inside = runtime.enter();
            Self::new()
        })?
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
