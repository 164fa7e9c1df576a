//! The few system calls for which no safe wrapper exists.
#![expect(unsafe_code, reason = "fork, pidfd_open and two terminal ioctls have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::libc;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::unix::AsyncFd;

/// Shows that the process has one thread. Taken early: `/proc` may be that of other processes later.
#[derive(Debug)]
pub(crate) struct SingleThreaded(());

impl SingleThreaded {
    /// Counts the threads.
    ///
    /// # Errors
    /// `EBUSY` when there are several, and what reading `/proc` says.
    pub(crate) fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            _ => Err(io::Error::from_raw_os_error(libc::EBUSY)),
        }
    }

    /// Forks; `None` in the child.
    ///
    /// # Errors
    /// `EAGAIN` and `ENOMEM` as of fork.
    pub(crate) fn fork(&self) -> io::Result<Option<Pid>> {
        // SAFETY: the process had one thread when it was checked, and `launch`, which alone forks, starts none; so no
        // lock can be held by a thread that the child lacks.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Some(child)),
            ForkResult::Child => Ok(None),
        }
    }
}

/// A descriptor that becomes readable when the process ends.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(answer).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel just returned this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same, to be awaited.
pub(crate) fn pidfd_async(pid: i32) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = pidfd_open(pid)?;
    // SAFETY: the descriptor is owned by what is returned, so it stays open as long as it is registered.
    let registered = unsafe { AsyncFd::register(fd) };
    registered.map_err(Into::into)
}

/// Makes a terminal the controlling one of the calling session leader.
pub(crate) fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer, and the descriptor is borrowed for the call.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Tells a terminal its size.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
