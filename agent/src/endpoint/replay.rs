//! Deletions that the plugin could not deliver while the agent was away.

use std::time::Duration;

use kinesin_agent_api::delete_queue::{DeleteQueue, QueueError};

use crate::engine::{Engine, EngineError};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "replay-deletes";
/// A writer holds the lock for one small file.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Why the queue could not be emptied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ReplayError {
    /// The queue's files.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A deletion failed; it stays in the queue.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl Engine {
    /// Performs every deletion that waits. The socket must be served already, so that no further one is queued.
    pub(crate) async fn replay_deletes(&self) -> Result<(), ReplayError> {
        let queue = DeleteQueue::beside(&self.config.socket_path);
        // Nobody had to queue anything, or everything is done.
        let is_empty = std::fs::read_dir(queue.directory()).map_or(true, |mut files| {
            !files.any(|file| file.is_ok_and(|file| file.file_name().as_encoded_bytes().ends_with(b".delete")))
        });
        if is_empty {
            return Ok(());
        }
        let lock = tokio::task::block_in_place(|| queue.lock_exclusive(LOCK_LIMIT))?;
        for entry in queue.read(&lock)? {
            match &entry.request {
                Ok(request) => {
                    let removed = self.delete_batch(request).await?;
                    tracing::info!(container = request.container_id, removed, "performed a queued deletion");
                }
                // Nobody will ever understand it, and it would stand in the way of the others for ever.
                Err(error) => tracing::warn!(%error, "a queued deletion is dropped"),
            }
            queue.remove(&entry)?;
        }
        Ok(())
    }
}
