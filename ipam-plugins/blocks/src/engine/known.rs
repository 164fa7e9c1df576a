//! What is known of one node and of one object of claims, and what is under way about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    claims::{Change, Claims},
    node::NodeView,
    pools::Source,
    problem::Problem,
    types::{Name, Version},
};

/// Twice this passes before the first repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What is known of one node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) view: Option<NodeView>,
    /// When `view` was received.
    pub(super) stamp: u64,
    /// Its blocks, by what the view lists.
    pub(super) listed: BTreeMap<IpNet, Source>,
    /// Pod CIDRs of its Node; nothing if there is no Node.
    pub(super) host: Option<Vec<IpNet>>,
    /// Blocks that are claimed for it, and in which object.
    pub(super) claims: BTreeMap<IpNet, Name>,
    /// Blocks that are chosen for it, whose claim is being written.
    pub(super) chosen: BTreeMap<IpNet, (Source, Name)>,
    /// Blocks that it gave back, and in which object that is remembered.
    pub(super) released: BTreeMap<IpNet, Name>,
    /// Since when it has claims and no CiliumNode.
    pub(super) gone_since: Option<Duration>,
    /// Blocks that it got before they had rested.
    pub(super) early: BTreeSet<IpNet>,
    /// Claims to be listed.
    pub(super) publish: BTreeMap<IpNet, Source>,
    /// Since when there is something to publish.
    pub(super) publish_since: Option<Duration>,
    /// Entries of `podCIDRs` to be taken out.
    pub(super) remove: Vec<IpNet>,
    pub(super) problems: Vec<Problem>,
    /// Somebody needs the fence.
    pub(super) fence: bool,
    /// The view is outdated.
    pub(super) reread: bool,
    pub(super) flight: Option<NodeFlight>,
    pub(super) retry: Retry,
}

#[derive(Debug)]
pub(super) enum NodeFlight {
    Write,
    Read,
    /// Releases that the fence covers: they were known when it was asked for.
    Fence(Vec<(Name, IpNet, u64)>),
}

/// One object of claims.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) network: IpNet,
    pub(super) version: Option<Version>,
    pub(super) claims: Claims,
    /// Whether what is known is what the API server has, as far as anybody can know.
    pub(super) certain: bool,
    pub(super) changes: BTreeMap<IpNet, Change>,
    /// What is known here alone of the releases in `claims`.
    pub(super) rests: BTreeMap<IpNet, Rest>,
    /// When the last read or write was begun that was followed by a look at overlapping objects.
    pub(super) confirmed: u64,
    /// When the last read or write was begun, before that look.
    pub(super) fresh: u64,
    /// Nodes wait for `confirmed` to pass this.
    pub(super) wanted: u64,
    pub(super) waiters: BTreeSet<Name>,
    pub(super) flight: Option<ObjectFlight>,
    pub(super) retry: Retry,
}

#[derive(Debug)]
pub(super) enum ObjectFlight {
    Write { stamp: u64, changes: BTreeMap<IpNet, Change>, next: Claims },
    Read { stamp: u64, version: Option<Version> },
    Overlaps { stamp: u64 },
}

/// One release as this engine sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    pub(super) sequence: u64,
    /// Since when nobody can publish it for its last node any more; nothing before the fence.
    pub(super) fenced: Option<Duration>,
}

/// When to try again after failures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retry {
    pub(super) failures: u32,
    pub(super) not_before: Duration,
}

impl Retry {
    pub(super) fn failed(&mut self, now: Duration) {
        self.failures = (self.failures + 1).min(8);
        self.not_before = now + (FIRST_PAUSE * (1 << self.failures)).min(LONGEST_PAUSE);
    }
}
