//! What can be done to a cluster by whoever is on the machines that it runs on.

use std::time::Duration;

use crate::{cluster::Stop, leaks::Site};

/// Means to end parts of a cluster where they stand, and to look into its nodes.
pub trait Inside {
    /// Ends a node's agent by SIGKILL and returns at once; another one takes its place. The answer tells whether one ran.
    ///
    /// # Errors
    /// When the node is down, or the API does not let another one start.
    fn kill_agent(&self, node: &str) -> Result<bool, Stop>;

    /// Ends one CNI plugin on a node by SIGKILL, whatever it is at; the answer tells whether one ran.
    ///
    /// # Errors
    /// When the node is down.
    fn kill_plugin(&self, node: &str) -> Result<bool, Stop>;

    /// Ends the API server by SIGKILL and starts it again after `away`, with its objects.
    ///
    /// # Errors
    /// When it does not come back.
    fn restart_api(&self, away: Duration) -> Result<(), Stop>;

    /// Returns when every node has one agent, and every agent works and knows the ways to all other nodes.
    ///
    /// # Errors
    /// When that does not come.
    fn settle(&self) -> Result<(), Stop>;

    /// What a line of shell on a node writes to stdout; `words` are its `$1`, `$2` and so on.
    ///
    /// # Errors
    /// When the node is down, and with what the line says when it fails.
    fn shell(&self, node: &str, line: &str, words: &[&str]) -> Result<String, Stop>;

    /// A look into a node.
    ///
    /// # Errors
    /// When the node is down.
    fn site(&self, node: &str) -> Result<Site, Stop>;
}
