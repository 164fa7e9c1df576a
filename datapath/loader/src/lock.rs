//! One owner per datapath.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process,
};

use crate::LoaderError;

/// Held as long as this value lives; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct OwnerLock {
    _file: File,
}

impl OwnerLock {
    /// Takes the lock at `path` and writes this process's number into it.
    ///
    /// # Errors
    /// `Locked` with the holder's number; `Pin` when the file cannot be opened.
    pub fn acquire(path: &Path) -> Result<Self, LoaderError> {
        let failed = |source| LoaderError::Pin { action: "lock", path: PathBuf::from(path), source };
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The number is for the message only.
                let _ = file.read_to_string(&mut text);
                return Err(LoaderError::Locked { path: path.to_owned(), pid: text.trim().parse().unwrap_or(0) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A full disk keeps the number from being written, not the lock from being held.
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", process::id()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the lock holds, but its owner's number is not in it");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_owner_is_told_who_the_first_is() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("lock");
        let held = OwnerLock::acquire(&path).expect("first");
        let error = OwnerLock::acquire(&path).map(drop).expect_err("second");
        assert!(matches!(error, LoaderError::Locked { pid, .. } if pid == process::id()), "{error}");
        drop(held);
        OwnerLock::acquire(&path).map(drop).expect("after the first has gone");
    }
}
