//! Socket options of the path MTU that `nix` does not have. Sources: ip(7), ipv6(7).

#![expect(unsafe_code, reason = "setsockopt and getsockopt for options that nix does not wrap")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// Lets every packet leave whole: with "don't fragment" set, or, for IPv6, without a fragment header.
pub(super) fn never_fragment(socket: &impl AsFd, is_ipv4: bool) -> io::Result<()> {
    let (level, name, value) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
    };
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel reads exactly `length` bytes of `value`.
    let done = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel knows of the path of a connected socket, in bytes of IP packet.
pub(super) fn path_mtu(socket: &impl AsFd, is_ipv4: bool) -> io::Result<u32> {
    let (level, name) = if is_ipv4 { (libc::IPPROTO_IP, libc::IP_MTU) } else { (libc::IPPROTO_IPV6, libc::IPV6_MTU) };
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the kernel writes at most `length` bytes to `value`.
    let done = unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut length) };
    if done == 0 { u32::try_from(value).map_err(io::Error::other) } else { Err(io::Error::last_os_error()) }
}
