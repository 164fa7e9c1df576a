//! A file of the delete queue, which the agent replays at its start.

use std::{fs, time::Duration};

use kinesin_agent_api::delete_queue::{DeleteQueue, QueueError};

/// Long enough for a loaded machine; nobody else knows the directory.
const LOCK: Duration = Duration::from_secs(10);

/// A file is a deletion that can be queued again, or is reported as what it is.
pub(crate) fn run(input: &[u8]) {
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let queue = DeleteQueue::beside(&directory.path().join("cilium.sock"));
    let lock = queue.lock_exclusive(LOCK).unwrap_or_else(|error| panic!("{error}"));
    let path = queue.directory().join("0.delete");
    fs::write(&path, input).unwrap_or_else(|error| panic!("{error}"));
    let entries = queue.read(&lock).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(entries.len(), 1);
    match &entries[0].request {
        Ok(request) => {
            assert!(!request.container_id.is_empty(), "an empty id could match everything");
            queue.remove(&entries[0]).unwrap_or_else(|error| panic!("{error}"));
            queue.push(&lock, request).unwrap_or_else(|error| panic!("{error}"));
            let again = queue.read(&lock).unwrap_or_else(|error| panic!("{error}"));
            assert!(again.len() == 1 && again[0].request.as_ref().ok() == Some(request), "{again:?}");
        }
        Err(error) => assert!(matches!(error, QueueError::Malformed { .. }), "{error}"),
    }
}
