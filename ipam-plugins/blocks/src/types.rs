//! Small values that everything here speaks of.

use std::{fmt, str::FromStr, sync::Arc};

/// Name of a node, a pool or an object. Cheap to clone: one node's name stands in many places.
pub type Name = Arc<str>;

/// Where a node's pods get their addresses from, in Cilium's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// From the Node's pod CIDRs, which Kubernetes gives.
    Kubernetes,
    /// From blocks of the cluster's ranges.
    ClusterPool,
    /// From blocks of named pools.
    MultiPool,
}

impl Mode {
    /// As in `ipam`, and in the annotation of a CiliumNode.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::ClusterPool => "cluster-pool",
            Self::MultiPool => "multi-pool",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Kubernetes, Self::ClusterPool, Self::MultiPool]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| format!("{text:?} is no mode; there is: kubernetes, cluster-pool, multi-pool"))
    }
}

/// Resource version of an object at the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub String);

impl Version {
    /// Whether an object of this version was written later than one of `other`.
    ///
    /// API servers number their versions upwards (KEP-5504 makes that part of the API). One that is no number is taken
    /// as later whenever it differs, which at worst costs a conflict.
    #[must_use]
    pub fn is_newer_than(&self, other: &Self) -> bool {
        match (self.0.parse::<u64>(), other.0.parse::<u64>()) {
            (Ok(mine), Ok(theirs)) => mine > theirs,
            _ => self != other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_in_the_configuration() {
        for mode in [Mode::Kubernetes, Mode::ClusterPool, Mode::MultiPool] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("eni".parse::<Mode>().expect_err("not ours").contains("multi-pool"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let version = |text: &str| Version(text.to_owned());
        assert!(version("10").is_newer_than(&version("9")));
        assert!(!version("9").is_newer_than(&version("9")));
        assert!(version("x").is_newer_than(&version("y")));
    }
}
