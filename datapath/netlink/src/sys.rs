//! The calls that have no safe wrapper.
#![expect(unsafe_code, reason = "nix has no wrapper for getsockopt(SO_NETNS_COOKIE) and ioctl(SIOCETHTOOL)")]

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

/// `SIOCETHTOOL`, Linux `include/uapi/linux/sockios.h`.
const SIOCETHTOOL: nix::libc::c_ulong = 0x8946;

/// An ethtool command on a device; `words` hold the command's struct and get the kernel's answer.
///
/// The struct must say itself how long it is, and `words` be that long: the first word is the command.
pub(crate) fn ethtool(socket: &impl AsRawFd, device: &str, words: &mut [u32]) -> io::Result<()> {
    let mut name = [0; nix::libc::IFNAMSIZ];
    // The last byte stays 0.
    if device.len() >= name.len() || device.as_bytes().contains(&0) {
        return Err(io::Error::from_raw_os_error(nix::libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from as nix::libc::c_char;
    }
    let data = nix::libc::__c_anonymous_ifr_ifru { ifru_data: words.as_mut_ptr().cast() };
    let mut request = nix::libc::ifreq { ifr_name: name, ifr_ifru: data };
    // SAFETY: `request` is a live ifreq whose name ends in 0, and its data is a live buffer as long as its content says.
    let result = unsafe { nix::libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    // SET_FEATURES answers with flags, which are positive.
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
