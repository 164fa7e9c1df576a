//! The figures that runs yield: name, unit, which way is better, and how rounds are summed up.

use serde::Serialize;

/// A kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Payload that arrived, in Gbit/s.
    Throughput,
    /// CPU seconds of both ends and of ksoftirqd per GB (10^9 bytes) of payload that arrived.
    CpuPerGb,
    /// The same of the whole machine, whatever else it did.
    MachineCpuPerGb,
    /// Datagrams that arrived, in thousands per second.
    PacketRate,
    /// Datagrams that arrived, in thousands per CPU second of both ends and of ksoftirqd: what one core carries.
    PacketsPerCore,
    /// CPU microseconds of both ends and of ksoftirqd per datagram that arrived: the same, the other way round.
    CpuPerPacket,
    /// Share of datagrams that were sent and did not arrive, in percent.
    Loss,
    /// Median time of a request and its response, in microseconds.
    RoundTripP50,
    /// 99th percentile of it, in microseconds.
    RoundTripP99,
    /// Median time of CNI ADD, in milliseconds.
    AddP50,
    /// 99th percentile of it, in milliseconds.
    AddP99,
    /// The longest of all, in milliseconds.
    AddMax,
    /// Median time of CNI DEL, in milliseconds.
    DelP50,
    /// Pairs of allocate and release in one thread, in millions per second of CPU time.
    LeaseRate,
    /// Memory of an address that nobody leases, in bits.
    AddressMemory,
    /// Memory of a lease with its owner's names, in bytes.
    LeaseMemory,
    /// From the agent's exec to the answer that it is well, in milliseconds.
    AgentStart,
    /// Resident memory of the agent (`VmRSS`), in MB (10^6 bytes).
    AgentMemory,
    /// The agent's own share of it (private pages), in MB.
    AgentPrivateMemory,
    /// From the first node's object to the way to all of them in the kernel, in milliseconds; the API's time is in it.
    NodesJoin,
    /// The part of it after the API took the last object, in milliseconds.
    NodesLag,
    /// CPU time of the agent for it, in milliseconds.
    NodesJoinCpu,
    /// From the change of one node's pod CIDRs to the kernel's knowing, among all the others, in milliseconds.
    NodeChange,
    /// CPU time of the agent for it, in milliseconds.
    NodeChangeCpu,
    /// From the first node's deletion to the last way out of the kernel, in milliseconds.
    NodesLeave,
    /// What the agent's resident memory grew by, per node, in kB (10^3 bytes).
    AgentPerNode,
    /// What the prefix table grew by, per node, in bytes.
    TablePerNode,
}

/// How the figures of all rounds become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summed {
    /// The median of the rounds.
    Median,
    /// The largest of the rounds: a maximum is only one over everything.
    Largest,
}

impl Metric {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::CpuPerGb => "CPU",
            Self::MachineCpuPerGb => "CPU, machine",
            Self::PacketRate => "packets",
            Self::PacketsPerCore => "packets of a core",
            Self::CpuPerPacket => "CPU",
            Self::Loss => "lost",
            Self::RoundTripP50 => "p50",
            Self::RoundTripP99 => "p99",
            Self::AddP50 => "ADD p50",
            Self::AddP99 => "ADD p99",
            Self::AddMax => "ADD max",
            Self::DelP50 => "DEL p50",
            Self::LeaseRate => "pairs",
            Self::AddressMemory => "address",
            Self::LeaseMemory => "lease",
            Self::AgentStart => "start",
            Self::AgentMemory => "RSS",
            Self::AgentPrivateMemory => "private",
            Self::NodesJoin => "all known",
            Self::NodesLag => "after the last",
            Self::NodesJoinCpu => "CPU of all",
            Self::NodeChange => "a change",
            Self::NodeChangeCpu => "CPU of a change",
            Self::NodesLeave => "all gone",
            Self::AgentPerNode => "agent, a node",
            Self::TablePerNode => "prefix table, a node",
        }
    }

    /// Its unit in tables.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Throughput => "Gbit/s",
            Self::CpuPerGb | Self::MachineCpuPerGb => "s/GB",
            Self::PacketRate | Self::PacketsPerCore => "kpps",
            Self::CpuPerPacket | Self::RoundTripP50 | Self::RoundTripP99 => "us",
            Self::Loss => "%",
            Self::AddP50 | Self::AddP99 | Self::AddMax | Self::DelP50 | Self::AgentStart => "ms",
            Self::NodesJoin | Self::NodesLag | Self::NodesJoinCpu => "ms",
            Self::NodeChange | Self::NodeChangeCpu | Self::NodesLeave => "ms",
            Self::AgentPerNode => "kB",
            Self::LeaseRate => "M/s",
            Self::AddressMemory => "bit",
            Self::LeaseMemory | Self::TablePerNode => "byte",
            Self::AgentMemory | Self::AgentPrivateMemory => "MB",
        }
    }

    /// Whether more of it is better.
    #[must_use]
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Throughput | Self::PacketRate | Self::PacketsPerCore | Self::LeaseRate)
    }

    /// How rounds are summed up.
    #[must_use]
    pub const fn summed(self) -> Summed {
        // Memory that a first crowd needed is there for the next one, so later rounds grow by little.
        if matches!(self, Self::AddMax | Self::AgentPerNode) { Summed::Largest } else { Summed::Median }
    }

    /// Whether tables and the plot show it; the rest is in the JSON only.
    #[must_use]
    pub const fn is_shown(self) -> bool {
        !matches!(self, Self::MachineCpuPerGb | Self::CpuPerPacket | Self::Loss)
    }

    /// Whether contenders are compared by it: a share that is 0 for one of them has no ratio, and the largest of all is a
    /// single one, whose ratio would say nothing about the next.
    #[must_use]
    pub const fn is_compared(self) -> bool {
        !matches!(self, Self::Loss | Self::AddMax | Self::AgentPerNode)
    }
}

/// What one run yielded.
pub type Figures = Vec<(Metric, f64)>;
