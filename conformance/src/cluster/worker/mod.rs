//! Who sends and answers packets at a place: sockets in a pod's or a node's network namespace.
//!
//! What it shall do comes as a [`Request`], what came of it goes back as an [`Answer`]. On a lab the worker is in this
//! process and opens its sockets in another namespace ([`LocalHands`]); on any other cluster it is a process of its own
//! inside a pod, and the same values travel as lines of JSON over exec ([`RemoteHands`], [`serve`]).

mod ask;
mod echo;
mod flows;
mod icmp;
mod local;
mod remote;
mod socket;
mod sys;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

pub use flows::{Count, FlowSpec};
pub use local::LocalHands;
pub use remote::{RemoteHands, serve};

/// What a worker can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Request {
    /// Answer TCP and UDP at these addresses until the worker ends.
    Listen {
        /// Where.
        ips: Vec<IpAddr>,
        /// What answers are marked with.
        key: u8,
    },
    /// Ask others, several at once; answered in the order of the questions.
    Ask(Vec<Ask>),
    /// Begin flows, and answer when each of them was answered once.
    Start(Vec<FlowSpec>),
    /// End every flow.
    Stop,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Where it listens.
    Listening(Vec<Ends>),
    /// What came of each question.
    Asked(Vec<Result<Told, String>>),
    /// Every flow runs.
    Started,
    /// What came of each flow.
    Stopped(Vec<Count>),
}

/// Where one address is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// TCP.
    pub tcp: SocketAddr,
    /// UDP.
    pub udp: SocketAddr,
}

/// One question to another place. Nothing is asked twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Ask {
    /// A connection that carries `length` bytes there and back.
    Tcp {
        /// Whom.
        to: SocketAddr,
        /// The mark that the answer must have.
        key: u8,
        /// What the bytes are made of.
        seed: u64,
        /// How many.
        length: usize,
    },
    /// One datagram and its answer; larger ones than the path carries go as fragments.
    Udp {
        /// Whom.
        to: SocketAddr,
        /// The mark that the answer must have.
        key: u8,
        /// What the bytes are made of.
        seed: u64,
        /// Bytes of payload.
        length: usize,
    },
    /// An echo request.
    Ping {
        /// Whom.
        to: IpAddr,
        /// What the bytes are made of.
        seed: u64,
        /// Bytes of data.
        length: usize,
        /// Hops that it may make; the kernel's default if absent.
        hop_limit: Option<u8>,
    },
    /// One datagram that may not be cut.
    Whole {
        /// Whom.
        to: SocketAddr,
        /// The mark that the answer must have.
        key: u8,
        /// What the bytes are made of.
        seed: u64,
        /// Bytes of payload.
        length: usize,
    },
}

/// What came of a question that did not fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Told {
    /// The right answer.
    Answered,
    /// A router says that the hop limit was used up.
    TimeExceeded {
        /// The router.
        from: IpAddr,
    },
    /// The path carries packets of so many bytes at most.
    TooBig {
        /// As the kernel knows it after the attempt.
        mtu: u32,
    },
}

/// Somebody who does what is asked at one place. Blocks, and must not be called from within a runtime.
pub trait Hands: fmt::Debug + Send + Sync {
    /// Does it.
    ///
    /// # Errors
    /// Why it could not be tried, or why a flow could not begin.
    fn ask(&self, request: Request) -> Result<Answer, String>;
}

/// So many bytes that `seed` decides.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut sequence = super::random::Sequence::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(sequence.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What somebody with this key makes of a question, so that nobody's answer is taken for another's.
pub(crate) fn keyed(question: &[u8], key: u8) -> Vec<u8> {
    question.iter().map(|byte| byte ^ key).collect()
}
