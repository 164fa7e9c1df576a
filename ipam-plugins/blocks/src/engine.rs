//! The protocol by which nodes get blocks, without any I/O: what was seen goes in, what is to be done comes out.
//!
//! Two operators may run at once, each with caches of any age. What keeps a block with one node all the same:
//!
//! 1. A block belongs to the node whose claim is in the block's object. Objects are written under the guard of their
//!    version, so of two who take a block in one object one fails.
//! 2. After such a write, the objects of overlapping networks are read from the API server. Whoever finds its block
//!    claimed by another there gives it back: of two who write, at least the later one sees the other.
//! 3. A claim is published on a CiliumNode under the guard of that object's version, and only after the claim was
//!    written or read from the API server *later* than the CiliumNode's version was.
//! 4. A claim is never just removed: it becomes a release that names its node. Then that node's CiliumNode is read, must
//!    not list the block, and is written (the fence), so that whoever was about to publish by a claim of before the
//!    release has an outdated version. Only from then on does the block rest, and then it is free for another node.
//!
//! Time enters by the caller's monotonic clock alone. An operator that starts has seen no fence, so what it finds
//! released rests anew.

mod choose;
mod counts;
mod decide;
mod effects;
mod exchange;
mod known;
mod objects;
mod see;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::values::Families;

pub use counts::Counts;
pub use exchange::{Effect, Failure, Outcome};

use known::{Node, NodeFlight, Object, ObjectFlight, Rest, Retry};

use crate::{
    claims::{Claims, Read},
    pools::Pools,
    taken::Taken,
    types::{Mode, Name, Version},
};

/// What an engine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Mode of nodes whose agent names none.
    pub mode: Mode,
    /// Families that nodes get blocks of in cluster-pool.
    pub families: Families,
    /// Whether a node that runs low in cluster-pool gets a further block.
    pub grow: bool,
    /// For how long a released block is not given to another node, unless nothing else is free.
    pub quarantine: Duration,
    /// For how long the blocks of a node are kept whose CiliumNode is gone while its Node is there: its agent makes it
    /// anew.
    pub hold: Duration,
}

/// Who has which block, and what is to be done about it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    pools: Pools,
    /// Addresses of no pod, by what they are.
    reserved: BTreeSet<(IpNet, Name)>,
    nodes: BTreeMap<Name, Node>,
    objects: BTreeMap<Name, Object>,
    taken: Taken,
    cursors: BTreeMap<(IpNet, u8), Cursor>,
    /// Nodes to decide about.
    dirty: BTreeSet<Name>,
    /// Nodes to look at for something to write.
    ready: BTreeSet<Name>,
    /// Nodes that want what there is not; looked at whenever something becomes free.
    waiting: BTreeSet<Name>,
    /// Nodes of which something becomes due by time.
    timed: BTreeSet<Name>,
    /// Objects to look at for something to write.
    busy: BTreeSet<Name>,
    /// Grows with everything that may have made a block free.
    epoch: u64,
    /// Orders reads and writes; grows with each.
    stamp: u64,
    /// Ends of rests up to here were looked at.
    last_rest: Duration,
    /// The first poll has been: what is seen from now on is new.
    begun: bool,
    now: Duration,
    wall: String,
}

/// Where the search in a range goes on.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    next: u128,
    /// The epoch in which nothing was free.
    full: Option<u64>,
}

/// For so long a node's claims wait for others of it, so that one write publishes all.
const GATHER: Duration = Duration::from_millis(500);

impl Engine {
    /// An engine that knows nothing yet. Feed it everything there is before the first [`poll`](Self::poll).
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pools: Pools::default(),
            reserved: BTreeSet::new(),
            nodes: BTreeMap::new(),
            objects: BTreeMap::new(),
            taken: Taken::default(),
            cursors: BTreeMap::new(),
            dirty: BTreeSet::new(),
            ready: BTreeSet::new(),
            waiting: BTreeSet::new(),
            timed: BTreeSet::new(),
            busy: BTreeSet::new(),
            epoch: 0,
            stamp: 1,
            last_rest: Duration::ZERO,
            begun: false,
            now: Duration::ZERO,
            wall: String::new(),
        }
    }

    /// What is to be done now. `now` is of a monotonic clock, `wall` is written into releases for people.
    pub fn poll(&mut self, now: Duration, wall: &str) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.begun = true;
        wall.clone_into(&mut self.wall);
        let mut effects = Vec::new();
        self.pass_time();
        while let Some(node) = self.dirty.pop_first() {
            self.decide(&node);
        }
        for object in std::mem::take(&mut self.busy) {
            effects.extend(self.object_effect(&object));
        }
        // Looking at objects may have dropped choices.
        while let Some(node) = self.dirty.pop_first() {
            self.decide(&node);
        }
        for node in std::mem::take(&mut self.ready) {
            effects.extend(self.node_effect(&node));
        }
        for object in std::mem::take(&mut self.busy) {
            effects.extend(self.object_effect(&object));
        }
        effects
    }

    /// When to poll again at the latest, if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<Duration> {
        let objects = self.objects.values().filter(|object| object.flight.is_none() && object.retry.failures > 0);
        let retries = objects.map(|object| object.retry.not_before);
        let nodes = self.timed.iter().filter_map(|name| {
            let node = self.nodes.get(name)?;
            let retry = (node.flight.is_none() && node.retry.failures > 0).then_some(node.retry.not_before);
            let hold = node.gone_since.map(|since| since + self.settings.hold);
            let gather = node.publish_since.map(|since| since + GATHER);
            [retry, hold, gather].into_iter().flatten().min()
        });
        let rests = (!self.waiting.is_empty()).then(|| {
            let rests = self.objects.values().flat_map(|object| object.rests.values());
            rests.filter_map(|rest| Some(rest.fenced? + self.settings.quarantine)).filter(|end| *end > self.now).min()
        });
        retries.chain(nodes).chain(rests.flatten()).filter(|at| *at > self.now).min()
    }

    fn tick(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// Something may have become free.
    fn freed(&mut self) {
        self.epoch += 1;
        self.dirty.append(&mut self.waiting);
    }
}

/// A read outcome as an option of version and content.
fn split(read: Read, network: IpNet) -> (Option<Version>, Claims) {
    match read {
        Some((version, claims)) => (Some(version), claims),
        None => (None, Claims::new(network)),
    }
}
