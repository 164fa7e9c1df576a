//! The packet path as pure logic.
//!
//! Nothing here knows maps or helpers: a [`Packet`] hands out checked views of its bytes, [`Tables`] answers look-ups,
//! and the pipeline turns both into a [`Verdict`]. The same source is compiled into the kernel programs, into unit and
//! property tests and into simulations; IPv4 and IPv6 are one source, generic over [`Ip`](ip::Ip).
//!
//! Reading order: [`packet`] (access to bytes), [`tables`], [`ip`] (headers), [`pipeline`] (decisions), [`answer`]
//! (packets that are sent back), [`tunnel`] (packets inside packets).
#![cfg_attr(not(feature = "host"), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod answer;
pub mod checksum;
pub mod ip;
pub mod packet;
pub mod pipeline;
pub mod tables;
pub mod tunnel;
pub mod verdict;

#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod samples;

pub use packet::{Packet, View, ViewMut};
pub use tables::Tables;
pub use verdict::{Answer, IcmpError, Kind, Outcome, Peer, Verdict};

/// Length of an Ethernet header in bytes.
pub const ETH_LEN: usize = 14;
