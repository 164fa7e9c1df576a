//! What can be measured, and between whom.

use std::fmt;

use serde::Serialize;

/// Who is compared, and with whom: [`Contender::rivals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// Two nodes of a lab with the real agent and CNI plugin, and native routing between them.
    Kinesin,
    /// The same with VXLAN between the nodes.
    KinesinVxlan,
    /// The same with VXLAN through the kernel's own device (`tunnel.path: device`).
    KinesinVxlanDevice,
    /// The same with Geneve.
    KinesinGeneve,
    /// Two namespaces and a veth pair: the floor, with nothing in between.
    Veth,
    /// Routes and the kernel's forwarding, as set up by hand.
    Routing,
    /// The reference plugins `bridge` and `host-local`, with routes between the nodes.
    Bridge,
    /// The same plugins, and between the nodes the kernel's VXLAN device as flannel sets it up.
    Flannel,
}

impl Contender {
    /// All of them, Kinesin first.
    pub const ALL: [Self; 8] = [
        Self::Kinesin,
        Self::KinesinVxlan,
        Self::KinesinVxlanDevice,
        Self::KinesinGeneve,
        Self::Veth,
        Self::Routing,
        Self::Bridge,
        Self::Flannel,
    ];
    /// Those that carry packets between nodes as they are.
    pub const DIRECT: [Self; 4] = [Self::Kinesin, Self::Veth, Self::Routing, Self::Bridge];
    /// Those that wrap them.
    pub const TUNNELS: [Self; 4] = [Self::KinesinVxlan, Self::KinesinVxlanDevice, Self::KinesinGeneve, Self::Flannel];
    /// Kinesin in its routing modes.
    pub const OURS: [Self; 4] = [Self::Kinesin, Self::KinesinVxlan, Self::KinesinVxlanDevice, Self::KinesinGeneve];

    /// With whom one of ours is compared: what a user would pick instead of it. Nobody for the others.
    ///
    /// A tunnel adds bytes and work wherever it is, so tunnels are compared with tunnels. Geneve's header is as long as
    /// VXLAN's while it has no option, so it has no excuse either.
    #[must_use]
    pub const fn rivals(self) -> &'static [Self] {
        match self {
            Self::Kinesin => &[Self::Veth, Self::Routing, Self::Bridge],
            Self::KinesinVxlan => &[Self::Flannel, Self::KinesinVxlanDevice],
            Self::KinesinGeneve => &[Self::KinesinVxlan, Self::Flannel],
            // It is there for the comparison of its sibling with it.
            Self::KinesinVxlanDevice | Self::Veth | Self::Routing | Self::Bridge | Self::Flannel => &[],
        }
    }

    /// Its name on the command line and in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kinesin => "kinesin",
            Self::KinesinVxlan => "kinesin-vxlan",
            Self::KinesinVxlanDevice => "kinesin-vxlan-device",
            Self::KinesinGeneve => "kinesin-geneve",
            Self::Veth => "veth",
            Self::Routing => "routing",
            Self::Bridge => "bridge",
            Self::Flannel => "flannel",
        }
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the two pods are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Both on one node.
    SameNode,
    /// On two nodes of one segment. A bare veth pair has no nodes: it is the same floor here.
    OtherNode,
}

/// Address family of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// One TCP connection, as fast as it goes, with the segmentation offload of the devices.
    TcpStream,
    /// The same with a maximum segment of 536 bytes, segmented before the pod's device: every segment is a packet.
    TcpSegmented,
    /// Datagrams of 64 bytes of payload, one system call each.
    Udp64,
    /// One byte to and fro over one TCP connection.
    TcpRr,
    /// One byte to and fro in datagrams.
    UdpRr,
    /// As [`Self::TcpRr`] with both ends on one CPU: what the way itself costs. On two CPUs each byte wakes a CPU that waits,
    /// and on a virtual machine that takes several times as long as the way.
    TcpRrOneCpu,
}

impl Load {
    const ALL: [Self; 6] =
        [Self::TcpStream, Self::TcpSegmented, Self::Udp64, Self::TcpRr, Self::UdpRr, Self::TcpRrOneCpu];

    const fn name(self) -> &'static str {
        match self {
            Self::TcpStream => "tcp-stream",
            Self::TcpSegmented => "tcp-segmented",
            Self::Udp64 => "udp-64",
            Self::TcpRr => "tcp-rr",
            Self::UdpRr => "udp-rr",
            Self::TcpRrOneCpu => "tcp-rr-one-cpu",
        }
    }
}

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Traffic from pod to pod.
    Traffic {
        /// Where the pods are.
        scope: Scope,
        /// What they send.
        load: Load,
        /// Over which family.
        family: Family,
    },
    /// CNI ADD and DEL, so many at once.
    Add {
        /// 1, or how many pods a node starts together.
        parallel: usize,
    },
    /// Leases in one process, with so many percent of a /16 in use.
    Ipam {
        /// 0 to 99.
        used: u8,
    },
    /// The agent's start and memory.
    Agent,
    /// So many nodes join at once, some change, and all leave.
    Nodes {
        /// How many.
        count: usize,
    },
    /// What the kernel programs cost, in the kernel's test run.
    Programs,
}

impl Case {
    /// Every case.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            for scope in [Scope::SameNode, Scope::OtherNode] {
                all.extend(Load::ALL.map(|load| Self::Traffic { scope, load, family }));
            }
        }
        all.extend([Self::Add { parallel: 1 }, Self::Add { parallel: 100 }]);
        all.extend([0, 50, 99].map(|used| Self::Ipam { used }));
        all.extend([Self::Agent, Self::Nodes { count: 1000 }, Self::Programs]);
        all
    }

    /// Its name on the command line and in tables.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Traffic { scope, load, family } => {
                let scope = match scope {
                    Scope::SameNode => "same-node",
                    Scope::OtherNode => "other-node",
                };
                let family = if family == Family::V6 { "-v6" } else { "" };
                format!("{scope}/{}{family}", load.name())
            }
            Self::Add { parallel } => format!("add/{parallel}"),
            Self::Ipam { used } => format!("ipam/{used}"),
            Self::Agent => "agent".to_owned(),
            Self::Nodes { count } => format!("nodes/{count}"),
            Self::Programs => "programs".to_owned(),
        }
    }

    /// What it measures, in a line.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Traffic { load: Load::TcpStream, .. } => "one TCP stream: throughput and CPU time",
            Self::Traffic { load: Load::TcpSegmented, .. } => "one TCP stream of 536-byte segments, each a packet",
            Self::Traffic { load: Load::Udp64, .. } => "datagrams of 64 bytes that arrive",
            Self::Traffic { load: Load::TcpRr, .. } => "request and response of one byte over TCP: latency",
            Self::Traffic { load: Load::UdpRr, .. } => "request and response of one byte over UDP: latency",
            Self::Traffic { load: Load::TcpRrOneCpu, .. } => {
                "request and response of one byte over TCP on one CPU: latency with no CPU to wake"
            }
            Self::Add { parallel: 1 } => "CNI ADD and DEL, one after another",
            Self::Add { .. } => "CNI ADD and DEL, all at once",
            Self::Ipam { used: 0 } => "leases of an unused /16: pairs of allocate and release in one thread, memory",
            Self::Ipam { .. } => "the same with this percentage of it in use",
            Self::Agent => "the agent from exec to ready, and its memory",
            Self::Nodes { .. } => {
                "nodes that join at once: until the kernel knows them all, a change after, memory a node"
            }
            Self::Programs => "kernel programs: verified instructions and nanoseconds per packet",
        }
    }

    /// Whether it runs when no case is named and `--full` is not given.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        !matches!(self, Self::Traffic { family: Family::V6, .. })
    }

    /// Who takes part.
    #[must_use]
    pub const fn contenders(self) -> &'static [Contender] {
        match self {
            // A tunnel between nodes is not in the way of pods of one node.
            Self::Traffic { scope: Scope::SameNode, .. } | Self::Traffic { load: Load::UdpRr, .. } => {
                &Contender::DIRECT
            }
            Self::Traffic { scope: Scope::OtherNode, .. } => &Contender::ALL,
            Self::Add { .. } => &[Contender::Kinesin, Contender::Bridge],
            // Who puts tunnels on makes no difference to the tables.
            Self::Nodes { .. } => &[Contender::Kinesin, Contender::KinesinVxlan, Contender::KinesinGeneve],
            Self::Ipam { .. } | Self::Agent | Self::Programs => &[Contender::Kinesin],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_tell_cases_apart() {
        let all = Case::all();
        let names: BTreeSet<String> = all.iter().map(|case| case.name()).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.contains("same-node/udp-64") && names.contains("other-node/tcp-rr-v6"));
    }

    #[test]
    fn kinesin_is_in_every_case() {
        assert!(Case::all().iter().all(|case| case.contenders().first() == Some(&Contender::Kinesin)));
    }
}
