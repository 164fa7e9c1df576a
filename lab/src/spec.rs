//! What a lab shall be: names, addresses, families, programs.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::LabError;

/// Nodes beyond this would leave the range of addresses that nodes have.
const MAX_NODES: usize = 100;
/// Segments beyond this would leave the range of addresses that segments have.
const MAX_SEGMENTS: usize = 9;
/// The first node's address ends so, in both families.
const FIRST_HOST: u8 = 100;
/// Port of the API server on the underlay.
pub(crate) const API_PORT: u16 = 6443;
/// The programs that nodes run.
pub(crate) const PROGRAMS: [&str; 4] = ["kinesin", "kinesin-agent", "kinesin-operator", "kinesin-cni"];

/// Address families of a lab's underlay and pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    #[default]
    Dual,
}

impl Families {
    /// Whether there is IPv4.
    #[must_use]
    pub fn ipv4(self) -> bool {
        self != Self::Ipv6
    }

    /// Whether there is IPv6.
    #[must_use]
    pub fn ipv6(self) -> bool {
        self != Self::Ipv4
    }
}

impl FromStr for Families {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        match text {
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            "dual" => Ok(Self::Dual),
            _ => Err(LabError::spec(format!("families {text:?} are not known"), "ipv4, ipv6 or dual")),
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Dual => "dual",
        })
    }
}

/// What is asked of [`crate::Lab::up`].
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name; labs of different names share nothing.
    pub name: String,
    /// Directory of all labs; this one's is `base/name`.
    pub base: PathBuf,
    /// Number of nodes.
    pub nodes: usize,
    /// Families of underlay and pods.
    pub families: Families,
    /// Segments of the underlay, with a router between them; nodes are dealt to them in turn.
    pub segments: usize,
    /// MTU of the underlay in bytes.
    pub mtu_bytes: u16,
    /// Where nodes get their pod CIDRs from, at most one range a family; where none is given, the lab's own.
    pub pod_ranges: Vec<PodRange>,
    /// Where `kinesin`, `kinesin-agent`, `kinesin-operator` and `kinesin-cni` are.
    pub bin_dir: PathBuf,
    /// A values file's text; it is laid over the lab's own values.
    pub values: String,
    /// Whether the agent and the operator are installed.
    pub agent: bool,
    /// Whether the demo workloads are installed.
    pub workloads: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            base: PathBuf::from(DEFAULT_BASE),
            nodes: 3,
            families: Families::default(),
            segments: 1,
            mtu_bytes: 1500,
            pod_ranges: Vec::new(),
            bin_dir: own_dir(),
            values: String::new(),
            agent: true,
            workloads: true,
        }
    }
}

/// The name of a lab that was given none.
pub const DEFAULT_NAME: &str = "kinesin";
/// Where labs are; gone with a reboot where `/run` is in memory, as the labs themselves are.
pub const DEFAULT_BASE: &str = "/run/kinesin-lab";

/// The directory of the running program, for test binaries the one of the programs beside them.
fn own_dir() -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let dir = own.parent().map(Path::to_path_buf).unwrap_or_default();
    if dir.ends_with("deps") { dir.parent().map(Path::to_path_buf).unwrap_or_default() } else { dir }
}

impl Spec {
    /// Checks what does not need the machine.
    ///
    /// # Errors
    /// [`LabError::Spec`] and [`LabError::NoProgram`].
    pub fn validate(&self) -> Result<(), LabError> {
        check_name(&self.name)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            return Err(LabError::spec(format!("{} nodes cannot be", self.nodes), format!("1 to {MAX_NODES}")));
        }
        if !(1..=MAX_SEGMENTS).contains(&self.segments) {
            return Err(LabError::spec(
                format!("{} segments cannot be", self.segments),
                format!("1 to {MAX_SEGMENTS}"),
            ));
        }
        // IPv6 needs 1280 bytes (RFC 8200 section 5), IPv4 hosts 576 (RFC 791).
        let least = if self.families.ipv6() { 1280 } else { 576 };
        if self.mtu_bytes < least {
            return Err(LabError::spec(
                format!("an MTU of {} bytes is too small", self.mtu_bytes),
                format!("at least {least} with families {}", self.families),
            ));
        }
        if !self.base.is_absolute() {
            return Err(LabError::spec(
                format!("the directory {} is relative", self.base.display()),
                "give an absolute path",
            ));
        }
        // The path of a unix socket has at most 107 bytes; the longest in it is that of a kubelet.
        let longest = self.base.as_os_str().len() + self.name.len() + "/nodes/cilium-w99/kubelet.sock".len() + 1;
        if longest > 107 {
            return Err(LabError::spec(
                format!("the directory {} is too long for unix sockets in it", self.base.display()),
                format!("at most {} bytes with this name", self.base.as_os_str().len() + 107 - longest),
            ));
        }
        for program in PROGRAMS.iter().filter(|program| self.agent || **program == "kinesin") {
            if !self.bin_dir.join(program).is_file() {
                return Err(LabError::NoProgram { program: (*program).to_owned(), dir: self.bin_dir.clone() });
            }
        }
        Ok(())
    }

    /// Names of the nodes, the control plane's first.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        (0..self.nodes)
            .map(|index| if index == 0 { "cilium-ctr".to_owned() } else { format!("cilium-w{index}") })
            .collect()
    }
}

/// Names become part of paths and of cgroup names.
pub(crate) fn check_name(name: &str) -> Result<(), LabError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 30 || !name.chars().all(fits) || name.starts_with('-') {
        return Err(LabError::spec(
            format!("the lab cannot be called {name:?}"),
            "lower-case letters, digits and -, at most 30 of them",
        ));
    }
    Ok(())
}

/// The underlay's addresses of a host part in a segment, one per family: the first segment is 192.168.10.0/24, the second
/// 192.168.20.0/24.
fn hosts(families: Families, segment: usize, host: u8) -> Vec<IpNet> {
    // `validate` keeps the product within a byte.
    let third = u8::try_from(10 * (segment + 1)).unwrap_or(u8::MAX);
    let v4 = IpAddr::V4(Ipv4Addr::new(192, 168, third, host));
    // Written like the IPv4 one, so that a reader finds one by the other: ::100 and .100.
    let digits = |number: u8| u16::from_str_radix(&number.to_string(), 16).unwrap_or(u16::from(number));
    let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0x168, digits(third), 0, 0, 0, digits(host)));
    let mut nets = Vec::new();
    if families.ipv4() {
        nets.push(IpNet::new_assert(v4, 24));
    }
    if families.ipv6() {
        nets.push(IpNet::new_assert(v6, 64));
    }
    nets
}

/// Addresses of the node at `index`.
pub(crate) fn node_addresses(families: Families, segments: usize, index: usize) -> Vec<IpNet> {
    // `validate` keeps the sum within a byte.
    hosts(families, index % segments.max(1), FIRST_HOST.saturating_add(u8::try_from(index).unwrap_or(u8::MAX)))
}

/// Other addresses in the same networks, for a node that moves; moved again, it is back.
pub(crate) fn moved(addresses: &[IpNet]) -> Vec<IpNet> {
    // What nodes leave free of a byte: 200 and more for the first of them, 2 and more for the rest; and back.
    let other = |host: u8| match host {
        200.. => host - FIRST_HOST,
        155.. => host - 153,
        FIRST_HOST.. => host + FIRST_HOST,
        _ => host + 153,
    };
    let moved = |net: &IpNet| match net.addr() {
        IpAddr::V4(ip) => {
            let [a, b, c, host] = ip.octets();
            IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, other(host))), net.prefix_len())
        }
        IpAddr::V6(ip) => {
            let mut parts = ip.segments();
            let host = format!("{:x}", parts[7]).parse().unwrap_or(FIRST_HOST);
            parts[7] = u16::from_str_radix(&other(host).to_string(), 16).unwrap_or_default();
            IpNet::new_assert(IpAddr::V6(Ipv6Addr::from(parts)), net.prefix_len())
        }
    };
    addresses.iter().map(moved).collect()
}

/// Addresses of a segment's bridge, which is its nodes' gateway; at those of the first is the API server.
pub(crate) fn gateways(families: Families, segment: usize) -> Vec<IpNet> {
    hosts(families, segment, 1)
}

/// The API server as nodes see it; IPv4 where there is a choice.
pub(crate) fn api_url(families: Families) -> String {
    let address = gateways(families, 0).first().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), IpNet::addr);
    format!("http://{}", SocketAddr::new(address, API_PORT))
}

/// A range of pod addresses, and how much of it a node gets; written `172.20.42.0/27=29`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRange {
    /// The cluster's range.
    pub cidr: IpNet,
    /// Length of each node's prefix.
    pub node_prefix: u8,
}

impl FromStr for PodRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no range of pod addresses; write it as 172.20.42.0/27=29");
        let (cidr, prefix) = text.split_once('=').ok_or_else(wrong)?;
        let cidr: IpNet = cidr.parse().map_err(|_| wrong())?;
        let node_prefix = prefix.parse().map_err(|_| wrong())?;
        if !(cidr.prefix_len()..=cidr.max_prefix_len()).contains(&node_prefix) {
            return Err(format!("{text:?}: a node's prefix is no part of the range"));
        }
        Ok(Self { cidr: cidr.trunc(), node_prefix })
    }
}

/// The ranges of a lab: those that were given, and the lab's own for families without one.
pub(crate) fn pod_ranges(families: Families, given: &[PodRange]) -> Vec<PodRange> {
    let v4 = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(10, 244, 0, 0)), 16);
    let v6 = IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0)), 48);
    let own = [
        families.ipv4().then_some(PodRange { cidr: v4, node_prefix: 24 }),
        families.ipv6().then_some(PodRange { cidr: v6, node_prefix: 64 }),
    ];
    let of_family = |range: PodRange| {
        let same = |other: &&PodRange| other.cidr.addr().is_ipv4() == range.cidr.addr().is_ipv4();
        given.iter().find(same).copied().unwrap_or(range)
    };
    own.into_iter().flatten().map(of_family).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_ranges_replace_those_of_their_family() {
        let given: PodRange = "172.20.42.0/27=29".parse().expect("a range");
        let ranges = pod_ranges(Families::Dual, &[given]);
        assert_eq!(ranges[0], given);
        assert_eq!((ranges[1].cidr.to_string().as_str(), ranges[1].node_prefix), ("fd00:10:244::/48", 64));
        for text in ["", "172.20.42.0/27", "172.20.42.0/27=24", "172.20.42.0/27=33", "pods=29"] {
            assert!(text.parse::<PodRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn nodes_are_called_and_addressed_as_in_the_walk_through() {
        let spec = Spec::default();
        assert_eq!(spec.node_names(), ["cilium-ctr", "cilium-w1", "cilium-w2"]);
        let text: Vec<String> = node_addresses(Families::Dual, 1, 1).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.168.10.101/24", "fd00:192:168:10::101/64"]);
        let text: Vec<String> = node_addresses(Families::Dual, 2, 1).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["192.168.20.101/24", "fd00:192:168:20::101/64"]);
        assert_eq!(api_url(Families::Dual), "http://192.168.10.1:6443");
        assert_eq!(api_url(Families::Ipv6), "http://[fd00:192:168:10::1]:6443");
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_way_out() {
        let spec = |change: fn(&mut Spec)| {
            let mut spec = Spec { agent: false, bin_dir: own_dir(), ..Spec::default() };
            change(&mut spec);
            spec.validate().expect_err("refused").to_string()
        };
        for (change, word) in [
            ((|spec| spec.name = "../x".to_owned()) as fn(&mut Spec), "lower-case"),
            (|spec| spec.name.clear(), "lower-case"),
            (|spec| spec.name = "a".repeat(31), "30"),
            (|spec| spec.nodes = 0, "1 to 100"),
            (|spec| spec.nodes = 101, "1 to 100"),
            (|spec| spec.segments = 10, "1 to 9"),
            (|spec| spec.mtu_bytes = 1279, "1280"),
            (|spec| spec.base = "here".into(), "absolute"),
            (|spec| spec.base = format!("/{}", "d".repeat(90)).into(), "at most"),
            (|spec| spec.bin_dir = "/nowhere".into(), "cargo build"),
        ] {
            let told = spec(change);
            assert!(told.contains(word), "{told:?} does not say {word:?}");
        }
    }

    #[test]
    fn every_node_of_the_largest_lab_has_its_own_address() {
        let all: std::collections::BTreeSet<_> =
            (0..MAX_NODES).flat_map(|index| node_addresses(Families::Dual, 1, index)).collect();
        assert_eq!(all.len(), 2 * MAX_NODES);
        for index in [0, 1, 99] {
            let addresses = node_addresses(Families::Dual, 3, index);
            let elsewhere = moved(&addresses);
            assert_eq!(moved(&elsewhere), addresses);
            assert!(elsewhere.iter().all(|net| !all.contains(net)), "{elsewhere:?}");
            assert!(elsewhere.iter().zip(&addresses).all(|(new, old)| new.trunc() == old.trunc()));
        }
    }
}
