//! What the API server answers, what agents and people write, and the rule that peers rely on.

use std::collections::BTreeSet;

use ipnet::IpNet;
use kinesin_ipam_blocks::{BlockUse, Effect, Failure, Mode, Name, Outcome, Request, Version};

use super::{Event, Node, PEERS, World, name};

impl World {
    /// What the API server does.
    pub(super) fn execute(&mut self, effect: &Effect, read: Option<u64>) -> Outcome {
        match effect {
            Effect::WriteClaims { object, version, claims } => {
                let current = self.claims.get(object).map(|(version, _)| version.to_string());
                if current != version.as_ref().map(|version| version.0.clone()) {
                    return Outcome::ClaimsWritten(Err(Failure::Conflict));
                }
                self.version += 1;
                self.claims.insert(object.clone(), (self.version, claims.clone()));
                self.log.push(Event::Claims(object.clone(), Some((self.version, claims.clone()))));
                Outcome::ClaimsWritten(Ok(Version(self.version.to_string())))
            }
            Effect::ReadClaims { object } => {
                let found = self.claims.get(object).map(|(v, claims)| (Version(v.to_string()), claims.clone()));
                Outcome::ClaimsRead(Ok(found))
            }
            Effect::ListOverlaps { object, network } => {
                let others = self.claims.iter().filter(|(name, (_, claims))| {
                    *name != object && (claims.network.contains(network) || network.contains(&claims.network))
                });
                let found = others.map(|(name, (v, claims))| (name.clone(), Version(v.to_string()), claims.clone()));
                Outcome::Overlaps(Ok(found.collect()))
            }
            Effect::ReadNode { node } => {
                Outcome::Node(Ok(self.nodes.get(node).map(|(version, node)| node.view(*version))))
            }
            Effect::FenceNode { node } => self.guarded(node, read.unwrap_or_default(), |node| node.touched += 1),
            Effect::PatchNode { node, version, pod_cidrs, allocated } => {
                self.guarded(node, version.0.parse().expect("a number"), |node| {
                    if let Some(list) = pod_cidrs {
                        node.pod_cidrs.clone_from(list);
                    }
                    if let Some(list) = allocated {
                        node.allocated.clone_from(list);
                    }
                })
            }
            Effect::ReportNode { node, version, report } => {
                self.guarded(node, version.0.parse().expect("a number"), |node| node.report = report.clone())
            }
        }
    }

    fn guarded(&mut self, name: &Name, version: u64, change: impl FnOnce(&mut Node)) -> Outcome {
        let Some((current, node)) = self.nodes.get(name) else { return Outcome::Node(Ok(None)) };
        if *current != version {
            return Outcome::Node(Err(Failure::Conflict));
        }
        let mut node = node.clone();
        change(&mut node);
        self.write_node(name, Some(node.clone()));
        Outcome::Node(Ok(Some(node.view(self.version))))
    }

    pub(super) fn write_node(&mut self, name: &Name, node: Option<Node>) {
        let before: BTreeSet<IpNet> = self.nodes.get(name).map(|(_, n)| n.blocks()).into_iter().flatten().collect();
        let after: BTreeSet<IpNet> = node.iter().flat_map(Node::blocks).collect();
        for block in before.difference(&after) {
            self.left.push((*block, name.clone(), self.now));
        }
        for block in after.difference(&before) {
            let soon = self.left.iter().find(|(other, node, at)| {
                node != name && *at + PEERS > self.now && (other.contains(block) || block.contains(other))
            });
            if let (true, Some((other, node, at))) = (self.roomy, soon) {
                let text = format!("{block} went to {name} at {:?}; {other} was {node}'s until {at:?}", self.now);
                self.broken = Some(text);
            }
        }
        self.version += 1;
        match &node {
            Some(node) => drop(self.nodes.insert(name.clone(), (self.version, node.clone()))),
            None => drop(self.nodes.remove(name)),
        }
        self.log.push(Event::Node(name.clone(), node.map(|node| (self.version, node))));
    }

    /// Something that an agent or a person does.
    pub(super) fn agent(&mut self, number: usize, choice: usize) {
        let name = name(number);
        let (kind, rest) = (choice % 10, choice / 10);
        let Some((_, node)) = self.nodes.get(&name) else {
            let mode = [Mode::ClusterPool, Mode::MultiPool, Mode::Kubernetes][rest % 3];
            return self.write_node(&name, Some(Node { mode: Some(mode), ..Node::default() }));
        };
        let mut node = node.clone();
        match kind {
            0..=2 => {
                let pool = if rest % 3 == 0 { "other" } else { "default" };
                let limit = if self.roomy { 24 } else { 9 };
                let request = match pool {
                    "other" => Request { ipv4: rest as u64 % 3, ipv6: rest as u64 % 20 },
                    _ => Request { ipv4: rest as u64 % limit, ipv6: 0 },
                };
                node.requested.insert(pool.into(), request);
            }
            // Gives a CIDR of a pool back.
            3..=5 => {
                if let Some(pool) = node.allocated.iter_mut().find(|pool| !pool.cidrs.is_empty()) {
                    pool.cidrs.remove(rest % pool.cidrs.len());
                }
                node.allocated.retain(|pool| !pool.cidrs.is_empty());
            }
            6 | 7 => {
                let cidrs: Vec<IpNet> = node.pod_cidrs.iter().map(|text| text.parse().expect("a network")).collect();
                node.uses.retain(|block, _| cidrs.contains(block));
                if let Some(block) = (!cidrs.is_empty()).then(|| cidrs[rest % cidrs.len()]) {
                    let all = [BlockUse::InUse, BlockUse::Depleted, BlockUse::Released];
                    let depleted = !self.roomy || cidrs.len() < 3;
                    let used = all[rest / 4 % 3];
                    let used = if used == BlockUse::Depleted && !depleted { BlockUse::InUse } else { used };
                    node.uses.insert(block, used);
                }
            }
            8 => node.mode = Some([Mode::ClusterPool, Mode::MultiPool, Mode::Kubernetes][rest % 3]),
            _ if rest % 4 == 0 => return self.write_node(&name, None),
            _ => {}
        }
        if self.nodes.get(&name).is_some_and(|(_, before)| *before != node) {
            self.write_node(&name, Some(node));
        }
    }
}

/// The outcome of an effect whose answer was lost.
pub(super) fn failed(effect: &Effect) -> Outcome {
    match effect {
        Effect::WriteClaims { .. } => Outcome::ClaimsWritten(Err(Failure::Unknown)),
        Effect::ReadClaims { .. } => Outcome::ClaimsRead(Err(Failure::Unknown)),
        Effect::ListOverlaps { .. } => Outcome::Overlaps(Err(Failure::Unknown)),
        _ => Outcome::Node(Err(Failure::Unknown)),
    }
}
