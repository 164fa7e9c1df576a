//! Checks the ranges of cluster pool: what the operator could not cut blocks from is refused before anything starts.

use ipnet::IpNet;

use super::{Checked, Problem};
use crate::{config::keys::words, values::Family};

/// Key of the ranges, key of the blocks' size, family.
const POOLS: [(&str, &str, Family); 2] = [
    ("cluster-pool-ipv4-cidr", "cluster-pool-ipv4-mask-size", Family::V4),
    ("cluster-pool-ipv6-cidr", "cluster-pool-ipv6-mask-size", Family::V6),
];
/// Largest difference between a range and its blocks in IPv6, as with Cilium (reference 5.3): 65,536 blocks.
const MOST_BLOCK_BITS: u8 = 16;

impl Checked {
    /// Ranges of each family: their form, their order, and whether blocks of the size fit.
    pub(super) fn cluster_pools(&mut self) {
        for (ranges, size, family) in POOLS {
            if !self.values.contains_key(ranges) && !self.values.contains_key(size) {
                continue;
            }
            if let Err((key, reason)) = self.cluster_pool(ranges, size, family) {
                let value = self.get(key).to_owned();
                let origin = self.values.get(key).map_or_else(|| "default".to_owned(), |it| it.origin.clone());
                self.problems.push(Problem::Invalid { origin, key: key.to_owned(), value, reason });
            }
        }
    }

    fn cluster_pool(
        &self,
        ranges: &'static str,
        size: &'static str,
        family: Family,
    ) -> Result<(), (&'static str, String)> {
        let mut found: Vec<IpNet> = Vec::new();
        for word in words(self.get(ranges)) {
            let range: IpNet = word.parse().map_err(|_| {
                let example = if family == Family::V4 { "10.0.0.0/8" } else { "fd00::/104" };
                (ranges, format!("has {word:?}, which is no network; write networks such as {example}"))
            })?;
            if Family::of_net(&range) != family {
                return Err((ranges, format!("has {word:?}, which is no {family} network; remove it")));
            }
            let range = range.trunc();
            if let Some(other) = found.iter().find(|other| other.contains(&range) || range.contains(*other)) {
                return Err((ranges, format!("has {other} and {range}, which overlap; remove one of them")));
            }
            found.push(range);
        }
        let Ok(prefix) = self.get(size).parse::<u8>() else {
            // The value was refused already.
            return Ok(());
        };
        for range in found {
            if prefix < range.prefix_len() {
                let reason = format!(
                    "is larger than {range} of {ranges}, so no block fits; write a number from {} to {}",
                    range.prefix_len(),
                    family.host_prefix()
                );
                return Err((size, reason));
            }
            if family == Family::V6 && prefix - range.prefix_len() > MOST_BLOCK_BITS {
                let reason = format!(
                    "cuts {range} into more than 65536 blocks; write a number up to {}",
                    range.prefix_len() + MOST_BLOCK_BITS
                );
                return Err((size, reason));
            }
        }
        Ok(())
    }
}
