//! Network namespaces: made, opened, entered by a thread, kept under a path.

use std::{
    fs::{self, File},
    io,
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use crate::{NetlinkError, sys};

/// An open network namespace; it lives at least as long as this value.
#[derive(Debug)]
pub struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    /// Opens the namespace at `path`, such as `/run/netns/NAME` or `/proc/PID/ns/net`; whatever else is there, it does not
    /// wait for it.
    ///
    /// # Errors
    /// `Namespace` with the path when it does not exist or is no network namespace.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, NetlinkError> {
        let path = path.as_ref();
        let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
        let file = file.map_err(|source| failed("open network namespace", path, source))?;
        let namespace = Self { file, path: path.to_owned() };
        // A plain file opens as well; entering it is what tells the difference.
        namespace.run(|| ())?;
        Ok(namespace)
    }

    /// The calling thread's namespace.
    ///
    /// # Errors
    /// `Namespace` when `/proc` is not mounted.
    pub fn current() -> Result<Self, NetlinkError> {
        let path = Path::new("/proc/thread-self/ns/net");
        let file = File::open(path).map_err(|source| failed("open network namespace", path, source))?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Makes a namespace without a name; it ends with its last process, socket and open file.
    ///
    /// # Errors
    /// `Namespace` without the privilege to make one.
    pub fn anonymous() -> Result<Self, NetlinkError> {
        let path = PathBuf::from("a new network namespace");
        let made = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        });
        let file = made.map_err(|source| failed("make", &path, source))?;
        Ok(Self { file, path })
    }

    /// Makes a namespace and keeps it under `path`, which must not exist yet.
    ///
    /// # Errors
    /// `Namespace` when the file exists or cannot be mounted over.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, NetlinkError> {
        let path = path.as_ref().to_owned();
        File::create_new(&path).map_err(|source| failed("make network namespace", &path, source))?;
        let target = path.clone();
        let made = in_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let source = Path::new("/proc/thread-self/ns/net");
            mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            File::open(source)
        });
        match made {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => {
                // The empty file would keep the next attempt from succeeding; its own removal has no better error.
                let _ = fs::remove_file(&path);
                Err(failed("make network namespace", &path, source))
            }
        }
    }

    /// Removes what `create` left under `path`; a missing file is fine.
    ///
    /// # Errors
    /// `Namespace` when the file cannot be unmounted or removed.
    pub fn remove(path: impl AsRef<Path>) -> Result<(), NetlinkError> {
        let path = path.as_ref();
        match umount2(path, MntFlags::MNT_DETACH) {
            // EINVAL: the file is there, but nothing is mounted on it (an interrupted `create`).
            Ok(()) | Err(nix::errno::Errno::ENOENT | nix::errno::Errno::EINVAL) => {}
            Err(error) => return Err(failed("unmount network namespace", path, error.into())),
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove network namespace", path, error))
            }
            _ => Ok(()),
        }
    }

    /// The path it was opened or made by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a thread of its own that has entered this namespace.
    ///
    /// Sockets opened by `work` stay in the namespace when they are handed out.
    ///
    /// # Errors
    /// `Namespace` when it cannot be entered or `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetlinkError> {
        in_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
        .map_err(|source| failed("enter network namespace", &self.path, source))
    }

    /// The namespace's cookie, as programs see it by `bpf_get_netns_cookie`. Kernel: 5.14.
    ///
    /// # Errors
    /// `Namespace` when it cannot be entered or the kernel does not tell.
    pub fn cookie(&self) -> Result<u64, NetlinkError> {
        self.run(|| UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| sys::netns_cookie(&socket)))?
            .map_err(|source| failed("read the cookie of network namespace", &self.path, source))
    }

    /// A number that is equal for equal namespaces: the inode of the namespace file.
    ///
    /// # Errors
    /// `Namespace` when the file's metadata cannot be read.
    pub fn id(&self) -> Result<u64, NetlinkError> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.metadata();
        metadata.map(|found| found.ino()).map_err(|source| failed("identify network namespace", &self.path, source))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn failed(action: &str, path: &Path, source: io::Error) -> NetlinkError {
    NetlinkError::Namespace { action: format!("{action} {}", path.display()), source }
}

/// Runs `work` in a thread that ends with it, since a thread cannot be trusted to find its way back.
fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
