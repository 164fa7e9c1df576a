//! The one switch that only an ioctl reaches: a device's TCP segmentation offload.
#![expect(unsafe_code, reason = "SIOCETHTOOL takes a pointer, and no crate at hand wraps it")]

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

use kinesin_netlink::NetNs;

/// `ETHTOOL_GTSO` and `ETHTOOL_STSO` (Linux include/uapi/linux/ethtool.h).
const GET: u32 = 0x1e;
const SET: u32 = 0x1f;
/// `SIOCETHTOOL` (Linux include/uapi/linux/sockios.h).
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Segmentation offload is off while this lives: the kernel cuts TCP's large buffers up before the device sees them.
#[derive(Debug)]
pub(super) struct SegmentationOff<'a> {
    netns: &'a NetNs,
    device: &'a str,
    was_on: bool,
}

impl<'a> SegmentationOff<'a> {
    /// Switches it off for a device.
    pub(super) fn on(netns: &'a NetNs, device: &'a str) -> io::Result<Self> {
        let was_on = call(netns, device, GET, 0)? != 0;
        call(netns, device, SET, 0)?;
        if call(netns, device, GET, 0)? != 0 {
            return Err(io::Error::other(format!("segmentation offload of {device} stays on")));
        }
        Ok(Self { netns, device, was_on })
    }
}

impl Drop for SegmentationOff<'_> {
    fn drop(&mut self) {
        if self.was_on {
            // A device that is gone has nothing to restore.
            let _ = call(self.netns, self.device, SET, 1);
        }
    }
}

fn call(netns: &NetNs, device: &str, command: u32, data: u32) -> io::Result<u32> {
    let inside = || {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("0.0.0.0", 0)))?;
        let mut value = Value { command, data };
        // SAFETY: `ifreq` is plain data for which all zeroes are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = device.as_bytes();
        // The last byte stays 0.
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{device:?} is too long for a device")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the kernel reads `request` and reads and writes `value`; both outlive the call and have its layout.
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
    };
    netns.run(inside).map_err(io::Error::other)?
}
