//! What happens to a node's devices, addresses, routes and filters, as its kernel tells whoever listens.

use std::{net::UdpSocket, os::fd::AsRawFd as _, time::Duration};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};

use crate::node::Node;

/// Groups of rtnetlink(7), Linux `include/uapi/linux/rtnetlink.h`: links, filters, addresses, routes and rules.
const GROUPS: u32 = 0x1 | 0x8 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;
/// `RTM_NEWTFILTER`.
pub(crate) const NEW_FILTER: u16 = 44;

/// A listener on a node.
pub(crate) struct Watch(UdpSocket);

impl Watch {
    /// Listens from when the node has come to rest: its kernel checks addresses for up to two seconds after a device is up.
    pub(crate) fn of(node: &Node) -> Self {
        let socket = node.run(|_| {
            let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), SockProtocol::NetlinkRoute);
            // The standard library's socket serves for its time-outs.
            let socket = UdpSocket::from(fd.expect("netlink socket"));
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).expect("groups");
            socket
        });
        let watch = Self(socket);
        for _ in 0..10 {
            if watch.heard_within(Duration::from_millis(2500)).is_empty() {
                return watch;
            }
        }
        panic!("the node does not come to rest");
    }

    /// Types of the messages up to now; the kernel sends one before the request that causes it is answered.
    pub(crate) fn heard(&self) -> Vec<u16> {
        self.heard_within(Duration::from_millis(20))
    }

    /// Types of the messages until there is none for as long as this.
    fn heard_within(&self, quiet: Duration) -> Vec<u16> {
        self.0.set_read_timeout(Some(quiet)).expect("timeout");
        let (mut types, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while let Ok(length) = self.0.recv(&mut buffer) {
            let mut rest = &buffer[..length];
            // Length and type start a header of 16 bytes; messages are aligned to 4 (netlink(7)).
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                types.push(u16::from_ne_bytes([rest[4], rest[5]]));
                rest = rest.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
            }
        }
        types
    }
}
