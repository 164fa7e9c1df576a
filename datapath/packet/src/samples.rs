//! The table of packets: description, entry point, bytes, verdict, and what must be so in the bytes that come out.
//!
//! It has two runners: the pure pipeline (`tests/table.rs`) and the compiled programs in the kernel
//! (`backends/ebpf-tc/tests/test_run`). They must come to the same verdict and the same bytes.

mod checks;
mod elsewhere;
mod errors;
mod link;
pub mod node;
pub mod packets;
mod pods;
mod told;
mod tunnels_in;
mod tunnels_out;

use std::vec::Vec;

use kinesin_abi::{DropReason, EndpointKey, Entry, IpcacheKey, carrier};

use self::node::POD_IDENTITY;
use crate::{
    Answer, IcmpError, Peer, Verdict,
    host::{Buffer, table_address},
};

const A4: &str = "10.244.1.10";
const B4: &str = "10.244.1.11";
const A6: &str = "fd00:10:244:1::a";
const B6: &str = "fd00:10:244:1::b";
const REMOTE4: &str = "10.244.2.5";
const REMOTE6: &str = "fd00:10:244:2::5";

/// Judges the bytes that went in and those that came out; panics with what is wrong.
pub type Check = fn(&[u8], &[u8]);

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// Where it meets the pipeline.
    pub entry: Entry,
    /// The packet.
    pub packet: Buffer,
    /// What the pipeline must say.
    pub verdict: Verdict,
    /// Judges input and output.
    pub bytes: Option<Check>,
    /// Whether the cost of this row is worth knowing.
    pub measured: bool,
    /// What is learned from it of the way to another node.
    pub learned: Option<Learned>,
}

/// What is learned of a way: an address in the prefix that it leads to, the node, and the MTU in bytes.
pub type Learned = (&'static str, &'static str, u16);

impl Row {
    fn check(mut self, check: Check) -> Self {
        self.bytes = Some(check);
        self
    }

    fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    fn marked(mut self, mark: u32) -> Self {
        self.packet.mark = mark;
        self
    }

    fn learns(mut self, prefix: &'static str, node: &'static str, mtu_bytes: u16) -> Self {
        self.learned = Some((prefix, node, mtu_bytes));
        self
    }

    fn segmented(mut self, size: usize) -> Self {
        self.packet.segment_size = size;
        self
    }
}

fn row(name: &'static str, entry: Entry, bytes: Vec<u8>, verdict: Verdict) -> Row {
    Row { name, entry, packet: Buffer::new(bytes), verdict, bytes: None, measured: false, learned: None }
}

fn out(name: &'static str, bytes: Vec<u8>, verdict: Verdict) -> Row {
    row(name, Entry::FromContainer, bytes, verdict)
}

fn dropped(name: &'static str, bytes: Vec<u8>, reason: DropReason) -> Row {
    out(name, bytes, Verdict::Drop(reason))
}

fn carried(node: &str, family: u8) -> Verdict {
    let (node, _) = table_address(node.parse().unwrap());
    Verdict::Carry(Peer { node, family, carrier: carrier::NATIVE, identity: POD_IDENTITY, routed: false })
}

/// By the routing tables.
fn routed(node: &str, family: u8) -> Verdict {
    let (node, _) = table_address(node.parse().unwrap());
    Verdict::Carry(Peer { node, family, carrier: carrier::NATIVE, identity: POD_IDENTITY, routed: true })
}

/// A packet in from the network, addressed to the device that it is on.
fn incoming(name: &'static str, mut bytes: Vec<u8>, verdict: Verdict) -> Row {
    bytes[..6].fill(0);
    row(name, Entry::FromNetdev, bytes, verdict)
}

fn error(error: IcmpError) -> Verdict {
    Verdict::Answer(Answer::Icmp(error))
}

impl Row {
    /// What is learned from it as [`Tables::learn`](crate::Tables::learn) gets it.
    #[must_use]
    pub fn learned(&self) -> Vec<(IpcacheKey, EndpointKey, u16)> {
        let address = |text: &str| table_address(text.parse().unwrap());
        let learned = self.learned.map(|(prefix, node, mtu_bytes)| {
            let ((prefix, of_prefix), (addr, family)) = (address(prefix), address(node));
            let prefix = IpcacheKey { family: [of_prefix, 0, 0, 0], addr: prefix };
            (prefix, EndpointKey { addr, family, pad: [0; 3] }, mtu_bytes)
        });
        learned.into_iter().collect()
    }
}

/// Every row.
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = pods::pod_to_pod();
    rows.extend(pods::own_address());
    rows.extend(pods::tunnel_ports());
    rows.extend(link::neighbours());
    rows.extend(link::groups());
    rows.extend(errors::errors());
    rows.extend(elsewhere::elsewhere());
    rows.extend(tunnels_out::out_of_pods());
    rows.extend(tunnels_out::by_narrow_ways());
    rows.extend(tunnels_out::out_of_the_stack());
    rows.extend(told::believed());
    rows.extend(told::not_believed());
    rows.extend(tunnels_in::accepted());
    rows.extend(tunnels_in::answered());
    rows.extend(tunnels_in::congestion());
    rows.extend(tunnels_in::refused_outside());
    rows.extend(tunnels_in::refused_inside());
    rows
}
