//! The store on disk: a snapshot, and a log of the writes since.
//!
//! Each line of either file is one JSON array `[revision, resource, namespace, name, object]`; a
//! removal has `null` for the object. A write is handed to the kernel before it is acknowledged,
//! so a killed server loses nothing; there is no `fsync`, so a power cut may cost the last writes.
//! A log whose last line was cut off is read up to that line.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Key;
use crate::error::StartError;

/// The log is folded into a snapshot when it has grown to this many bytes.
const LOG_LIMIT_BYTES: u64 = 16 << 20;

/// The open log. A write that fails is reported once and retried with the next snapshot.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    log: File,
    log_bytes: u64,
    limit_bytes: u64,
    is_broken: bool,
    /// Held for the life of the server: a second one must not write to the same files.
    _lock: File,
}

/// What a data directory held: the last revision and the objects.
pub(crate) type Loaded = (Disk, u64, Vec<(String, Key, Value)>);

impl Disk {
    /// Opens a data directory, making it when absent, and reads what it holds.
    pub(crate) fn open(dir: &Path) -> Result<Loaded, StartError> {
        let wrap = |path: &Path| {
            let path = path.to_owned();
            move |source| StartError::DataDir { path, source }
        };
        fs::create_dir_all(dir).map_err(wrap(dir))?;
        let lock_path = dir.join("lock");
        let lock = OpenOptions::new().create(true).append(true).open(&lock_path).map_err(wrap(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StartError::DataDirBusy { path: dir.to_owned() }),
            Err(fs::TryLockError::Error(source)) => return Err(wrap(&lock_path)(source)),
        }

        let (mut revision, mut objects) = (1, BTreeMap::new());
        let snapshot = dir.join("snapshot.jsonl");
        if snapshot.exists() {
            let whole = replay(&snapshot, &mut revision, &mut objects).map_err(wrap(&snapshot))?;
            if !whole {
                // A snapshot is renamed into place when complete, so a bad line is damage, not a crash.
                let reason = format!("it ends in a broken line after revision {revision}");
                return Err(StartError::Snapshot { path: snapshot, reason });
            }
        }
        let log_path = dir.join("log.jsonl");
        if log_path.exists() && !replay(&log_path, &mut revision, &mut objects).map_err(wrap(&log_path))? {
            tracing::warn!(path = ?log_path, revision, "the log ends in a broken line; what follows it is dropped");
        }
        let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(wrap(&log_path))?;
        let mut disk = Self {
            dir: dir.to_owned(),
            log,
            log_bytes: 0,
            limit_bytes: LOG_LIMIT_BYTES,
            is_broken: false,
            _lock: lock,
        };
        let objects: Vec<(String, Key, Value)> = objects.into_iter().map(|((r, k), v)| (r, k, v)).collect();
        // Starting with a fresh snapshot gets rid of a broken tail before anything is appended to it.
        disk.try_snapshot(revision, objects.iter().map(|(r, k, v)| (r.as_str(), k, v))).map_err(wrap(dir))?;
        Ok((disk, revision, objects))
    }

    /// Whether the log has grown so long that a snapshot is due.
    pub(super) fn is_long(&self) -> bool {
        self.is_broken || self.log_bytes > self.limit_bytes
    }

    /// Records one write.
    pub(super) fn append(&mut self, revision: u64, resource: &str, key: &Key, value: Option<&Value>) {
        let mut line = line(revision, resource, key, value);
        line.push('\n');
        match self.log.write_all(line.as_bytes()) {
            Ok(()) => self.log_bytes += line.len() as u64,
            Err(error) => {
                if !self.is_broken {
                    tracing::error!(%error, dir = ?self.dir, "cannot write the log; state is kept in memory only until this works");
                }
                self.is_broken = true;
            }
        }
    }

    /// Writes everything into a new snapshot and empties the log.
    pub(super) fn snapshot<'a>(&mut self, revision: u64, objects: impl Iterator<Item = (&'a str, &'a Key, &'a Value)>) {
        match self.try_snapshot(revision, objects) {
            Ok(()) => self.limit_bytes = LOG_LIMIT_BYTES,
            Err(error) => {
                if !self.is_broken {
                    tracing::error!(%error, dir = ?self.dir, "cannot write a snapshot; the log goes on");
                }
                self.limit_bytes = self.log_bytes + LOG_LIMIT_BYTES;
            }
        }
    }

    fn try_snapshot<'a>(
        &mut self,
        revision: u64,
        objects: impl Iterator<Item = (&'a str, &'a Key, &'a Value)>,
    ) -> io::Result<()> {
        let fresh = self.dir.join("snapshot.new");
        let mut out = BufWriter::new(File::create(&fresh)?);
        // The first line keeps the revision even when there is no object.
        writeln!(out, "{}", line(revision, "", &Key::new("", ""), None))?;
        for (resource, key, value) in objects {
            writeln!(out, "{}", line(revision, resource, key, Some(value)))?;
        }
        out.into_inner().map_err(io::IntoInnerError::into_error)?;
        fs::rename(&fresh, self.dir.join("snapshot.jsonl"))?;
        self.log.set_len(0)?;
        self.log_bytes = 0;
        self.is_broken = false;
        Ok(())
    }
}

fn line(revision: u64, resource: &str, key: &Key, value: Option<&Value>) -> String {
    match value {
        // Written by hand around the object, to spare a copy of it.
        Some(value) => {
            format!("[{revision},{},{},{},{value}]", json!(resource), json!(key.namespace), json!(key.name))
        }
        None => json!([revision, resource, key.namespace, key.name, null]).to_string(),
    }
}

/// Applies a file's lines; false when it ended in a line that is not whole.
fn replay(path: &Path, revision: &mut u64, objects: &mut BTreeMap<(String, Key), Value>) -> io::Result<bool> {
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let parsed: Result<(u64, String, String, String, Value), _> = serde_json::from_slice(&line?);
        let Ok((at, resource, namespace, name, value)) = parsed else { return Ok(false) };
        *revision = at.max(*revision);
        let key = Key { namespace, name };
        if value.is_null() {
            objects.remove(&(resource, key));
        } else {
            objects.insert((resource, key), value);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn reopen(dir: &Path) -> Store {
        let (disk, revision, objects) = Disk::open(dir).unwrap();
        Store::on_disk(16, disk, revision, objects)
    }

    #[test]
    fn a_reopened_store_has_its_objects_and_its_revision() {
        let dir = tempfile::tempdir().unwrap();
        let store = reopen(dir.path());
        store.insert("a", Key::new("n", "x"), json!({"v": 1})).unwrap();
        let y = store.insert("a", Key::new("n", "y"), json!({"v": 2})).unwrap();
        store.remove("a", Key::new("n", "y"), crate::object::revision(&y), y.as_ref().clone()).unwrap();
        let revision = store.revision();
        drop(store);
        for _ in 0..2 {
            let store = reopen(dir.path());
            assert_eq!(store.revision(), revision);
            assert_eq!(store.get("a", "n", "x").unwrap()["v"], 1);
            assert!(store.get("a", "n", "y").is_none());
            assert!(store.since("a", revision - 1).is_err());
        }
    }

    #[test]
    fn a_log_with_a_torn_last_line_is_read_up_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = reopen(dir.path());
        store.insert("a", Key::new("n", "x"), json!({"v": 1})).unwrap();
        drop(store);
        let mut log = OpenOptions::new().append(true).open(dir.path().join("log.jsonl")).unwrap();
        log.write_all(b"[99,\"a\",\"n\",\"z\",{\"v\"").unwrap();
        drop(log);
        let store = reopen(dir.path());
        assert_eq!(store.list("a", None).0.len(), 1);
        store.insert("a", Key::new("n", "z"), json!({"v": 3})).unwrap();
        drop(store);
        assert_eq!(reopen(dir.path()).list("a", None).0.len(), 2);
    }

    #[test]
    fn a_second_server_on_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Disk::open(dir.path()).unwrap();
        assert!(matches!(Disk::open(dir.path()), Err(StartError::DataDirBusy { .. })));
    }

    #[test]
    fn a_damaged_snapshot_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("snapshot.jsonl"), "[1,\"\",\"\",\"\",null]\nnonsense\n").unwrap();
        assert!(matches!(Disk::open(dir.path()), Err(StartError::Snapshot { .. })));
    }
}
