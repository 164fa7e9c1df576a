//! What the node's kernel knows of the way to others.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::{LpmTrie, Map, MapData, MapError, lpm_trie::Key};
use ipnet::IpNet;
use kinesin_abi::{FAMILY_V4, FAMILY_V6, IpcacheKey, IpcacheValue, LAYOUT, map};
use kinesin_lab::Node;
use kinesin_netlink::{Netlink, TABLE_MAIN};

use super::crowd::Member;
use crate::BenchError;

/// The tables of one node.
pub(super) struct Tables {
    /// The map behind `prefixes` once more.
    data: MapData,
    prefixes: LpmTrie<MapData, IpcacheKey, IpcacheValue>,
    /// Whether routes lead to other nodes' pods too.
    native: bool,
}

impl Tables {
    pub(super) fn open(node: &Node, native: bool) -> Result<Self, BenchError> {
        let path = node.path(&format!("/sys/fs/bpf/kinesin/v{LAYOUT}/maps/{}", map::IPCACHE))?;
        let broken = |error: MapError| BenchError::Scene(format!("cannot open {}: {error}", path.display()));
        let open = || MapData::from_pin(&path).map_err(broken);
        Ok(Self { data: open()?, prefixes: LpmTrie::try_from(Map::LpmTrie(open()?)).map_err(broken)?, native })
    }

    /// Whether packets to each pod CIDR of a node are sent to that node: natively by the address of their own family, through
    /// a tunnel all by one.
    pub(super) fn knows(&self, member: &Member) -> Result<bool, BenchError> {
        let mut known = true;
        for pods in &member.pods {
            known &= match self.prefixes.get(&key(pods), 0) {
                Ok(value) => member.addresses.iter().any(|node| value.node == words(*node)),
                Err(MapError::KeyNotFound) => false,
                Err(error) => return Err(BenchError::Scene(format!("cannot read {}: {error}", map::IPCACHE))),
            };
        }
        Ok(known)
    }

    /// Where routes lead to pods: to how many of the pod CIDRs of these nodes one does.
    pub(super) async fn routes(&self, node: &Node, members: &[&Member]) -> Result<Option<usize>, BenchError> {
        if !self.native {
            return Ok(None);
        }
        let routes = Netlink::in_netns(&node.netns()?)?.routes().await?;
        let found: BTreeSet<IpNet> =
            routes.iter().filter(|route| route.table == TABLE_MAIN).map(|route| route.dst).collect();
        Ok(Some(members.iter().flat_map(|member| member.pods).filter(|pods| found.contains(pods)).count()))
    }

    /// Memory of the prefix table as the kernel counts it, in bytes.
    pub(super) fn bytes(&self) -> Result<f64, BenchError> {
        // `Documentation/filesystems/proc.rst`, "BPF map": since Linux 6.4 what the entries really take.
        let fd = self.data.fd().as_fd().as_raw_fd();
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"));
        let text = text.map_err(BenchError::io("read the size of the prefix table"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let value = value.and_then(|value| value.trim().parse().ok());
        value.ok_or_else(|| BenchError::io("find the size of the prefix table")(io::Error::other(text)))
    }
}

/// The length counts from the family on.
fn key(net: &IpNet) -> Key<IpcacheKey> {
    let family = if net.addr().is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    let key = IpcacheKey { family: [family, 0, 0, 0], addr: words(net.addr()) };
    Key::new(32 + u32::from(net.prefix_len()), key)
}

fn words(ip: IpAddr) -> [u32; 4] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}
