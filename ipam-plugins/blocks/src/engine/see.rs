//! What was seen: CiliumNodes, Nodes, pools, objects of claims, and the passing of time.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Engine, Object, Rest, Retry, Settings, choose::Resting, split};
use crate::{
    claims::{Claims, Read},
    node::NodeView,
    pools::Pools,
    taken::Holder,
    types::{Name, Version},
};

impl Engine {
    /// Pools as they are now; all nodes are looked at again if they are others.
    pub fn set_pools(&mut self, pools: Pools) {
        if self.pools != pools {
            self.pools = pools;
            self.look_at_all();
        }
    }

    /// Settings as they are now.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.look_at_all();
        }
    }

    /// Networks that no block may overlap, by what they are: addresses of nodes, networks of services.
    pub fn set_reserved(&mut self, reserved: BTreeSet<(IpNet, Name)>) {
        if self.reserved == reserved {
            return;
        }
        for (network, what) in std::mem::replace(&mut self.reserved, reserved.clone()) {
            self.taken.remove(&network, &Holder::Reserved { what });
        }
        for (network, what) in reserved {
            self.taken.insert(&network, Holder::Reserved { what });
        }
        self.look_at_all();
    }

    fn look_at_all(&mut self) {
        self.epoch += 1;
        self.dirty.extend(self.nodes.keys().cloned());
    }

    /// A CiliumNode as a watch or a read has it; nothing if there is none. An older version than is known is ignored.
    pub fn see_node(&mut self, name: &Name, view: Option<NodeView>) {
        let stamp = self.tick();
        let node = self.nodes.entry(name.clone()).or_default();
        if let (Some(old), Some(new)) = (&node.view, &view)
            && !new.version.is_newer_than(&old.version)
        {
            return;
        }
        let listed = view.as_ref().map(NodeView::blocks).unwrap_or_default();
        let before = std::mem::replace(&mut node.listed, listed.clone());
        node.gone_since = match view {
            Some(_) => None,
            None => node.gone_since.or(Some(self.now)),
        };
        node.view = view;
        node.stamp = stamp;
        node.reread = false;
        self.timed.insert(name.clone());
        self.dirty.insert(name.clone());
        let holder = Holder::Listed { node: name.clone() };
        for block in before.keys().filter(|block| !listed.contains_key(block)) {
            self.taken.remove(block, &holder);
            self.others_of(block, name);
            self.freed();
        }
        for block in listed.keys().filter(|block| !before.contains_key(block)) {
            self.taken.insert(block, holder.clone());
            self.others_of(block, name);
        }
    }

    /// A Node's pod CIDRs; nothing if there is no such Node.
    pub fn see_host(&mut self, name: &Name, cidrs: Option<Vec<IpNet>>) {
        let node = self.nodes.entry(name.clone()).or_default();
        if node.host == cidrs {
            return;
        }
        let before: Vec<IpNet> = std::mem::replace(&mut node.host, cidrs.clone()).unwrap_or_default();
        let after = cidrs.unwrap_or_default();
        self.dirty.insert(name.clone());
        let holder = Holder::Host { node: name.clone() };
        for block in before.iter().filter(|block| !after.contains(block)) {
            self.taken.remove(block, &holder);
            self.others_of(block, name);
            self.freed();
        }
        for block in after.iter().filter(|block| !before.contains(block)) {
            self.taken.insert(block, holder.clone());
            self.others_of(block, name);
        }
    }

    /// An object of claims as a watch has it. That one is gone is not believed: it is read.
    pub fn see_claims(&mut self, name: &Name, network: IpNet, seen: Option<(Version, Claims)>) {
        let object = self.object(name, network);
        match seen {
            // A write in flight knows better, whichever way it ends.
            Some((version, _)) if object.version.as_ref().is_some_and(|known| !version.is_newer_than(known)) => {}
            Some(seen) => self.take_claims(name, Some(seen)),
            None => {
                object.certain = false;
                self.busy.insert(name.clone());
            }
        }
    }

    /// The object of a network, made if it is not known yet.
    pub(super) fn object(&mut self, name: &Name, network: IpNet) -> &mut Object {
        self.objects.entry(name.clone()).or_insert_with(|| Object {
            network,
            version: None,
            claims: Claims::new(network),
            certain: true,
            changes: BTreeMap::new(),
            rests: BTreeMap::new(),
            confirmed: 0,
            fresh: 0,
            wanted: 0,
            waiters: BTreeSet::new(),
            flight: None,
            retry: Retry::default(),
        })
    }

    /// Puts a newer content in place of what is known of an object.
    pub(super) fn take_claims(&mut self, name: &Name, read: Read) {
        let now = self.now;
        let Some(object) = self.objects.get_mut(name) else { return };
        let (version, claims) = split(read, object.network);
        object.version = version;
        object.certain = true;
        let before = std::mem::replace(&mut object.claims, claims.clone());
        let (mut rests, mut fences) = (BTreeMap::new(), BTreeSet::new());
        for (block, released) in &claims.released {
            let known = object.rests.get(block).filter(|rest| rest.sequence == released.sequence).copied();
            if known.is_none() && self.begun {
                // At once, so that it begins to rest. What was there at the start waits until somebody wants it.
                fences.insert(released.claim.node.clone());
            }
            rests.insert(*block, known.unwrap_or(Rest { sequence: released.sequence, fenced: None }));
        }
        object.rests = rests;
        self.busy.insert(name.clone());
        self.want_fences(fences);
        let mut freed = false;
        for (block, claim) in &before.claims {
            if claims.claims.get(block).is_none_or(|after| after.node != claim.node) {
                self.taken.remove(block, &Holder::Claim { node: claim.node.clone(), object: name.clone() });
                let node = self.nodes.entry(claim.node.clone()).or_default();
                node.claims.remove(block);
                node.early.remove(block);
                self.dirty.insert(claim.node.clone());
                self.others_of(block, &claim.node);
                freed = true;
            }
        }
        for (block, released) in &before.released {
            if claims.released.get(block).is_none_or(|after| after.claim.node != released.claim.node) {
                let node = released.claim.node.clone();
                self.taken.remove(block, &Holder::Released { node: node.clone(), object: name.clone() });
                self.nodes.entry(node).or_default().released.remove(block);
            }
        }
        for (block, claim) in &claims.claims {
            if before.claims.get(block) != Some(claim) {
                self.taken.insert(block, Holder::Claim { node: claim.node.clone(), object: name.clone() });
                let node = self.nodes.entry(claim.node.clone()).or_default();
                node.claims.insert(*block, name.clone());
                if node.view.is_none() && node.gone_since.is_none() {
                    node.gone_since = Some(now);
                }
                self.timed.insert(claim.node.clone());
                self.dirty.insert(claim.node.clone());
                self.others_of(block, &claim.node);
            }
        }
        for (block, released) in &claims.released {
            let node = released.claim.node.clone();
            self.taken.insert(block, Holder::Released { node: node.clone(), object: name.clone() });
            self.nodes.entry(node).or_default().released.insert(*block, name.clone());
        }
        if freed {
            self.freed();
        }
    }

    /// Whoever shares addresses of a block with `node` is looked at again: it has a collision now, or none any more.
    pub(super) fn others_of(&mut self, block: &IpNet, node: &Name) {
        let others = self.taken.overlapping(block).filter_map(|(_, holder)| holder.node());
        let others: Vec<Name> = others.filter(|other| *other != node).cloned().collect();
        self.dirty.extend(others);
    }

    /// What becomes due by time alone.
    pub(super) fn pass_time(&mut self) {
        let (now, settings) = (self.now, self.settings.clone());
        if !self.waiting.is_empty() {
            let rests = self.objects.values().flat_map(|object| object.rests.values());
            let ends = rests.filter_map(|rest| Some(rest.fenced? + settings.quarantine));
            // Once for each end: the epoch in which a search failed is older than the release's rest.
            if ends.filter(|end| *end <= now && *end > self.last_rest).count() > 0 {
                self.last_rest = now;
                self.freed();
            }
        }
        let (mut dirty, mut ready) = (Vec::new(), Vec::new());
        self.timed.retain(|name| {
            let Some(node) = self.nodes.get(name) else { return false };
            let gone = node.gone_since.filter(|_| !node.claims.is_empty());
            if gone.is_some_and(|since| since + settings.hold <= now) {
                dirty.push(name.clone());
            }
            let retries = node.retry.failures > 0 || node.publish_since.is_some();
            if retries && node.flight.is_none() {
                ready.push(name.clone());
            }
            retries || gone.is_some()
        });
        self.dirty.extend(dirty);
        self.ready.extend(ready);
        let retrying = self.objects.iter().filter(|(_, object)| object.flight.is_none() && object.retry.failures > 0);
        self.busy.extend(retrying.map(|(name, _)| name.clone()));
    }

    /// Has the last nodes of released blocks read and written.
    pub(super) fn want_fences(&mut self, nodes: impl IntoIterator<Item = Name>) {
        for node in nodes {
            self.nodes.entry(node.clone()).or_default().fence = true;
            self.ready.insert(node);
        }
    }

    /// Whether another object has a claim on these addresses, or a release of another node that has not rested.
    pub(super) fn overlaps_elsewhere(&self, block: &IpNet, node: &Name, object: &Name) -> bool {
        let early = self.nodes.get(node).is_some_and(|node| node.early.contains(block));
        self.taken.overlapping(block).any(|(network, holder)| match holder {
            Holder::Claim { node: other, object: place } => place != object && (other != node || network != *block),
            Holder::Released { node: other, object: place } => {
                place != object && other != node && !self.rest(place, &network).is_over(early)
            }
            _ => false,
        })
    }

    /// How a release rests.
    pub(super) fn rest(&self, object: &Name, block: &IpNet) -> Resting {
        let rest = self.objects.get(object).and_then(|object| object.rests.get(block));
        match rest.and_then(|rest| rest.fenced) {
            None => Resting::Unfenced,
            Some(since) if since + self.settings.quarantine > self.now => Resting::Since(since),
            Some(_) => Resting::Over,
        }
    }
}
