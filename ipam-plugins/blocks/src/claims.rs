//! The content of one object of claims.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::{
    pools::Source,
    types::{Name, Version},
};

/// Who has a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The node.
    pub node: Name,
    /// Mode and pool that the block was taken for.
    pub source: Source,
}

/// A block that was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Who had it last.
    pub claim: Claim,
    /// When, as a person reads it. Nothing is decided by it: clocks jump.
    pub at: String,
    /// Number of the write that released it, so that two releases of a block are told apart.
    pub sequence: u64,
}

/// Claims of the blocks of one network. Every write of it is guarded by its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The network.
    pub network: IpNet,
    /// Number of the last write.
    pub sequence: u64,
    /// Blocks that nodes have.
    pub claims: BTreeMap<IpNet, Claim>,
    /// Blocks whose last node is remembered: until it is sure that nobody can publish them for it any more, they are
    /// not free for another.
    pub released: BTreeMap<IpNet, Released>,
}

/// What a write does to one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The node takes it.
    Claim {
        claim: Claim,
        /// The node lists it already, so nothing but another's claim speaks against it.
        adopt: bool,
        /// Nothing else is free, so quarantine is cut short.
        early: bool,
    },
    /// This node gives it back.
    Release(Name),
}

impl Claims {
    /// An object without claims.
    #[must_use]
    pub fn new(network: IpNet) -> Self {
        Self { network, sequence: 0, claims: BTreeMap::new(), released: BTreeMap::new() }
    }

    /// The content after `changes`.
    pub(crate) fn after(&self, changes: &BTreeMap<IpNet, Change>, at: &str) -> Self {
        let mut next = self.clone();
        next.sequence = self.sequence.wrapping_add(1);
        for (block, change) in changes {
            match change {
                Change::Claim { claim, .. } => {
                    // What was remembered of these addresses has been looked at: they are the claim's now. A larger
                    // block has addresses beyond them, which still rest.
                    next.released.retain(|released, _| !block.contains(released));
                    next.claims.insert(*block, claim.clone());
                }
                Change::Release(node) => {
                    if let Some(claim) = next.claims.get(block).filter(|claim| claim.node == *node).cloned() {
                        next.claims.remove(block);
                        let released = Released { claim, at: at.to_owned(), sequence: next.sequence };
                        next.released.insert(*block, released);
                    }
                }
            }
        }
        next
    }
}

/// An object as it was read.
pub(crate) type Read = Option<(Version, Claims)>;
