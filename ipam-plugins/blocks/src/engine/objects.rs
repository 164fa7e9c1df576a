//! What is to be done about an object of claims, and what came of it.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{Effect, Engine, Failure, ObjectFlight, choose::Verdict};
use crate::{
    claims::{Change, Claims, Read},
    taken::Holder,
    types::{Name, Version},
};

/// What becomes of a change that waits to be written.
enum Fate {
    Write,
    /// Fences are missing.
    Wait(Vec<Name>),
    Drop,
}

impl Engine {
    /// The next effect on an object, unless one is under way.
    pub(super) fn object_effect(&mut self, name: &Name) -> Option<Effect> {
        let object = self.objects.get(name)?;
        if object.flight.is_some() || object.retry.not_before > self.now {
            return None;
        }
        if !object.certain {
            return Some(self.read_object(name));
        }
        let mut writes = BTreeMap::new();
        for (block, change) in object.changes.clone() {
            match self.fate(name, &block, &change) {
                Fate::Write => drop(writes.insert(block, change)),
                Fate::Wait(nodes) => self.want_fences(nodes),
                Fate::Drop => self.drop_change(name, &block, &change),
            }
        }
        let stamp = self.tick();
        let object = self.objects.get_mut(name)?;
        if !writes.is_empty() {
            let next = object.claims.after(&writes, &self.wall);
            object.changes.retain(|block, _| !writes.contains_key(block));
            object.flight = Some(ObjectFlight::Write { stamp, changes: writes, next: next.clone() });
            return Some(Effect::WriteClaims { object: name.clone(), version: object.version.clone(), claims: next });
        }
        if object.wanted < object.confirmed || object.waiters.is_empty() {
            return None;
        }
        if object.fresh <= object.wanted {
            return Some(self.read_object(name));
        }
        object.flight = Some(ObjectFlight::Overlaps { stamp: object.fresh });
        Some(Effect::ListOverlaps { object: name.clone(), network: object.network })
    }

    fn read_object(&mut self, name: &Name) -> Effect {
        let stamp = self.tick();
        if let Some(object) = self.objects.get_mut(name) {
            object.flight = Some(ObjectFlight::Read { stamp, version: object.version.clone() });
        }
        Effect::ReadClaims { object: name.clone() }
    }

    fn fate(&self, name: &Name, block: &IpNet, change: &Change) -> Fate {
        let held = self.objects.get(name).and_then(|object| object.claims.claims.get(block));
        match change {
            Change::Release(node) => {
                let holds = held.is_some_and(|claim| claim.node == *node);
                let lists = self.nodes.get(node).is_some_and(|node| node.listed.contains_key(block));
                if holds && !lists { Fate::Write } else { Fate::Drop }
            }
            Change::Claim { claim, .. } if held.is_some_and(|held| held.node == claim.node) => Fate::Drop,
            Change::Claim { claim, adopt: true, .. } => {
                let node = &claim.node;
                let lists = self.nodes.get(node).is_some_and(|node| node.listed.contains_key(block));
                let by_other = |(_, holder): (IpNet, &Holder)| matches!(holder, Holder::Claim { node: other, .. } if other != node);
                if !lists || self.taken.overlapping(block).any(by_other) { Fate::Drop } else { Fate::Write }
            }
            Change::Claim { claim, early, .. } => match self.judge(block, &claim.node, *early, true) {
                Verdict::Free => Fate::Write,
                Verdict::Resting(_, unfenced) if *early => Fate::Wait(unfenced),
                Verdict::Resting(..) | Verdict::Taken(_) => Fate::Drop,
            },
        }
    }

    fn drop_change(&mut self, name: &Name, block: &IpNet, change: &Change) {
        if let Some(object) = self.objects.get_mut(name) {
            object.changes.remove(block);
        }
        match change {
            Change::Claim { claim, .. } => self.unchoose(&claim.node.clone(), block),
            Change::Release(node) => drop(self.dirty.insert(node.clone())),
        }
    }

    pub(super) fn claims_written(&mut self, name: &Name, result: Result<Version, Failure>) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(name) else { return };
        let Some(ObjectFlight::Write { stamp, changes, next }) = object.flight.take() else { return };
        self.busy.insert(name.clone());
        match result {
            Ok(version) => {
                object.retry = super::Retry::default();
                object.fresh = object.fresh.max(stamp);
                // A watch may have shown what came after it.
                let known = object.version.clone();
                if known.is_none_or(|known| version.is_newer_than(&known)) {
                    self.take_claims(name, Some((version, next)));
                }
                for (block, change) in changes {
                    match change {
                        Change::Claim { claim, .. } => self.unchoose(&claim.node, &block),
                        Change::Release(node) => drop(self.dirty.insert(node)),
                    }
                }
            }
            Err(failure) => {
                for (block, change) in changes {
                    object.changes.entry(block).or_insert(change);
                }
                object.certain = false;
                if failure == Failure::Unknown {
                    object.retry.failed(now);
                }
            }
        }
    }

    pub(super) fn claims_read(&mut self, name: &Name, result: Result<Read, Failure>) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(name) else { return };
        let Some(ObjectFlight::Read { stamp, version }) = object.flight.take() else { return };
        self.busy.insert(name.clone());
        let Ok(read) = result else {
            object.certain = false;
            object.retry.failed(now);
            return;
        };
        object.retry = super::Retry::default();
        object.fresh = object.fresh.max(stamp);
        match (&read, &object.version) {
            (Some((read, _)), Some(known)) if !read.is_newer_than(known) => object.certain = true,
            // It was made while this answer was on its way: which came first, another read tells.
            (None, known) if *known != version => object.certain = false,
            _ => self.take_claims(name, read),
        }
    }

    pub(super) fn overlaps_listed(&mut self, name: &Name, result: Result<Vec<(Name, Version, Claims)>, Failure>) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(name) else { return };
        let Some(ObjectFlight::Overlaps { stamp }) = object.flight.take() else { return };
        self.busy.insert(name.clone());
        let Ok(found) = result else {
            object.retry.failed(now);
            return;
        };
        object.retry = super::Retry::default();
        for (other, version, claims) in found {
            let known = self.object(&other, claims.network).version.clone();
            if known.is_none_or(|known| version.is_newer_than(&known)) {
                self.take_claims(&other, Some((version, claims)));
            }
        }
        if let Some(object) = self.objects.get_mut(name) {
            object.confirmed = object.confirmed.max(stamp);
            let waiters = std::mem::take(&mut object.waiters);
            self.ready.extend(waiters);
        }
    }
}
