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
mod decide;
mod effects;
mod objects;
mod see;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::values::{Families, Family};

use crate::{
    claims::{Change, Claims, Read},
    node::{NodeView, Pool},
    pools::{Pools, Source},
    problem::{Problem, Report},
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

/// Something to be done. One at a time for each object and each CiliumNode; [`Engine::finish`] takes the outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Create the object, or replace the one of this version.
    WriteClaims {
        /// Its name.
        object: Name,
        /// The version that it must have; nothing if it must not exist.
        version: Option<Version>,
        /// The content.
        claims: Claims,
    },
    /// Read an object from the API server, not from a cache.
    ReadClaims {
        /// Its name.
        object: Name,
    },
    /// Read all other objects whose network overlaps this one, from the API server.
    ListOverlaps {
        /// Name of the object that asks.
        object: Name,
        /// Its network.
        network: IpNet,
    },
    /// Put lists into a CiliumNode, if it has this version.
    PatchNode {
        /// Its name.
        node: Name,
        /// The version that it must have.
        version: Version,
        /// The new `spec.ipam.podCIDRs`.
        pod_cidrs: Option<Vec<String>>,
        /// The new `spec.ipam.pools.allocated`.
        allocated: Option<Vec<Pool>>,
    },
    /// Put a report into a CiliumNode's status, if it has this version.
    ReportNode {
        /// Its name.
        node: Name,
        /// The version that it must have.
        version: Version,
        /// The report.
        report: Report,
    },
    /// Read a CiliumNode from the API server.
    ReadNode {
        /// Its name.
        node: Name,
    },
    /// Read a CiliumNode from the API server and write it, under the guard of the version that was read, so that it has
    /// another.
    FenceNode {
        /// Its name.
        node: Name,
    },
}

/// Why an effect did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Another wrote in between, so nothing was written.
    Conflict,
    /// Nobody knows whether it was done: no answer, or another refusal.
    Unknown,
}

/// What came of an effect.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Of `WriteClaims`: the new version.
    ClaimsWritten(Result<Version, Failure>),
    /// Of `ReadClaims`: the object, or that there is none.
    ClaimsRead(Result<Option<(Version, Claims)>, Failure>),
    /// Of `ListOverlaps`.
    Overlaps(Result<Vec<(Name, Version, Claims)>, Failure>),
    /// Of everything on a CiliumNode: how it is now, or that there is none.
    Node(Result<Option<NodeView>, Failure>),
}

/// How much there is, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Blocks that nodes have, by mode and pool.
    pub claimed: BTreeMap<Source, usize>,
    /// Blocks that were given back and not taken since.
    pub released: usize,
    /// Nodes that do not have what they ask for, by reason.
    pub problems: BTreeMap<&'static str, usize>,
    /// CiliumNodes.
    pub nodes: usize,
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

/// What is known of one node.
#[derive(Debug, Default)]
struct Node {
    view: Option<NodeView>,
    /// When `view` was received.
    stamp: u64,
    /// Its blocks, by what the view lists.
    listed: BTreeMap<IpNet, Source>,
    /// Pod CIDRs of its Node; nothing if there is no Node.
    host: Option<Vec<IpNet>>,
    /// Blocks that are claimed for it, and in which object.
    claims: BTreeMap<IpNet, Name>,
    /// Blocks that are chosen for it, whose claim is being written.
    chosen: BTreeMap<IpNet, (Source, Name)>,
    /// Blocks that it gave back, and in which object that is remembered.
    released: BTreeMap<IpNet, Name>,
    /// Since when it has claims and no CiliumNode.
    gone_since: Option<Duration>,
    /// Blocks that it got before they had rested.
    early: BTreeSet<IpNet>,
    /// Claims to be listed.
    publish: BTreeMap<IpNet, Source>,
    /// Since when there is something to publish.
    publish_since: Option<Duration>,
    /// Entries of `podCIDRs` to be taken out.
    remove: Vec<IpNet>,
    problems: Vec<Problem>,
    /// Somebody needs the fence.
    fence: bool,
    /// The view is outdated.
    reread: bool,
    flight: Option<NodeFlight>,
    retry: Retry,
}

#[derive(Debug)]
enum NodeFlight {
    Write,
    Read,
    /// Releases that the fence covers: they were known when it was asked for.
    Fence(Vec<(Name, IpNet, u64)>),
}

/// One object of claims.
#[derive(Debug)]
struct Object {
    network: IpNet,
    version: Option<Version>,
    claims: Claims,
    /// Whether what is known is what the API server has, as far as anybody can know.
    certain: bool,
    changes: BTreeMap<IpNet, Change>,
    /// What is known here alone of the releases in `claims`.
    rests: BTreeMap<IpNet, Rest>,
    /// When the last read or write was begun that was followed by a look at overlapping objects.
    confirmed: u64,
    /// When the last read or write was begun, before that look.
    fresh: u64,
    /// Nodes wait for `confirmed` to pass this.
    wanted: u64,
    waiters: BTreeSet<Name>,
    flight: Option<ObjectFlight>,
    retry: Retry,
}

#[derive(Debug)]
enum ObjectFlight {
    Write { stamp: u64, changes: BTreeMap<IpNet, Change>, next: Claims },
    Read { stamp: u64, version: Option<Version> },
    Overlaps { stamp: u64 },
}

/// One release as this engine sees it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    sequence: u64,
    /// Since when nobody can publish it for its last node any more; nothing before the fence.
    fenced: Option<Duration>,
}

/// When to try again after failures.
#[derive(Debug, Clone, Copy, Default)]
struct Retry {
    failures: u32,
    not_before: Duration,
}

impl Retry {
    fn failed(&mut self, now: Duration) {
        self.failures = (self.failures + 1).min(8);
        self.not_before = now + (FIRST_PAUSE * (1 << self.failures)).min(LONGEST_PAUSE);
    }
}

/// Twice this passes before the first repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
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

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for object in self.objects.values() {
            counts.released += object.claims.released.len();
            for claim in object.claims.claims.values() {
                *counts.claimed.entry(claim.source.clone()).or_default() += 1;
            }
        }
        for node in self.nodes.values() {
            counts.nodes += usize::from(node.view.is_some());
            for problem in &node.problems {
                *counts.problems.entry(problem.reason()).or_default() += 1;
            }
        }
        counts
    }

    /// Blocks of a pool that nodes have and that are in none of its ranges any more.
    #[must_use]
    pub fn claimed_outside(&self, source: &Source) -> usize {
        let claims = self.objects.values().flat_map(|object| &object.claims.claims);
        let outside = claims.filter(|(block, claim)| {
            let mut ranges = self.pools.ranges(source, Family::of_net(block));
            claim.source == *source && !ranges.any(|range| range.contains(block))
        });
        outside.count()
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
