//! One command at a time on one lab.

use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};

use crate::{
    LabError,
    layout::{Layout, make_dir},
};

/// How long another command may take to finish; a check of a running lab is done by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Held by whoever changes a lab; the kernel frees it with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
    path: PathBuf,
}

impl Lock {
    pub(crate) fn take(layout: &Layout, name: &str) -> Result<Self, LabError> {
        let path = layout.lock();
        let io = |source| LabError::io(format!("lock {}", path.display()))(source);
        let until = Instant::now() + PATIENCE;
        loop {
            let file = match File::options().create(true).truncate(false).write(true).open(&path) {
                // The last `down` of another lab has just removed the directory.
                Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < until => {
                    make_dir(layout.base())?;
                    continue;
                }
                opened => opened.map_err(io)?,
            };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // `down` removes the file while it holds it: whoever got that one has locked nothing.
                Ok(file) => match (file.metadata(), fs::metadata(&path)) {
                    (Ok(own), Ok(there)) if own.ino() == there.ino() => return Ok(Self { _file: file, path }),
                    _ => {}
                },
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    if Instant::now() >= until {
                        return Err(LabError::Busy { name: name.to_owned() });
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                Err((_, error)) => return Err(io(std::io::Error::from(error))),
            }
        }
    }

    /// Frees it and leaves no file behind.
    pub(crate) fn remove(self) {
        // A file that stays is found and locked again by the next command.
        let _ = fs::remove_file(&self.path);
    }
}
