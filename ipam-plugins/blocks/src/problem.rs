//! Why a node does not get what it wants, in Cilium's words and in ours.

use std::fmt;

use ipnet::IpNet;
use kinesin_core::values::Family;

use crate::{
    pools::Source,
    types::{Mode, Name},
};

/// Why a node does not get what it wants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Problem {
    /// Another holds the same addresses.
    Collision {
        /// The node's block.
        block: IpNet,
        /// The other's.
        other: IpNet,
        /// Who that is.
        holder: String,
    },
    /// There is no such pool.
    NoPool {
        /// The pool.
        source: Source,
        /// The family that was asked for.
        family: Family,
    },
    /// The pool has no range of this family, or none that is served.
    NoRange {
        /// The pool.
        source: Source,
        /// The family that was asked for.
        family: Family,
        /// What is not served of it, if anything.
        refused: Vec<String>,
    },
    /// Every block of the pool is taken.
    Full {
        /// The pool.
        source: Source,
        /// The family that was asked for.
        family: Family,
        /// How many blocks its ranges have.
        blocks: u128,
        /// The ranges.
        ranges: Vec<IpNet>,
    },
    /// A request that no node can mean.
    Excessive {
        /// The pool.
        source: Source,
        /// How many addresses it names.
        needed: u64,
        /// How many are served at most.
        limit: u64,
    },
    /// An entry that is no CIDR.
    Nonsense {
        /// The list.
        field: &'static str,
        /// The entry.
        text: String,
    },
    /// The node has blocks that no range has any more, and keeps them for as long as pods have addresses of them.
    Outside {
        /// Their pool.
        source: Source,
        /// The blocks.
        blocks: Vec<IpNet>,
        /// Whether the pool is there.
        exists: bool,
    },
}

/// Of the blocks outside, this many are named.
const NAMED: usize = 8;

impl Problem {
    /// Reason of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Collision { .. } => "Collision",
            Self::NoPool { .. } => "NoPool",
            Self::NoRange { .. } => "NoRange",
            Self::Full { .. } => "RangeFull",
            Self::Excessive { .. } => "ExcessiveRequest",
            Self::Nonsense { .. } => "InvalidCIDR",
            Self::Outside { .. } => "Draining",
        }
    }

    /// Whether the node lacks something for it, or somebody has to do something about it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::Outside { .. })
    }

    /// As Cilium's operator says it for this node.
    #[must_use]
    pub fn error(&self, node: &Name) -> String {
        let failed = |family: &Family, source: &Source, reason: &str| match source.mode {
            Mode::MultiPool => {
                let family = family.to_string().to_lowercase();
                format!("failed to allocate {family} address for node {node:?} from {source}: {reason}")
            }
            _ => reason.to_owned(),
        };
        match self {
            Self::NoPool { source, family } => {
                failed(family, source, &format!("cannot allocate from non-existing pool: {}", source.pool))
            }
            Self::NoRange { source, family, .. } => {
                failed(family, source, &format!("{source} has no {family} range that is served"))
            }
            Self::Full { source, family, .. } => {
                let reason =
                    if source.mode == Mode::MultiPool { "all pod CIDR ranges are exhausted" } else { "allocator full" };
                failed(family, source, reason)
            }
            other => other.to_string(),
        }
    }
}

/// What is wrong, with what to do about it.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Collision { block, other, holder } => write!(
                f,
                "{block} collides with {other} of {holder}; both stay as they are: drain one of the two nodes, then take \
                 the block out of its CiliumNode"
            ),
            Self::NoPool { source, family } => {
                write!(
                    f,
                    "{family} addresses are asked of {source}, which does not exist; create it or change the annotation"
                )
            }
            Self::NoRange { source, family, refused } if refused.is_empty() => {
                write!(f, "{source} has no {family} range; add one to it, or switch {family} off")
            }
            Self::NoRange { source, family, refused } => {
                write!(f, "{source} has no {family} range that is served: {}", refused.join("; "))
            }
            Self::Full { source, family, blocks, ranges } => {
                let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "range is full: all {blocks} {family} blocks of {source} ({}) are taken; add a CIDR to it, or remove \
                     nodes or pods",
                    ranges.join(", ")
                )
            }
            Self::Excessive { source, needed, limit } => {
                write!(f, "{needed} addresses of {source} are asked for; a node gets {limit} at most")
            }
            Self::Nonsense { field, text } => write!(f, "{field}: {text:?} is no CIDR; take it out of the CiliumNode"),
            Self::Outside { source, blocks, exists } => {
                let named: Vec<_> = blocks.iter().take(NAMED).map(ToString::to_string).collect();
                let more = if blocks.len() > NAMED { " and more" } else { "" };
                let (why, undo) = match (exists, source.mode) {
                    (true, _) => ("is in no range of it that is served", "give the range back to it"),
                    (false, Mode::MultiPool) => ("is of a pool that does not exist any more", "create the pool again"),
                    (false, _) => ("is of no range in the configuration", "write the range into it again"),
                };
                write!(
                    f,
                    "{}{more} of {source} {why}; the node keeps it until no pod has an address of it: delete those pods, \
                     or {undo}",
                    named.join(", ")
                )
            }
        }
    }
}

/// What the operator writes into a CiliumNode's status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// `status.ipam.operator-status.error`; empty when all is well.
    pub error: String,
    /// The condition `PodAddresses`: whether all is well, reason, message.
    pub condition: Option<(bool, String, String)>,
}

impl Report {
    /// What to write for these problems after `before`. A node that never had a problem gets no condition, so that a
    /// cluster that starts writes each CiliumNode once.
    #[must_use]
    pub fn of(problems: &[Problem], node: &Name, before: &Self) -> Self {
        let errors: Vec<&Problem> = problems.iter().filter(|problem| problem.is_error()).collect();
        let Some(first) = errors.first().copied().or(problems.first()) else {
            let well = || (true, "Available".to_owned(), "the node has the blocks that it asks for".to_owned());
            return Self { error: String::new(), condition: before.condition.as_ref().map(|_| well()) };
        };
        let join = |texts: Vec<String>| texts.join("; ");
        Self {
            error: join(errors.iter().map(|problem| problem.error(node)).collect()),
            condition: Some((
                errors.is_empty(),
                first.reason().to_owned(),
                join(problems.iter().map(ToString::to_string).collect()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_those_of_cilium() {
        let node = Name::from("w1");
        let full = |source| Problem::Full {
            source,
            family: Family::V4,
            blocks: 2,
            ranges: vec!["10.0.0.0/28".parse().expect("a network")],
        };
        assert_eq!(full(Source::cluster_pool()).error(&node), "allocator full");
        let missing = Problem::NoPool { source: Source::pool("vac"), family: Family::V4 };
        assert_eq!(
            missing.error(&node),
            "failed to allocate ipv4 address for node \"w1\" from pool \"vac\": cannot allocate from non-existing pool: vac"
        );
        assert!(full(Source::pool("vac")).to_string().starts_with("range is full: all 2 IPv4 blocks of pool \"vac\""));
    }

    #[test]
    fn condition_comes_with_the_first_problem_and_stays() {
        let node = Name::from("w1");
        assert_eq!(Report::of(&[], &node, &Report::default()), Report::default());
        let problem = Problem::Nonsense { field: "spec.ipam.podCIDRs", text: "x".to_owned() };
        let bad = Report::of(&[problem], &node, &Report::default());
        assert_eq!(bad.condition.as_ref().map(|(ok, reason, _)| (*ok, reason.as_str())), Some((false, "InvalidCIDR")));
        let outside = |exists| Problem::Outside {
            source: Source::pool("vac"),
            blocks: vec!["10.0.0.0/29".parse().expect("a network")],
            exists,
        };
        let draining = Report::of(&[outside(false)], &node, &Report::default());
        let (ok, reason, message) = draining.condition.expect("it is told");
        assert_eq!((draining.error.as_str(), ok, reason.as_str()), ("", true, "Draining"));
        assert!(message.contains("10.0.0.0/29 of pool \"vac\" is of a pool that does not exist"), "{message}");
        assert!(outside(true).to_string().contains("in no range of it"));
        let well = Report::of(&[], &node, &bad);
        assert_eq!((well.error.as_str(), well.condition.expect("it stays").0), ("", true));
    }
}
