//! Deletions that the CNI plugin could not deliver, kept in files until the agent replays them.
//!
//! The queue is the directory `deleteQueue` beside the agent's socket: one file per deletion, its name the SHA-256 of
//! its content and the suffix `.delete`, its content an [`EndpointBatchDeleteRequest`] as JSON. So the same deletion
//! is queued once however often a runtime repeats it.
//!
//! No deletion gets lost between the two sides as long as both keep this order:
//!
//! - the plugin takes the shared lock, asks the agent once more, and only then writes;
//! - the agent listens on its socket first, then takes the exclusive lock, reads, performs and removes every entry.
//!
//! Every function blocks; an async caller runs them where blocking is allowed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::types::EndpointBatchDeleteRequest;

/// Name of the queue's directory beside the agent's socket.
pub const QUEUE_DIRECTORY: &str = "deleteQueue";
/// The queue takes no more entries than this.
pub const MAX_ENTRIES: usize = 256;

const LOCK_FILE: &str = "lockfile";
const SUFFIX: &str = ".delete";
/// A request takes a few hundred bytes; what is larger was not written by the plugin.
const MAX_ENTRY_BYTES: u64 = 64 << 10;
/// How often a taken lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The queue of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteQueue {
    directory: PathBuf,
}

/// Holds the queue's lock until it is dropped.
#[derive(Debug)]
pub struct QueueLock {
    // The kernel releases an flock(2) lock with the last descriptor of the open file.
    _file: File,
}

/// One file of the queue.
#[derive(Debug)]
pub struct QueuedDelete {
    /// Its path.
    pub path: PathBuf,
    /// What to delete, or why the file cannot be understood.
    pub request: Result<EndpointBatchDeleteRequest, QueueError>,
}

/// Why the queue could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The disk refused.
    #[error("cannot {action} {path:?}")]
    Access {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Somebody else kept the lock.
    #[error("the lock {path:?} was not free within {seconds} s; is another process replaying the queue?")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The limit.
        seconds: u64,
    },
    /// Too many deletions wait.
    #[error(
        "{directory:?} already holds {entries} deletions (the limit is {MAX_ENTRIES}); start the agent to replay them"
    )]
    Full {
        /// The queue.
        directory: PathBuf,
        /// How many wait.
        entries: usize,
    },
    /// A file is no deletion.
    #[error("{path:?} holds no deletion: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl DeleteQueue {
    /// The queue of the agent that listens on `socket`; touches no file.
    #[must_use]
    pub fn beside(socket: &Path) -> Self {
        let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { directory: parent.join(QUEUE_DIRECTORY) }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes the lock that writers share, making the directory if need be.
    ///
    /// # Errors
    /// `Access`, or `Locked` after `limit`.
    pub fn lock_shared(&self, limit: Duration) -> Result<QueueLock, QueueError> {
        self.lock(limit, File::try_lock_shared)
    }

    /// Takes the lock that keeps every writer out, making the directory if need be.
    ///
    /// # Errors
    /// `Access`, or `Locked` after `limit`.
    pub fn lock_exclusive(&self, limit: Duration) -> Result<QueueLock, QueueError> {
        self.lock(limit, File::try_lock)
    }

    fn lock(&self, limit: Duration, attempt: fn(&File) -> Result<(), TryLockError>) -> Result<QueueLock, QueueError> {
        fs::create_dir_all(&self.directory).map_err(|source| access("make directory", &self.directory, source))?;
        let path = self.directory.join(LOCK_FILE);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(|source| access("open", &path, source))?;
        let end = Instant::now() + limit;
        loop {
            match attempt(&file) {
                Ok(()) => return Ok(QueueLock { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => return Err(QueueError::Locked { path, seconds: limit.as_secs() }),
                Err(TryLockError::Error(source)) => return Err(access("lock", &path, source)),
            }
        }
    }

    /// Queues a deletion; one that waits already is not queued twice.
    ///
    /// When this returns, the file is complete and on disk, or it is not there.
    ///
    /// # Errors
    /// `Full`, or `Access` when the disk is full or read-only.
    pub fn push(&self, _lock: &QueueLock, request: &EndpointBatchDeleteRequest) -> Result<PathBuf, QueueError> {
        let content = serde_json::to_vec(request).map_err(|error| access("write", &self.directory, error.into()))?;
        let name = hex::encode(Sha256::digest(&content));
        let path = self.directory.join(format!("{name}{SUFFIX}"));
        if path.exists() {
            return Ok(path);
        }
        let entries = self.paths()?.len();
        if entries >= MAX_ENTRIES {
            return Err(QueueError::Full { directory: self.directory.clone(), entries });
        }
        // Writers share the lock, so the temporary name carries the process.
        let temporary = self.directory.join(format!(".{name}.{}", process::id()));
        let written = write_synced(&temporary, &content).and_then(|()| fs::rename(&temporary, &path));
        written.map(|()| path).map_err(|source| {
            // The write's own error is what matters.
            let _ = fs::remove_file(&temporary);
            access("write", &temporary, source)
        })
    }

    /// Everything that waits, in the order of the file names.
    ///
    /// # Errors
    /// `Access` when the directory cannot be read; one bad file is reported in its own entry.
    pub fn read(&self, _lock: &QueueLock) -> Result<Vec<QueuedDelete>, QueueError> {
        Ok(self.paths()?.into_iter().map(|path| QueuedDelete { request: parse_file(&path), path }).collect())
    }

    /// Removes an entry that was performed, or that nobody will ever understand; one that is gone is fine.
    ///
    /// # Errors
    /// `Access`.
    pub fn remove(&self, entry: &QueuedDelete) -> Result<(), QueueError> {
        match fs::remove_file(&entry.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(access("remove", &entry.path, source)),
            _ => Ok(()),
        }
    }

    fn paths(&self) -> Result<Vec<PathBuf>, QueueError> {
        let failed = |source| access("list", &self.directory, source);
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX) && !name.starts_with('.')) {
                paths.push(entry.path());
            }
        }
        paths.sort();
        Ok(paths)
    }
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn parse_file(path: &Path) -> Result<EndpointBatchDeleteRequest, QueueError> {
    let malformed = |reason: String| QueueError::Malformed { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| access("open", path, source))?;
    let mut content = Vec::new();
    file.take(MAX_ENTRY_BYTES + 1).read_to_end(&mut content).map_err(|source| access("read", path, source))?;
    if content.len() as u64 > MAX_ENTRY_BYTES {
        return Err(malformed(format!("it is larger than {MAX_ENTRY_BYTES} bytes")));
    }
    let request: EndpointBatchDeleteRequest =
        serde_json::from_slice(&content).map_err(|error| malformed(error.to_string()))?;
    // An empty id would match whatever an agent takes it to match.
    if request.container_id.is_empty() {
        return Err(malformed("container-id is empty".to_owned()));
    }
    Ok(request)
}

fn access(action: &'static str, path: &Path, source: io::Error) -> QueueError {
    QueueError::Access { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn queue() -> (tempfile::TempDir, DeleteQueue) {
        let directory = tempfile::tempdir().expect("directory");
        let queue = DeleteQueue::beside(&directory.path().join("cilium.sock"));
        (directory, queue)
    }

    fn request(id: &str) -> EndpointBatchDeleteRequest {
        EndpointBatchDeleteRequest { container_id: id.to_owned(), container_interface_name: "eth0".to_owned() }
    }

    #[test]
    fn pushed_deletion_is_read_back_once_and_removed() {
        let (_directory, queue) = queue();
        let lock = queue.lock_shared(SHORT).expect("lock");
        let first = queue.push(&lock, &request("a")).expect("push");
        assert_eq!(queue.push(&lock, &request("a")).expect("push again"), first);
        queue.push(&lock, &request("b")).expect("push another");
        drop(lock);
        let lock = queue.lock_exclusive(SHORT).expect("lock");
        let entries = queue.read(&lock).expect("read");
        let mut ids: Vec<_> =
            entries.iter().map(|entry| entry.request.as_ref().expect("valid").container_id.clone()).collect();
        ids.sort();
        assert_eq!(ids, ["a", "b"]);
        for entry in &entries {
            queue.remove(entry).expect("remove");
            queue.remove(entry).expect("remove again");
        }
        assert!(queue.read(&lock).expect("read").is_empty());
    }

    #[test]
    fn full_queue_refuses_new_entries_but_knows_old_ones() {
        let (_directory, queue) = queue();
        let lock = queue.lock_shared(SHORT).expect("lock");
        for number in 0..MAX_ENTRIES {
            queue.push(&lock, &request(&number.to_string())).expect("push");
        }
        let error = queue.push(&lock, &request("more")).expect_err("full");
        assert!(matches!(error, QueueError::Full { entries: MAX_ENTRIES, .. }), "{error}");
        queue.push(&lock, &request("7")).expect("it waits already");
    }

    #[test]
    fn exclusive_lock_keeps_writers_out_until_dropped() {
        let (_directory, queue) = queue();
        let lock = queue.lock_exclusive(SHORT).expect("lock");
        let error = queue.lock_shared(SHORT).expect_err("taken");
        assert!(matches!(error, QueueError::Locked { .. }), "{error}");
        drop(lock);
        let shared = queue.lock_shared(SHORT).expect("free");
        queue.lock_shared(SHORT).expect("shared twice");
        queue.lock_exclusive(SHORT).expect_err("taken by a writer");
        drop(shared);
    }

    #[test]
    fn damaged_files_are_reported_one_by_one() {
        let (_directory, queue) = queue();
        let lock = queue.lock_exclusive(SHORT).expect("lock");
        queue.push(&lock, &request("a")).expect("push");
        let damaged: [(&str, Vec<u8>); 3] = [
            ("0.delete", b"{".to_vec()),
            ("1.delete", br#"{"container-id":""}"#.to_vec()),
            ("2.delete", vec![b' '; MAX_ENTRY_BYTES as usize + 1]),
        ];
        for (name, content) in &damaged {
            fs::write(queue.directory().join(name), content).expect("write");
        }
        fs::write(queue.directory().join(".half-written.delete"), b"{").expect("write");
        let entries = queue.read(&lock).expect("read");
        let bad = entries.iter().filter(|entry| matches!(entry.request, Err(QueueError::Malformed { .. }))).count();
        assert_eq!((entries.len(), bad), (4, 3));
    }
}
