//! How much there is, for metrics and for the pools' own statuses.

use std::collections::BTreeMap;

use kinesin_core::values::Family;

use super::Engine;
use crate::pools::Source;

/// How much there is, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that nodes have, by mode and pool.
    pub claimed: BTreeMap<Source, usize>,
    /// Blocks that were given back and not taken since.
    pub released: usize,
    /// Nodes that do not have what they ask for, by reason.
    pub problems: BTreeMap<&'static str, usize>,
    /// CiliumNodes.
    pub nodes: usize,
}

impl Engine {
    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for object in self.objects.values() {
            counts.released += object.claims.released.len();
            for claim in object.claims.claims.values() {
                *counts.claimed.entry(claim.source.clone()).or_default() += 1;
            }
        }
        for node in self.nodes.values() {
            counts.nodes += usize::from(node.view.is_some());
            for problem in node.problems.iter().filter(|problem| problem.is_error()) {
                *counts.problems.entry(problem.reason()).or_default() += 1;
            }
        }
        counts
    }

    /// Blocks of a pool that nodes have and that are in none of its ranges any more.
    #[must_use]
    pub fn claimed_outside(&self, source: &Source) -> usize {
        let claims = self.objects.values().flat_map(|object| &object.claims.claims);
        let outside = claims.filter(|(block, claim)| {
            let mut ranges = self.pools.ranges(source, Family::of_net(block));
            claim.source == *source && !ranges.any(|range| range.contains(block))
        });
        outside.count()
    }
}
