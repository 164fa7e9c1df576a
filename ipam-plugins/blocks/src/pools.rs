//! Pools and their ranges: what is served, and what is refused and why.

use std::{collections::BTreeMap, fmt};

use ipnet::IpNet;
use kinesin_core::values::Family;

use crate::{
    range::BlockRange,
    types::{Mode, Name},
};

/// Where a block belongs: its mode and, in multi-pool, the pool; in cluster-pool the pool's name is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The mode.
    pub mode: Mode,
    /// Name of the pool.
    pub pool: Name,
}

impl Source {
    /// The ranges of cluster-pool.
    #[must_use]
    pub fn cluster_pool() -> Self {
        Self { mode: Mode::ClusterPool, pool: "".into() }
    }

    /// A pool of multi-pool.
    #[must_use]
    pub fn pool(name: &str) -> Self {
        Self { mode: Mode::MultiPool, pool: name.into() }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode {
            Mode::MultiPool => write!(f, "pool {:?}", self.pool),
            mode => write!(f, "{mode}"),
        }
    }
}

/// A pool as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Which pool.
    pub source: Source,
    /// Ranges of IPv4 with the mask size of their blocks.
    pub ipv4: Option<(Vec<String>, u8)>,
    /// Ranges of IPv6 with the mask size of their blocks.
    pub ipv6: Option<(Vec<String>, u8)>,
}

/// The pools that are served, and what of them is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    ranges: BTreeMap<Source, Vec<BlockRange>>,
    refused: BTreeMap<Source, Vec<String>>,
}

impl Pools {
    /// Checks pools in the order of their age: of two whose ranges overlap in one mode, the older is served.
    ///
    /// The same range, or one inside another, in two modes is in order: a cluster changes its mode on it.
    #[must_use]
    pub fn check(specs: &[PoolSpec]) -> Self {
        let mut pools = Self::default();
        for spec in specs {
            let (mut ranges, mut refused) = (Vec::new(), Vec::new());
            for (family, part) in [(Family::V4, &spec.ipv4), (Family::V6, &spec.ipv6)] {
                let Some((texts, mask)) = part else { continue };
                for text in texts {
                    match pools.check_range(spec, &ranges, family, text, *mask) {
                        Ok(Some(range)) => ranges.push(range),
                        Ok(None) => {}
                        Err(reason) => refused.push(reason),
                    }
                }
            }
            pools.ranges.insert(spec.source.clone(), ranges);
            if !refused.is_empty() {
                pools.refused.insert(spec.source.clone(), refused);
            }
        }
        pools
    }

    /// The range; nothing if it is written twice.
    fn check_range(
        &self,
        spec: &PoolSpec,
        own: &[BlockRange],
        family: Family,
        text: &str,
        mask: u8,
    ) -> Result<Option<BlockRange>, String> {
        let cidr: IpNet = text.parse().map_err(|_| format!("{text:?} is no CIDR; write it as 10.0.0.0/16"))?;
        if Family::of_net(&cidr) != family {
            return Err(format!("{text} stands among the {family} ranges; move it to those of its family"));
        }
        let range = BlockRange::new(cidr, mask)?;
        if own.contains(&range) {
            return Ok(None);
        }
        let others = self.ranges.iter().filter(|(source, _)| source.mode == spec.source.mode);
        let others = others.flat_map(|(source, ranges)| ranges.iter().map(move |range| (source, range)));
        let all = others.chain(own.iter().map(|range| (&spec.source, range)));
        for (source, other) in all {
            if other.contains(&range.cidr()) || range.contains(&other.cidr()) {
                let (cidr, other) = (range.cidr(), other.cidr());
                return Err(format!(
                    "requested CIDR {cidr} of {} collides with {other} of {source}; take one of them out",
                    spec.source
                ));
            }
        }
        Ok(Some(range))
    }

    /// Whether there is such a pool, served or refused.
    #[must_use]
    pub fn has(&self, source: &Source) -> bool {
        self.ranges.contains_key(source)
    }

    /// Ranges of a pool in their order.
    pub fn ranges<'a>(&'a self, source: &Source, family: Family) -> impl Iterator<Item = &'a BlockRange> + use<'a> {
        self.ranges.get(source).into_iter().flatten().filter(move |range| range.family() == family)
    }

    /// All ranges with their pools.
    pub fn all(&self) -> impl Iterator<Item = (&Source, &BlockRange)> {
        self.ranges.iter().flat_map(|(source, ranges)| ranges.iter().map(move |range| (source, range)))
    }

    /// What is not served of a pool, one sentence each.
    #[must_use]
    pub fn refused(&self, source: &Source) -> &[String] {
        self.refused.get(source).map_or(&[], Vec::as_slice)
    }

    /// Names of all pools.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.ranges.keys()
    }

    /// The range that a block lies in: of its own pool if that has one, else of any, whose claims then hold it.
    pub(crate) fn range_of(&self, source: &Source, block: &IpNet) -> Option<&BlockRange> {
        let family = Family::of_net(block);
        self.ranges(source, family)
            .find(|range| range.contains(block))
            .or_else(|| self.all().map(|(_, range)| range).find(|range| range.contains(block)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(source: Source, ipv4: &[&str], mask: u8) -> PoolSpec {
        let texts = ipv4.iter().map(|text| (*text).to_owned()).collect();
        PoolSpec { source, ipv4: Some((texts, mask)), ipv6: None }
    }

    #[test]
    fn older_of_two_overlapping_pools_is_served() {
        let (old, new) = (Source::pool("z"), Source::pool("a"));
        let pools = Pools::check(&[
            spec(old.clone(), &["10.0.0.0/16"], 28),
            spec(new.clone(), &["10.0.1.0/24", "10.1.0.0/24"], 28),
        ]);
        assert!(pools.refused(&old).is_empty());
        let [reason] = pools.refused(&new) else { panic!("one reason") };
        assert!(
            reason.contains("10.0.1.0/24") && reason.contains("10.0.0.0/16") && reason.contains("\"z\""),
            "{reason}"
        );
        assert_eq!(pools.ranges(&new, Family::V4).count(), 1, "the rest of it is served");
    }

    #[test]
    fn modes_may_share_a_range() {
        let pools = Pools::check(&[
            spec(Source::cluster_pool(), &["10.0.0.0/16"], 24),
            spec(Source::pool("default"), &["10.0.0.0/16"], 28),
        ]);
        assert!(pools.refused(&Source::pool("default")).is_empty());
    }

    #[test]
    fn nonsense_is_named() {
        let source = Source::pool("p");
        let pools = Pools::check(&[spec(source.clone(), &["x", "fd00::/64", "10.0.0.0/30", "10.0.0.0/16"], 28)]);
        let text = pools.refused(&source).join("\n");
        assert!(
            text.contains("\"x\" is no CIDR") && text.contains("IPv4 ranges") && text.contains("larger than"),
            "{text}"
        );
        assert_eq!(pools.ranges(&source, Family::V4).count(), 1);
    }
}
