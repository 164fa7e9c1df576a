//! What is to be done about a CiliumNode, and what came of any effect.

use ipnet::IpNet;

use super::{Effect, Engine, Failure, GATHER, NodeFlight, Outcome, Retry};
use crate::{
    node::NodeView,
    problem::Report,
    types::{Mode, Name},
};

impl Engine {
    /// The next effect on a CiliumNode, unless one is under way.
    pub(super) fn node_effect(&mut self, name: &Name) -> Option<Effect> {
        let node = self.nodes.get(name)?;
        if node.flight.is_some() || node.retry.not_before > self.now {
            return None;
        }
        if node.fence {
            return self.fence_effect(name);
        }
        if node.reread {
            return Some(self.take_off(name, NodeFlight::Read, Effect::ReadNode { node: name.clone() }));
        }
        if let Some(effect) = self.patch_effect(name) {
            return Some(self.take_off(name, NodeFlight::Write, effect));
        }
        let node = self.nodes.get(name)?;
        let view = node.view.as_ref()?;
        let report = Report::of(&node.problems, name, &view.report);
        if report == view.report {
            return None;
        }
        let effect = Effect::ReportNode { node: name.clone(), version: view.version.clone(), report };
        Some(self.take_off(name, NodeFlight::Write, effect))
    }

    fn take_off(&mut self, name: &Name, flight: NodeFlight, effect: Effect) -> Effect {
        if let Some(node) = self.nodes.get_mut(name) {
            node.flight = Some(flight);
        }
        effect
    }

    fn fence_effect(&mut self, name: &Name) -> Option<Effect> {
        let node = self.nodes.get(name)?;
        let releases = node.released.iter().filter_map(|(block, object)| {
            let rest = self.objects.get(object)?.rests.get(block).filter(|rest| rest.fenced.is_none())?;
            Some((object.clone(), *block, rest.sequence))
        });
        let releases: Vec<_> = releases.collect();
        if releases.is_empty() {
            self.nodes.get_mut(name)?.fence = false;
            self.ready.insert(name.clone());
            return self.node_effect(name);
        }
        Some(self.take_off(name, NodeFlight::Fence(releases), Effect::FenceNode { node: name.clone() }))
    }

    /// What to put into the lists; nothing as long as a claim that it needs is not confirmed.
    fn patch_effect(&mut self, name: &Name) -> Option<Effect> {
        let node = self.nodes.get(name)?;
        let view = node.view.as_ref()?;
        let (publish, remove) = (node.publish.clone(), node.remove.clone());
        let (stamp, version) = (node.stamp, view.version.clone());
        if publish.is_empty() && remove.is_empty() {
            return None;
        }
        let more_to_come = node.chosen.keys().any(|block| !node.listed.contains_key(block));
        if more_to_come && node.publish_since.is_some_and(|since| since + GATHER > self.now) {
            return None;
        }
        let places: Vec<(IpNet, Name)> =
            publish.keys().filter_map(|block| Some((*block, node.claims.get(block)?.clone()))).collect();
        let mut unconfirmed = places.len() != publish.len();
        for (block, object) in places {
            let confirmed = self.objects.get(&object).is_some_and(|found| found.confirmed > stamp);
            if !confirmed {
                if let Some(found) = self.objects.get_mut(&object) {
                    found.wanted = found.wanted.max(stamp);
                    found.waiters.insert(name.clone());
                    self.busy.insert(object);
                }
                unconfirmed = true;
            } else if self.overlaps_elsewhere(&block, name, &object) {
                // Another was first: this claim was never to be.
                self.release(name, block, &object);
                if let Some(node) = self.nodes.get_mut(name) {
                    node.publish.remove(&block);
                }
                unconfirmed = true;
            }
        }
        if unconfirmed {
            return None;
        }
        let view = self.nodes.get(name)?.view.as_ref()?;
        let of_mode = |mode: Mode| publish.iter().filter(move |(_, source)| source.mode == mode);
        let direct: Vec<IpNet> = of_mode(Mode::ClusterPool).map(|(block, _)| *block).collect();
        let pools: Vec<(Name, IpNet)> =
            of_mode(Mode::MultiPool).map(|(block, source)| (source.pool.clone(), *block)).collect();
        let pod_cidrs = (!direct.is_empty() || !remove.is_empty()).then(|| view.next_pod_cidrs(&direct, &remove));
        let allocated = (!pools.is_empty()).then(|| view.next_allocated(&pools));
        Some(Effect::PatchNode { node: name.clone(), version, pod_cidrs, allocated })
    }

    /// Takes the outcome of an effect.
    pub fn finish(&mut self, effect: &Effect, outcome: Outcome) {
        match (effect, outcome) {
            (Effect::WriteClaims { object, .. }, Outcome::ClaimsWritten(result)) => self.claims_written(object, result),
            (Effect::ReadClaims { object }, Outcome::ClaimsRead(result)) => self.claims_read(object, result),
            (Effect::ListOverlaps { object, .. }, Outcome::Overlaps(result)) => self.overlaps_listed(object, result),
            (
                Effect::PatchNode { node, .. }
                | Effect::ReportNode { node, .. }
                | Effect::ReadNode { node }
                | Effect::FenceNode { node },
                Outcome::Node(result),
            ) => self.node_finished(node, result),
            _ => debug_assert!(false, "an outcome of another effect"),
        }
    }

    fn node_finished(&mut self, name: &Name, result: Result<Option<NodeView>, Failure>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let flight = node.flight.take();
        self.ready.insert(name.clone());
        match result {
            Ok(view) => {
                node.retry = Retry::default();
                node.reread = false;
                self.see_node(name, view);
                if let Some(NodeFlight::Fence(releases)) = flight {
                    self.fenced(name, releases);
                }
            }
            Err(failure) => {
                // A fence reads by itself.
                node.reread = !matches!(flight, Some(NodeFlight::Fence(_)));
                if failure == Failure::Unknown {
                    node.retry.failed(now);
                    self.timed.insert(name.clone());
                }
            }
        }
    }

    /// Nobody can publish these by a claim of before their release any more, unless the node lists them.
    fn fenced(&mut self, name: &Name, releases: Vec<(Name, IpNet, u64)>) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(name) {
            node.fence = false;
        }
        for (object, block, sequence) in releases {
            let listed = self.nodes.get(name).is_some_and(|node| node.listed.contains_key(&block));
            let rest = self.objects.get_mut(&object).and_then(|object| object.rests.get_mut(&block));
            if let Some(rest) = rest.filter(|rest| rest.sequence == sequence && !listed) {
                rest.fenced = Some(now);
            }
        }
        let waiting = self.objects.iter().filter(|(_, object)| !object.changes.is_empty());
        self.busy.extend(waiting.map(|(name, _)| name.clone()));
        self.freed();
    }
}
