//! The one call that has no safe wrapper.
#![expect(unsafe_code, reason = "nix has no wrapper for getsockopt(SO_NETNS_COOKIE)")]

use std::{io, mem, os::fd::AsRawFd};

/// `SO_NETNS_COOKIE`, Linux `include/uapi/asm-generic/socket.h`. Kernel: 5.14.
const SO_NETNS_COOKIE: nix::libc::c_int = 71;

/// The cookie of the network namespace that a socket belongs to.
pub(crate) fn netns_cookie(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    // A u64's size fits every socklen_t.
    let mut length = mem::size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: both pointers are to live locals of the stated size, and the kernel writes at most `length` bytes.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
