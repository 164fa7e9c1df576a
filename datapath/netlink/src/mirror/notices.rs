//! A socket of announcements that is emptied without waiting.

use std::{collections::VecDeque, io, os::fd::AsFd as _};

use netlink_packet_route::RouteNetlinkMessage;
use nix::{
    libc::MSG_TRUNC,
    sys::socket::{setsockopt, sockopt},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkBuffer, NetlinkMessage},
    sys::{Socket, protocols::NETLINK_ROUTE},
};

use crate::NetlinkError;

/// Kinds of announcements that are asked for (rtnetlink(7)).
const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Nexthop,
];
/// The longest announcement that is understood; one of a device with many virtual functions may be longer.
const LONGEST: usize = 32 << 10;
/// Announcements that are read in one go; another program that makes routes faster than they are read shall not keep us.
const MOST: usize = 1 << 16;
/// Start of the next message in a datagram (`NLMSG_ALIGNTO`).
const ALIGN: usize = 4;

/// One thing that the socket had.
#[derive(Debug)]
pub(super) enum Notice {
    Told(NetlinkMessage<RouteNetlinkMessage>),
    /// There was more than the socket could hold, or something that could not be read.
    Missed,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Notices {
    socket: Socket,
    buffer: Vec<u8>,
    /// Rest of the last datagram.
    rest: VecDeque<Notice>,
    /// Announcements since the socket was last empty.
    in_a_row: usize,
}

impl Notices {
    pub(super) fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        let opened = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            // Above the limit for everybody, which holds some two hundred; whoever may not do that has that limit.
            if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &buffer_bytes).is_err() {
                setsockopt(&socket.as_fd(), sockopt::RcvBuf, &buffer_bytes)?;
            }
            for group in GROUPS {
                socket.add_membership(group as u32)?;
            }
            Ok(socket)
        };
        let socket = opened().map_err(|error| broken(&error))?;
        Ok(Self { socket, buffer: Vec::with_capacity(LONGEST), rest: VecDeque::new(), in_a_row: 0 })
    }

    /// The next one, or nothing when everything that has happened was told.
    pub(super) fn next(&mut self) -> Result<Option<Notice>, NetlinkError> {
        loop {
            if let Some(notice) = self.rest.pop_front() {
                self.in_a_row += 1;
                return Ok(Some(notice));
            }
            if self.in_a_row >= MOST {
                self.in_a_row = 0;
                // Whoever reads everything needs none of what is still there.
                self.discard();
                return Ok(Some(Notice::Missed));
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => return Ok(Some(Notice::Missed)),
                Ok(_) => self.rest.extend(messages(&self.buffer)),
                Err(error) => match error.raw_os_error() {
                    Some(nix::libc::ENOBUFS) => return Ok(Some(Notice::Missed)),
                    Some(nix::libc::EAGAIN) => {
                        self.in_a_row = 0;
                        return Ok(None);
                    }
                    Some(nix::libc::EINTR) => {}
                    _ => return Err(broken(&error)),
                },
            }
        }
    }

    /// Drops some of what is there.
    fn discard(&mut self) {
        for _ in 0..MOST {
            self.buffer.clear();
            let emptied = self.socket.recv(&mut self.buffer, 0);
            if emptied.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return;
            }
        }
    }
}

/// The messages of a datagram.
fn messages(mut bytes: &[u8]) -> Vec<Notice> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = NetlinkBuffer::new_checked(bytes).map_or(bytes.len(), |message| message.length() as usize);
        let (message, _) = bytes.split_at(length.clamp(1, bytes.len()));
        found.push(NetlinkMessage::deserialize(message).map_or(Notice::Missed, Notice::Told));
        bytes = bytes.get(length.max(1).next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    found
}

fn broken(error: &io::Error) -> NetlinkError {
    NetlinkError::Socket { action: "follow devices, addresses and routes".to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_counts_as_missed_and_ends() {
        for bytes in [&[0_u8; 3][..], &[0; 16], &[0xff; 64], &[1; 20]] {
            let found = messages(bytes);
            assert!(!found.is_empty() && found.len() <= bytes.len(), "{bytes:?}: {found:?}");
        }
        assert!(messages(&[]).is_empty());
    }
}
