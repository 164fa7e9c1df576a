//! Who holds which addresses, whatever the size of the blocks: an index of networks that overlap.

use std::collections::BTreeMap;

use ipnet::IpNet;
use kinesin_core::values::Family;

use crate::{
    range::{end, network_at, start},
    types::Name,
};

/// Why a network is not simply free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A claim in an object.
    Claim { node: Name, object: Name },
    /// It was chosen for a node; the claim is being written.
    Chosen { node: Name },
    /// A CiliumNode lists it.
    Listed { node: Name },
    /// A Node has it as pod CIDR.
    Host { node: Name },
    /// Addresses of nodes or services.
    Reserved { what: Name },
    /// It was given back, as this object remembers.
    Released { node: Name, object: Name },
}

impl Holder {
    pub(crate) fn node(&self) -> Option<&Name> {
        match self {
            Self::Claim { node, .. }
            | Self::Chosen { node }
            | Self::Listed { node }
            | Self::Host { node }
            | Self::Released { node, .. } => Some(node),
            Self::Reserved { .. } => None,
        }
    }
}

/// All holders by network.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    v4: Space,
    v6: Space,
}

#[derive(Debug, Default)]
struct Space {
    /// By first address and prefix length: what lies in a network is a stretch of this.
    networks: BTreeMap<(u128, u8), Vec<Holder>>,
    /// How many networks there are of each prefix length: what a network lies in is found by these.
    lengths: BTreeMap<u8, usize>,
}

impl Taken {
    fn space(&self, network: &IpNet) -> &Space {
        if network.addr().is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn space_mut(&mut self, network: &IpNet) -> &mut Space {
        if network.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    pub(crate) fn insert(&mut self, network: &IpNet, holder: Holder) {
        let space = self.space_mut(network);
        let holders = space.networks.entry((start(network), network.prefix_len())).or_default();
        if holders.is_empty() {
            *space.lengths.entry(network.prefix_len()).or_default() += 1;
        }
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }

    pub(crate) fn remove(&mut self, network: &IpNet, holder: &Holder) {
        let space = self.space_mut(network);
        let key = (start(network), network.prefix_len());
        let Some(holders) = space.networks.get_mut(&key) else { return };
        holders.retain(|found| found != holder);
        if holders.is_empty() {
            space.networks.remove(&key);
            if let Some(count) = space.lengths.get_mut(&network.prefix_len()) {
                *count -= 1;
                if *count == 0 {
                    space.lengths.remove(&network.prefix_len());
                }
            }
        }
    }

    /// Every network that has an address in common with `network`, with its holders; the larger ones first.
    pub(crate) fn overlapping(&self, network: &IpNet) -> impl Iterator<Item = (IpNet, &Holder)> {
        let (space, family, length) = (self.space(network), Family::of_net(network), network.prefix_len());
        let (first, last) = (start(network), end(network));
        // Two networks overlap only if one lies in the other.
        let around = space.lengths.range(..length).filter_map(move |(prefix, _)| {
            let key = (start(&network_at(family, first, *prefix)), *prefix);
            space.networks.get_key_value(&key)
        });
        let inside = space.networks.range((first, length)..=(last, u8::MAX));
        around.chain(inside).flat_map(move |((address, prefix), holders)| {
            holders.iter().map(move |holder| (network_at(family, *address, *prefix), holder))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = IpNet> {
        (any::<bool>(), any::<u8>(), 0_u8..=8).prop_map(|(v4, byte, bits)| {
            let family = if v4 { Family::V4 } else { Family::V6 };
            network_at(family, u128::from(byte), family.host_prefix() - bits)
        })
    }

    proptest! {
        #[test]
        fn overlaps_are_those_that_a_full_search_finds(
            steps in prop::collection::vec((any::<bool>(), network(), 0_u8..3), 1..60),
            asked in network(),
        ) {
            let (mut taken, mut model) = (Taken::default(), Vec::new());
            for (insert, network, node) in steps {
                let holder = Holder::Listed { node: node.to_string().into() };
                if insert {
                    taken.insert(&network, holder.clone());
                    if !model.contains(&(network, holder.clone())) {
                        model.push((network, holder));
                    }
                } else {
                    taken.remove(&network, &holder);
                    model.retain(|found| *found != (network, holder.clone()));
                }
            }
            let key = |(network, holder): &(IpNet, Holder)| (*network, holder.node().cloned());
            let mut found: Vec<_> =
                taken.overlapping(&asked).map(|(network, holder)| key(&(network, holder.clone()))).collect();
            let mut expected: Vec<_> =
                model.iter().filter(|(network, _)| network.contains(&asked) || asked.contains(network)).map(key).collect();
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
