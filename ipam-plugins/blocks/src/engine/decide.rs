//! What one node is to have, by what it says and what is claimed for it.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use kinesin_core::values::Family;

use super::Engine;
use crate::{
    claims::{Change, Claim},
    node::{BlockUse, NodeView},
    pools::Source,
    problem::Problem,
    range::usable_addresses,
    taken::Holder,
    types::{Mode, Name},
};

/// Addresses of one pool and family that a node gets at most. A node runs some hundred pods; whoever asks for more than
/// this made a mistake, which must not cost all others their blocks.
const MOST_ADDRESSES: u64 = 16_384;

/// What a node has of one source and family.
#[derive(Debug, Default)]
struct Holdings {
    /// Claimed, not listed yet.
    unlisted: Vec<IpNet>,
    /// Chosen; the claim is being written.
    chosen: Vec<IpNet>,
}

impl Engine {
    /// Decides what a node is to have. Level-triggered: it can be repeated at any time.
    pub(super) fn decide(&mut self, name: &Name) {
        self.waiting.remove(name);
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.publish.clear();
        node.remove.clear();
        node.problems.clear();
        self.ready.insert(name.clone());
        let Some(view) = node.view.clone() else {
            node.publish_since = None;
            self.decide_gone(name);
            return;
        };
        let mut problems = BTreeSet::new();
        for (field, text) in view.nonsense() {
            problems.insert(Problem::Nonsense { field, text: text.to_owned() });
        }
        let mode = view.mode.unwrap_or(self.settings.mode);
        self.adopt(name, mode, &mut problems);
        self.look_outside(name, mode, &mut problems);
        let mut keep = BTreeSet::new();
        self.serve_cluster_pool(name, &view, mode, &mut keep, &mut problems);
        if mode == Mode::MultiPool {
            self.serve_pools(name, &view, &mut keep, &mut problems);
        }
        self.give_back(name, &keep);
        let unserved = |problem: &Problem| {
            matches!(problem, Problem::Full { .. } | Problem::NoPool { .. } | Problem::NoRange { .. })
        };
        if problems.iter().any(unserved) {
            self.waiting.insert(name.clone());
        }
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(name) {
            node.problems = problems.into_iter().collect();
            let waits = !node.publish.is_empty();
            node.publish_since = waits.then(|| node.publish_since.unwrap_or(now));
            if waits {
                self.timed.insert(name.clone());
            }
        }
    }

    /// A node without a CiliumNode: its agent makes one anew for as long as the Node is there, for some time.
    fn decide_gone(&mut self, name: &Name) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let chosen: Vec<_> = node.chosen.iter().map(|(block, (_, object))| (*block, object.clone())).collect();
        let held = node.host.is_some() && node.gone_since.is_none_or(|since| since + self.settings.hold > self.now);
        let idle = node.flight.is_none() && !node.fence && node.host.is_none();
        if idle && node.claims.is_empty() && node.chosen.is_empty() && node.released.is_empty() {
            self.nodes.remove(name);
            return;
        }
        for (block, object) in chosen {
            if self.objects.get_mut(&object).is_some_and(|object| object.changes.remove(&block).is_some()) {
                self.unchoose(name, &block);
                self.dirty.remove(name);
            }
        }
        if !held {
            self.give_back(name, &BTreeSet::new());
        }
    }

    /// Claims what the node lists and nobody claimed, and reports what others hold too.
    fn adopt(&mut self, name: &Name, mode: Mode, problems: &mut BTreeSet<Problem>) {
        let Some(node) = self.nodes.get(name) else { return };
        let host = node.host.as_deref().unwrap_or_default();
        let mut adopted = Vec::new();
        for (block, source) in &node.listed {
            let mut claimed_by_other = false;
            for (other, holder) in self.taken.overlapping(block) {
                let Some(by) = holder.node().filter(|by| *by != name) else { continue };
                let text = match holder {
                    Holder::Claim { .. } | Holder::Chosen { .. } => {
                        claimed_by_other = true;
                        format!("node {by} (claimed)")
                    }
                    Holder::Listed { .. } => format!("node {by}"),
                    Holder::Host { .. } => format!("node {by} (spec.podCIDRs of its Node)"),
                    _ => continue,
                };
                problems.insert(Problem::Collision { block: *block, other, holder: text });
            }
            // What Kubernetes gave is not the operator's, whether or not its Node is known here yet.
            let of_host = source.mode == Mode::ClusterPool && (mode == Mode::Kubernetes || host.contains(block));
            if !of_host && !claimed_by_other && !node.claims.contains_key(block) && !node.chosen.contains_key(block) {
                adopted.push((*block, source.clone()));
            }
        }
        for (block, source) in adopted {
            let Some(range) = self.pools.range_of(&source, &block).copied() else { continue };
            let claim = Claim { node: name.clone(), source: source.clone() };
            self.claim(name, &source, &range, block, Change::Claim { claim, adopt: true, early: false });
        }
    }

    /// Reports what the node lists and no pool has any more: a pool that was deleted or made smaller while nodes used it,
    /// or what somebody wrote by hand. It stays the node's, since pods have addresses of it.
    fn look_outside(&self, name: &Name, mode: Mode, problems: &mut BTreeSet<Problem>) {
        let Some(node) = self.nodes.get(name) else { return };
        let host = node.host.as_deref().unwrap_or_default();
        let mut outside: BTreeMap<&Source, Vec<IpNet>> = BTreeMap::new();
        for (block, source) in &node.listed {
            let of_host = source.mode == Mode::ClusterPool && (mode == Mode::Kubernetes || host.contains(block));
            let mut ranges = self.pools.ranges(source, Family::of_net(block));
            if !of_host && !ranges.any(|range| range.contains(block)) {
                outside.entry(source).or_default().push(*block);
            }
        }
        for (source, blocks) in outside {
            let exists = self.pools.has(source);
            problems.insert(Problem::Outside { source: source.clone(), blocks, exists });
        }
    }

    fn serve_cluster_pool(
        &mut self,
        name: &Name,
        view: &NodeView,
        mode: Mode,
        keep: &mut BTreeSet<IpNet>,
        problems: &mut BTreeSet<Problem>,
    ) {
        let source = Source::cluster_pool();
        let prefers = mode == Mode::ClusterPool;
        for family in Family::ALL {
            let Some(node) = self.nodes.get(name) else { return };
            let served = prefers && self.settings.families.contains(family);
            let (mut released, mut active) = (Vec::new(), Vec::new());
            for (block, listed) in &node.listed {
                let of_host = node.host.as_ref().is_some_and(|host| host.contains(block));
                let ours = *listed == source && node.claims.contains_key(block) && !of_host;
                if !ours || Family::of_net(block) != family {
                    continue;
                }
                match view.uses.get(block) {
                    Some(BlockUse::Released) => released.push(*block),
                    used => active.push(used.copied()),
                }
            }
            let depleted = active.iter().all(|used| *used == Some(BlockUse::Depleted));
            let mut wanted = usize::from(served && (active.is_empty() || (depleted && self.settings.grow)));
            // The last one stays for as long as the node prefers this mode.
            let removable = !served || !active.is_empty();
            let mut holdings = self.holdings(name, &source, family);
            holdings.unlisted.retain(|block| view.uses.get(block) != Some(&BlockUse::Released));
            for block in holdings.unlisted {
                if wanted > 0 {
                    wanted -= 1;
                    keep.insert(block);
                    self.publish(name, block, &source);
                }
            }
            wanted = wanted.saturating_sub(holdings.chosen.len());
            if wanted > 0
                && let Err(problem) = self.choose(name, &source, family)
            {
                problems.insert(problem);
            }
            if let Some(node) = self.nodes.get_mut(name)
                && removable
            {
                node.remove.extend(released);
            }
        }
    }

    fn serve_pools(
        &mut self,
        name: &Name,
        view: &NodeView,
        keep: &mut BTreeSet<IpNet>,
        problems: &mut BTreeSet<Problem>,
    ) {
        for (pool, request) in &view.requested {
            let source = Source::pool(pool);
            for family in Family::ALL {
                let needed = request.of(family);
                if needed > MOST_ADDRESSES {
                    let source = source.clone();
                    problems.insert(Problem::Excessive { source, needed, limit: MOST_ADDRESSES });
                    continue;
                }
                let Some(node) = self.nodes.get(name) else { return };
                let ours =
                    node.listed.iter().filter(|(block, listed)| **listed == source && Family::of_net(block) == family);
                let mut have: u64 = ours.map(|(block, _)| usable_addresses(block)).sum();
                let holdings = self.holdings(name, &source, family);
                for block in holdings.unlisted {
                    if have < needed {
                        have += usable_addresses(&block);
                        keep.insert(block);
                        self.publish(name, block, &source);
                    }
                }
                have += holdings.chosen.iter().map(usable_addresses).sum::<u64>();
                while have < needed {
                    match self.choose(name, &source, family) {
                        Ok(block) => have += usable_addresses(&block),
                        Err(problem) => {
                            problems.insert(problem);
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Claims and choices of a source that the node does not list.
    fn holdings(&self, name: &Name, source: &Source, family: Family) -> Holdings {
        let mut holdings = Holdings::default();
        let Some(node) = self.nodes.get(name) else { return holdings };
        for (block, object) in &node.claims {
            let claim = self.objects.get(object).and_then(|object| object.claims.claims.get(block));
            let ours = claim.is_some_and(|claim| claim.source == *source) && Family::of_net(block) == family;
            if ours
                && !node.listed.contains_key(block)
                && !self.is_releasing(object, block)
                && !self.is_of_another(name, block)
            {
                holdings.unlisted.push(*block);
            }
        }
        let chosen = node.chosen.iter().filter(|(block, (chosen, _))| {
            chosen == source && Family::of_net(block) == family && !node.listed.contains_key(block)
        });
        holdings.chosen = chosen.map(|(block, _)| *block).collect();
        holdings
    }

    /// Whether another node holds addresses of a block too. Such a claim is of before an accident; it is given back.
    fn is_of_another(&self, name: &Name, block: &IpNet) -> bool {
        self.taken.overlapping(block).any(|(_, holder)| {
            let holds = matches!(holder, Holder::Claim { .. } | Holder::Listed { .. } | Holder::Host { .. });
            holds && holder.node().is_some_and(|other| other != name)
        })
    }

    /// Whether the release of a block is on its way already.
    fn is_releasing(&self, object: &Name, block: &IpNet) -> bool {
        let Some(object) = self.objects.get(object) else { return false };
        matches!(&object.flight, Some(super::ObjectFlight::Write { changes, .. })
            if matches!(changes.get(block), Some(Change::Release(_))))
    }

    fn publish(&mut self, name: &Name, block: IpNet, source: &Source) {
        if let Some(node) = self.nodes.get_mut(name) {
            // It was to be given back, and is wanted again.
            if let Some(object) = node.claims.get(&block).and_then(|object| self.objects.get_mut(object))
                && matches!(object.changes.get(&block), Some(Change::Release(_)))
            {
                object.changes.remove(&block);
            }
            node.publish.insert(block, source.clone());
        }
    }

    /// Releases what is claimed for the node, not listed by it, and not in `keep`.
    fn give_back(&mut self, name: &Name, keep: &BTreeSet<IpNet>) {
        let Some(node) = self.nodes.get(name) else { return };
        let unwanted: BTreeMap<IpNet, Name> = node
            .claims
            .iter()
            .filter(|(block, _)| !node.listed.contains_key(*block) && !keep.contains(*block))
            .map(|(block, object)| (*block, object.clone()))
            .collect();
        for (block, object) in unwanted {
            self.release(name, block, &object);
        }
    }

    /// Has a claim turned into a release.
    pub(super) fn release(&mut self, name: &Name, block: IpNet, object: &Name) {
        if self.is_releasing(object, &block) {
            return;
        }
        if let Some(found) = self.objects.get_mut(object) {
            found.changes.insert(block, Change::Release(name.clone()));
            self.busy.insert(object.clone());
        }
    }
}
