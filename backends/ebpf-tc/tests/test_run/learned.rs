//! What is learned of ways to other nodes: in the kernel's maps, and on the host.

use std::collections::BTreeMap;

use aya::maps::{
    HashMap,
    lpm_trie::{Key, LpmTrie},
};
use kinesin_abi::{EndpointKey, IpcacheKey, IpcacheValue, PathMtuValue, map};
use kinesin_packet::host::HostTables;

use crate::node::Kernel;

/// What was learned of ways, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    pub(crate) nodes: BTreeMap<EndpointKey, u32>,
    /// By prefix length within the address and key.
    pub(crate) prefixes: BTreeMap<(u8, IpcacheKey), u16>,
}

impl Kernel {
    /// What the programs have learned of ways since they were asked last; it is forgotten.
    pub(crate) fn take_learned(&mut self, tables: &HostTables) -> Learned {
        let mut told: HashMap<_, EndpointKey, PathMtuValue> = self.map(map::PATH_MTU);
        let nodes: BTreeMap<_, _> =
            told.iter().map(|entry| entry.map(|(node, value)| (node, value.mtu))).collect::<Result<_, _>>().unwrap();
        for node in nodes.keys() {
            told.remove(node).unwrap();
        }
        if nodes.is_empty() {
            // Whether a prefix was written all the same, the next comparison shows that finds something.
            return Learned::default();
        }
        let mut ipcache: LpmTrie<_, IpcacheKey, IpcacheValue> = self.map(map::IPCACHE);
        let mut prefixes = BTreeMap::new();
        for ((length, key), value) in &tables.ipcache {
            let trie_key = Key::new(32 + u32::from(*length), *key);
            let found = ipcache.get(&trie_key, 0).unwrap();
            if found.mtu != value.mtu {
                prefixes.insert((*length, *key), found.mtu);
                ipcache.insert(&trie_key, value, 0).unwrap();
            }
            assert_eq!(IpcacheValue { mtu: value.mtu, ..found }, *value, "nothing else is written");
        }
        Learned { nodes, prefixes }
    }
}

/// What the host's pipeline has learned since it was asked last.
pub(crate) fn learned_on_host(tables: &HostTables) -> Learned {
    let mut learned = Learned::default();
    for (prefix, node, mtu_bytes) in tables.learned.take() {
        learned.nodes.insert(node, mtu_bytes.into());
        let (key, _) = tables.ipcache_entry(&prefix).expect("it was found before");
        learned.prefixes.insert(*key, mtu_bytes);
    }
    learned
}
