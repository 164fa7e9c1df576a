//! A pretended API server for one engine, which is alone and whose clock runs as fast as it likes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::values::Family;
use kinesin_ipam_blocks::{BlockUse, Claims, Effect, Engine, Name, NodeView, Outcome, Pools, Report, Version};

use crate::ipam::read::Host;

/// Nothing that nodes get takes longer than a quarantine; the longest that is allowed.
const LONGEST: Duration = Duration::from_secs(86_400);
/// An engine that is not done after so many looks is not looked at any longer: what it has done is a forecast as well.
const MOST_LOOKS: usize = 100_000;

/// CiliumNodes and claims, and what was reported.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: BTreeMap<Name, NodeView>,
    pub(super) reports: BTreeMap<Name, Report>,
    claims: BTreeMap<Name, (Version, Claims)>,
    version: u64,
    now: Duration,
}

impl World {
    pub(super) fn new(nodes: BTreeMap<Name, NodeView>, claims: BTreeMap<Name, (Version, Claims)>) -> Self {
        // Above every version that is there, since versions only grow.
        let versions = nodes.values().map(|view| &view.version).chain(claims.values().map(|(version, _)| version));
        let version = versions.filter_map(|version| version.0.parse::<u64>().ok()).max().unwrap_or_default();
        let mut world = Self { nodes, reports: BTreeMap::new(), claims, version, now: Duration::ZERO };
        for name in world.nodes.keys().cloned().collect::<Vec<_>>() {
            world.touch(&name, |_| {});
        }
        world
    }

    fn next_version(&mut self) -> Version {
        self.version += 1;
        Version(self.version.to_string())
    }

    fn touch(&mut self, name: &Name, change: impl FnOnce(&mut NodeView)) -> Option<NodeView> {
        let version = self.next_version();
        let view = self.nodes.get_mut(name)?;
        change(view);
        view.version = version;
        Some(view.clone())
    }

    /// Shows everything to the engine, in the order in which the operator does.
    pub(super) fn feed(
        &self,
        engine: &mut Engine,
        pools: &Pools,
        reserved: &BTreeSet<(IpNet, Name)>,
        hosts: &BTreeMap<Name, Host>,
    ) {
        for (name, seen) in &self.claims {
            engine.see_claims(name, seen.1.network, Some(seen.clone()));
        }
        for (name, host) in hosts {
            engine.see_host(name, Some(host.cidrs.clone()));
        }
        engine.set_reserved(reserved.clone());
        engine.set_pools(pools.clone());
        for (name, view) in &self.nodes {
            engine.see_node(name, Some(view.clone()));
        }
    }

    /// Does what the engine asks for until it asks for nothing more.
    pub(super) fn settle(&mut self, engine: &mut Engine) {
        for _ in 0..MOST_LOOKS {
            let effects = engine.poll(self.now, "");
            if effects.is_empty() {
                match engine.next_wake() {
                    Some(at) if at <= LONGEST => self.now = at,
                    _ => return,
                }
            }
            for effect in effects {
                let outcome = self.execute(&effect);
                engine.finish(&effect, outcome);
            }
        }
    }

    /// How many blocks nodes list.
    pub(super) fn listed(&self) -> usize {
        self.nodes.values().map(|view| view.pod_cidrs.len()).sum()
    }

    /// Has every node whose `short` names a family say that its blocks of it are used up; whether any did.
    pub(super) fn run_low(&mut self, engine: &mut Engine, short: impl Fn(&str, &NodeView) -> Vec<Family>) -> bool {
        let low: Vec<(Name, Vec<Family>)> = self
            .nodes
            .iter()
            .filter(|(name, _)| self.reports.get(*name).and_then(|found| found.condition.as_ref()).is_none_or(|c| c.0))
            .map(|(name, view)| (name.clone(), short(name, view)))
            .filter(|(_, families)| !families.is_empty())
            .collect();
        for (name, families) in &low {
            let view = self.touch(name, |view| {
                let cidrs: Vec<IpNet> = view.pod_cidrs.iter().filter_map(|text| text.parse().ok()).collect();
                for cidr in cidrs.into_iter().filter(|cidr| families.contains(&Family::of_net(cidr))) {
                    let used = view.uses.entry(cidr).or_insert(BlockUse::Depleted);
                    if *used == BlockUse::InUse {
                        *used = BlockUse::Depleted;
                    }
                }
            });
            engine.see_node(name, view);
        }
        !low.is_empty()
    }

    fn execute(&mut self, effect: &Effect) -> Outcome {
        match effect {
            Effect::WriteClaims { object, claims, .. } => {
                let version = self.next_version();
                self.claims.insert(object.clone(), (version.clone(), claims.clone()));
                Outcome::ClaimsWritten(Ok(version))
            }
            Effect::ReadClaims { object } => Outcome::ClaimsRead(Ok(self.claims.get(object).cloned())),
            Effect::ListOverlaps { object, network } => {
                let others = self.claims.iter().filter(|(name, (_, claims))| {
                    *name != object && (claims.network.contains(network) || network.contains(&claims.network))
                });
                let found = others.map(|(name, (version, claims))| (name.clone(), version.clone(), claims.clone()));
                Outcome::Overlaps(Ok(found.collect()))
            }
            Effect::ReadNode { node } => Outcome::Node(Ok(self.nodes.get(node).cloned())),
            Effect::FenceNode { node } => Outcome::Node(Ok(self.touch(node, |_| {}))),
            Effect::PatchNode { node, pod_cidrs, allocated, .. } => Outcome::Node(Ok(self.touch(node, |view| {
                if let Some(list) = pod_cidrs {
                    view.pod_cidrs.clone_from(list);
                    // As an agent does: what is not listed any more has no state.
                    let listed: BTreeSet<IpNet> = list.iter().filter_map(|text| text.parse().ok()).collect();
                    view.uses.retain(|cidr, _| listed.contains(cidr));
                }
                if let Some(list) = allocated {
                    view.allocated.clone_from(list);
                }
            }))),
            Effect::ReportNode { node, report, .. } => {
                self.reports.insert(node.clone(), report.clone());
                Outcome::Node(Ok(self.touch(node, |view| view.report = report.clone())))
            }
        }
    }
}
