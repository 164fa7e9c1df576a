//! What shall become of a packet.

use kinesin_abi::{Address, DropReason, Mark, Stage};

/// A verdict as the pipeline writes it: every field always has a value.
///
/// The pipeline does not return [`Verdict`] itself, because the payload of an enum is undefined where another variant
/// is meant, the compiler copies it all the same, and the verifier refuses to read what was never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Which verdict.
    pub kind: Kind,
    /// Its number: mark, device index, stage, reason, MTU, or for `Carry` a hash of the flow.
    pub value: u32,
    /// For `Carry` the next node, for `Decapsulate` the last one.
    pub peer: Peer,
    /// Whether the packet tells of the way to another node, which [`learn`](crate::tunnel::told::learn) judges. It has its
    /// verdict all the same.
    pub is_told: bool,
}

/// The verdicts without what belongs to them.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Verdict::Pass`].
    Pass,
    /// [`Verdict::ToStack`].
    ToStack,
    /// [`Verdict::Deliver`].
    Deliver,
    /// [`Verdict::ToHost`].
    ToHost,
    /// [`Verdict::Carry`].
    Carry,
    /// [`Verdict::Decapsulate`].
    Decapsulate,
    /// [`Answer::Arp`].
    Arp,
    /// [`Answer::Neighbour`].
    Neighbour,
    /// [`IcmpError::TimeExceeded`].
    TimeExceeded,
    /// [`IcmpError::HostUnreachable`].
    HostUnreachable,
    /// [`IcmpError::TooBig`].
    TooBig,
    /// [`Verdict::Absorb`].
    Absorb,
    /// [`Verdict::Slot`].
    Slot,
    /// [`Verdict::Drop`].
    Drop,
}

/// The pipeline has written its outcome and ends.
#[derive(Debug, Clone, Copy)]
pub struct Stop;

impl Outcome {
    /// The outcome before anything was decided.
    #[inline(always)]
    #[must_use]
    pub fn new() -> Self {
        Self {
            kind: Kind::Pass,
            value: 0,
            peer: Peer { node: [0; 4], family: 0, carrier: 0, identity: 0, routed: false },
            is_told: false,
        }
    }

    /// Ends with a verdict.
    #[inline(always)]
    pub fn stop(&mut self, kind: Kind, value: u32) -> Stop {
        self.kind = kind;
        self.value = value;
        Stop
    }

    /// Ends with a drop.
    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) -> Stop {
        self.stop(Kind::Drop, reason as u32)
    }

    /// The outcome in words.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            Kind::Pass => Verdict::Pass,
            Kind::ToStack => Verdict::ToStack(Mark(self.value)),
            Kind::Deliver => Verdict::Deliver { ifindex: self.value },
            Kind::ToHost => Verdict::ToHost(Mark(self.value)),
            Kind::Carry => Verdict::Carry(self.peer),
            Kind::Decapsulate => Verdict::Decapsulate(self.peer),
            Kind::Arp => Verdict::Answer(Answer::Arp),
            Kind::Neighbour => Verdict::Answer(Answer::Neighbour),
            Kind::TimeExceeded => Verdict::Answer(Answer::Icmp(IcmpError::TimeExceeded)),
            Kind::HostUnreachable => Verdict::Answer(Answer::Icmp(IcmpError::HostUnreachable)),
            Kind::TooBig => Verdict::Answer(Answer::Icmp(IcmpError::TooBig(self.value))),
            Kind::Absorb => Verdict::Absorb,
            Kind::Slot => Verdict::Slot(Stage::from_number(self.value).unwrap_or(Stage::Lb)),
            // Lossless: `drop` wrote a reason.
            Kind::Drop => Verdict::Drop(DropReason::from_number(self.value as u8).unwrap_or(DropReason::Slot)),
        }
    }
}

impl Default for Outcome {
    fn default() -> Self {
        Self::new()
    }
}

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
    /// Out of a tunnel into the node's own stack by way of `cilium_host`, with a mark; the Ethernet header is done.
    ToHost(Mark),
    /// To a peer over the network; the TTL is done, an encapsulation is not yet.
    Carry(Peer),
    /// A tunnel's packet from this peer for this node: to be taken out of its encapsulation, and judged again.
    Decapsulate(Peer),
    /// Turn it into an answer and send it back where it came from.
    Answer(Answer),
    /// The link's own signalling, which has been heard and goes nowhere. No drop: nobody misses it.
    Absorb,
    /// A slot program has it next.
    Slot(Stage),
    /// Drop and count.
    Drop(DropReason),
}

/// The node that a packet goes to or comes from.
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
    /// Whether the node's routing tables know the way; otherwise `node` is a neighbour on the uplink.
    pub routed: bool,
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
