//! What a backend wants, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kinesin_core::routing::{Path, RoutingReport};
use kinesin_netlink::Route;

/// The way to one pod CIDR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// For the chassis.
    pub path: Path,
    /// For the node's own stack, if it needs one.
    pub route: Option<Route>,
}

/// What is wanted, and what came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    peers: BTreeSet<String>,
    pub(crate) routes: BTreeMap<IpNet, Route>,
    paths: BTreeMap<IpNet, (String, Path)>,
    unreachable: BTreeMap<String, BTreeSet<String>>,
    /// What could not be removed.
    pub(crate) left: Vec<String>,
}

impl Outcome {
    /// Nothing yet for these peers, which are those that the report speaks of.
    pub(crate) fn of(peers: BTreeSet<String>) -> Self {
        Self { peers, ..Self::default() }
    }

    /// Takes the way to a peer's pod CIDR, or the reason why there is none.
    pub fn take(&mut self, peer: &str, cidr: IpNet, way: Result<Way, String>) {
        match way {
            Ok(Way { path, route }) => {
                self.paths.insert(cidr, (peer.to_owned(), path));
                self.routes.extend(route.map(|route| (cidr, route)));
            }
            Err(reason) => self.refuse(peer, format!("pod CIDR {cidr}: {reason}")),
        }
    }

    pub(crate) fn refuse(&mut self, peer: &str, reason: String) {
        self.unreachable.entry(peer.to_owned()).or_default().insert(reason);
    }

    /// Turns the path to a pod CIDR into a reason against it.
    pub(crate) fn fail(&mut self, dst: IpNet, reason: &str) {
        if let Some((name, _)) = self.paths.remove(&dst) {
            self.refuse(&name, format!("pod CIDR {dst}: {reason}"));
        }
    }

    pub(crate) fn report(self, changes: usize) -> RoutingReport {
        let unreachable = self.unreachable.into_iter();
        RoutingReport {
            paths: self.paths.into_values().map(|(_, path)| path).collect(),
            unreachable: unreachable
                .filter(|(name, _)| self.peers.contains(name))
                .map(|(name, reasons)| (name, reasons.into_iter().collect::<Vec<_>>().join("; ")))
                .collect(),
            changes,
        }
    }
}
