//! The one call that has no safe wrapper.
#![expect(unsafe_code, reason = "nix cannot make a link-layer address")]

use std::{io, mem, os::fd::AsRawFd};

use nix::libc;

/// Binds a packet socket to a device, so that what is sent on it leaves there.
pub(crate) fn bind_to_device(socket: &impl AsRawFd, ifindex: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a live local of the stated size.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
