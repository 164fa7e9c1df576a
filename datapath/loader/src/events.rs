//! Records that programs send to user space.

use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::LoaderError;

/// The reading end of a pinned ring buffer.
///
/// What one reader has taken no other gets, so there is one reader per ring. While nobody reads, a full ring loses what
/// is newest; counters do not.
pub struct EventRing {
    path: PathBuf,
    ring: RingBuf<MapData>,
}

impl EventRing {
    /// Opens the ring buffer at `path`.
    ///
    /// # Errors
    /// `Map` when nothing is pinned there, or no ring buffer.
    pub fn open(path: &Path) -> Result<Self, LoaderError> {
        let failed =
            |source: MapError| LoaderError::Map { action: format!("read events of {}", path.display()), source };
        let data = MapData::from_pin(path).map_err(failed)?;
        let map = Map::from_map_data(data).map_err(failed)?;
        Ok(Self { path: path.to_owned(), ring: RingBuf::try_from(map).map_err(failed)? })
    }

    /// Hands every record that is there to `each`; the answer is how many there were.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while let Some(record) = self.ring.next() {
            each(&record);
            count += 1;
        }
        count
    }

    /// Waits until there is something to read, at most for `timeout`; the answer tells whether there is.
    ///
    /// # Errors
    /// `Pin` when the descriptor cannot be watched.
    pub fn wait(&self, timeout: Duration) -> Result<bool, LoaderError> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(LoaderError::Pin { action: "watch", path: self.path.clone(), source: error.into() }),
        }
    }
}

impl fmt::Debug for EventRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventRing").field("path", &self.path).finish_non_exhaustive()
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
