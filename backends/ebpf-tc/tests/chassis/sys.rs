//! The calls that have no safe wrapper.
#![expect(unsafe_code, reason = "nix cannot make a link-layer address, nor a tun device")]

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

/// `TUNSETIFF`, `IFF_TUN` and `IFF_NO_PI`, Linux `include/uapi/linux/if_tun.h`.
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const TUN: libc::c_short = 0x0001;
const NO_PACKET_INFO: libc::c_short = 0x1000;

/// Makes a tun device of this name in the calling thread's namespace, of an opened `/dev/net/tun`, which then holds what
/// leaves by it.
pub(crate) fn make_tun(file: &impl AsRawFd, name: &str) -> io::Result<()> {
    let mut bytes = [0; libc::IFNAMSIZ];
    for (to, from) in bytes[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::__c_anonymous_ifr_ifru { ifru_flags: TUN | NO_PACKET_INFO };
    let mut request = libc::ifreq { ifr_name: bytes, ifr_ifru: flags };
    // SAFETY: `request` is a live ifreq whose name ends in 0.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE as _, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
