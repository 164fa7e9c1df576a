//! The ways that a backend has found to other nodes' pods, and the reasons against others.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kinesin_core::routing::Path;
use kinesin_netlink::Route;

/// The way to one pod CIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// For the chassis.
    pub path: Path,
    /// For the node's own stack, if it needs one.
    pub route: Option<Route>,
}

/// What is wanted.
#[derive(Debug, Default)]
pub struct Outcome {
    pub(crate) routes: BTreeMap<IpNet, Route>,
    pub(crate) paths: BTreeMap<IpNet, Path>,
    pub(crate) unreachable: BTreeMap<String, BTreeSet<String>>,
}

impl Outcome {
    /// Takes the way to a peer's pod CIDR, or the reason why there is none.
    pub fn take(&mut self, peer: &str, cidr: IpNet, way: Result<Way, String>) {
        match way {
            Ok(Way { path, route }) => {
                self.paths.insert(cidr, path);
                self.routes.extend(route.map(|route| (cidr, route)));
            }
            Err(reason) => self.refuse(peer, refusal(cidr, &reason)),
        }
    }

    pub(crate) fn refuse(&mut self, peer: &str, reason: String) {
        self.unreachable.entry(peer.to_owned()).or_default().insert(reason);
    }

    /// Destinations whose routes are not the same as before.
    pub(crate) fn differs_from<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = IpNet> + 'a {
        let changed = self.routes.iter().filter(|(dst, route)| before.routes.get(dst) != Some(route));
        let gone = before.routes.keys().filter(|dst| !self.routes.contains_key(dst));
        changed.map(|(dst, _)| *dst).chain(gone.copied())
    }
}

/// A reason against one pod CIDR.
pub(crate) fn refusal(cidr: IpNet, reason: &str) -> String {
    format!("pod CIDR {cidr}: {reason}")
}
