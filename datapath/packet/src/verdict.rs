//! What shall become of a packet.

use kinesin_abi::{Address, DropReason, Mark, Stage};

/// What shall become of a packet.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// None of ours: whoever comes next may have it.
    Pass,
    /// To the node's own stack, with a mark.
    ToStack(Mark),
    /// Into the endpoint behind this device; Ethernet header and TTL are done.
    Deliver {
        /// Index of the host end.
        ifindex: u32,
    },
    /// To a peer over the network; the TTL is done.
    Carry(Peer),
    /// Turn it into an answer and send it back where it came from.
    Answer(Answer),
    /// A slot program has it next.
    Slot(Stage),
    /// Drop and count.
    Drop(DropReason),
}

/// The next node of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Underlay address.
    pub node: Address,
    /// Family of `node`.
    pub family: u8,
    /// See `kinesin_abi::carrier`.
    pub carrier: u8,
    /// Security identity of the packet's source.
    pub identity: u32,
}

/// An answer that the pipeline gives itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// ARP reply: the host end's address for whatever was asked (RFC 826).
    Arp,
    /// Neighbour advertisement (RFC 4861 section 4.4).
    Neighbour,
    /// An error message about the packet.
    Icmp(IcmpError),
}

/// Errors that a router owes the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// RFC 792 type 11 code 0; RFC 4443 section 3.3.
    TimeExceeded,
    /// RFC 792 type 3 code 1; RFC 4443 section 3.1 code 3.
    HostUnreachable,
    /// RFC 1191 section 4; RFC 4443 section 3.2. The MTU in bytes.
    TooBig(u32),
}
