//! Which block a node gets.

use std::time::Duration;

use ipnet::IpNet;
use kinesin_core::values::Family;

use super::Engine;
use crate::{
    claims::{Change, Claim},
    node::BlockUse,
    pools::Source,
    problem::Problem,
    range::{BlockRange, object_name},
    taken::Holder,
    types::{Mode, Name},
};

/// How a released block rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resting {
    /// Not yet: somebody may still publish it for its last node.
    Unfenced,
    /// Since this time.
    Since(Duration),
    /// For long enough.
    Over,
}

impl Resting {
    /// Whether another node may have it; `early` if nothing else is free.
    pub(super) fn is_over(self, early: bool) -> bool {
        match self {
            Self::Unfenced => false,
            Self::Since(_) => early,
            Self::Over => true,
        }
    }
}

/// Whether a node may have a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// At once.
    Free,
    /// Not before it has rested: since when it does, and whose fences are missing before it can.
    Resting(Duration, Vec<Name>),
    /// Not: this network is somebody's.
    Taken(IpNet),
}

/// What a search found.
enum Found {
    Block(IpNet),
    /// Nothing but blocks that rest; this one does so for longest.
    Resting(IpNet, Duration),
    Nothing,
}

impl Engine {
    /// Chooses a block for a node and has its claim written.
    pub(super) fn choose(&mut self, name: &Name, source: &Source, family: Family) -> Result<IpNet, Problem> {
        let ranges: Vec<BlockRange> = self.pools.ranges(source, family).copied().collect();
        if ranges.is_empty() {
            return Err(match self.pools.has(source) {
                false if source.mode == Mode::MultiPool => Problem::NoPool { source: source.clone(), family },
                _ => {
                    let refused = self.pools.refused(source).to_vec();
                    Problem::NoRange { source: source.clone(), family, refused }
                }
            });
        }
        if let Some((range, block)) = self.own_released(name, source, &ranges) {
            self.reserve(name, source, &range, block, false);
            return Ok(block);
        }
        let mut fallback: Option<(BlockRange, IpNet, Duration)> = None;
        for range in &ranges {
            match self.search(name, source, range) {
                Found::Block(block) => {
                    self.reserve(name, source, range, block, false);
                    return Ok(block);
                }
                Found::Resting(block, since) if fallback.is_none_or(|(_, _, other)| since < other) => {
                    fallback = Some((*range, block, since));
                }
                Found::Resting(..) | Found::Nothing => {}
            }
        }
        if let Some((range, block, _)) = fallback {
            self.reserve(name, source, &range, block, true);
            return Ok(block);
        }
        let blocks = ranges.iter().fold(0_u128, |sum, range| sum.saturating_add(range.count()));
        let ranges = ranges.iter().map(BlockRange::cidr).collect();
        Err(Problem::Full { source: source.clone(), family, blocks, ranges })
    }

    /// A block that the node had before: it is free for it at once, and no peer has to learn anything.
    fn own_released(&self, name: &Name, source: &Source, ranges: &[BlockRange]) -> Option<(BlockRange, IpNet)> {
        let node = self.nodes.get(name)?;
        node.released.keys().find_map(|block| {
            let fits = |range: &&BlockRange| range.contains(block) && range.block_prefix() == block.prefix_len();
            let range = ranges.iter().find(fits)?;
            let free = !self.is_being_given_back(name, source, block)
                && self.judge(block, name, false, false) == Verdict::Free;
            free.then_some((*range, *block))
        })
    }

    /// The agent's word that it gave a block back is about the last time; until it is gone, the block would be taken
    /// from the node again at once.
    fn is_being_given_back(&self, name: &Name, source: &Source, block: &IpNet) -> bool {
        let view = self.nodes.get(name).and_then(|node| node.view.as_ref());
        source.mode == Mode::ClusterPool && view.is_some_and(|view| view.uses.get(block) == Some(&BlockUse::Released))
    }

    /// First fit from the cursor upwards, once around.
    fn search(&mut self, name: &Name, source: &Source, range: &BlockRange) -> Found {
        let key = (range.cidr(), range.block_prefix());
        let cursor = self.cursors.get(&key).copied().unwrap_or_default();
        if cursor.full == Some(self.epoch) {
            return Found::Nothing;
        }
        let (count, begin) = (range.count(), cursor.next % range.count());
        let (mut number, mut wrapped) = (begin, false);
        let mut resting: Option<(IpNet, Duration)> = None;
        // Each round passes something that is taken, so there are no more rounds than networks that are.
        while !(wrapped && number >= begin) {
            let block = range.nth(number);
            let mut next = number.checked_add(1).filter(|next| *next < count);
            match self.judge(&block, name, false, false) {
                Verdict::Free if !self.is_being_given_back(name, source, &block) => {
                    let cursor = self.cursors.entry(key).or_default();
                    cursor.next = next.unwrap_or(0);
                    return Found::Block(block);
                }
                Verdict::Free => {}
                Verdict::Resting(since, unfenced) => {
                    self.want_fences(unfenced);
                    if resting.is_none_or(|(_, other)| since < other) {
                        resting = Some((block, since));
                    }
                }
                Verdict::Taken(network) if network.prefix_len() < block.prefix_len() => {
                    next = range.number_after(&network);
                }
                Verdict::Taken(_) => {}
            }
            match next {
                Some(next) => number = next,
                None if wrapped => break,
                None => (number, wrapped) = (0, true),
            }
        }
        match resting {
            Some((block, since)) => Found::Resting(block, since),
            None => {
                self.cursors.entry(key).or_default().full = Some(self.epoch);
                Found::Nothing
            }
        }
    }

    /// Whether a node may have a block. `chosen`: it was chosen for it before, which does not speak against it.
    pub(super) fn judge(&self, block: &IpNet, node: &Name, early: bool, chosen: bool) -> Verdict {
        let (mut unfenced, mut resting) = (Vec::new(), None);
        for (network, holder) in self.taken.overlapping(block) {
            match holder {
                Holder::Chosen { node: other } if chosen && other == node && network == *block => {}
                Holder::Released { node: owner, .. } if owner == node => {}
                Holder::Released { node: owner, object } => match self.rest(object, &network) {
                    Resting::Over => {}
                    Resting::Since(_) if early => {}
                    Resting::Since(since) => resting = Some(resting.unwrap_or(Duration::ZERO).max(since)),
                    Resting::Unfenced => {
                        resting = Some(self.now);
                        if !unfenced.contains(owner) {
                            unfenced.push(owner.clone());
                        }
                    }
                },
                _ => return Verdict::Taken(network),
            }
        }
        resting.map_or(Verdict::Free, |since| Verdict::Resting(since, unfenced))
    }

    fn reserve(&mut self, name: &Name, source: &Source, range: &BlockRange, block: IpNet, early: bool) {
        if early {
            self.nodes.entry(name.clone()).or_default().early.insert(block);
        }
        self.claim(
            name,
            source,
            range,
            block,
            Change::Claim { claim: Claim { node: name.clone(), source: source.clone() }, adopt: false, early },
        );
    }

    /// Has a claim written.
    pub(super) fn claim(&mut self, name: &Name, source: &Source, range: &BlockRange, block: IpNet, change: Change) {
        let network = range.object_of(&block);
        let object: Name = object_name(&network).into();
        let before = self.object(&object, network).changes.insert(block, change);
        if let Some(Change::Claim { claim, .. }) = before
            && claim.node != *name
        {
            self.unchoose(&claim.node, &block);
        }
        self.busy.insert(object.clone());
        self.taken.insert(&block, Holder::Chosen { node: name.clone() });
        self.nodes.entry(name.clone()).or_default().chosen.insert(block, (source.clone(), object));
    }

    /// Takes a choice back: it was written, or it will not be.
    pub(super) fn unchoose(&mut self, name: &Name, block: &IpNet) {
        self.taken.remove(block, &Holder::Chosen { node: name.clone() });
        if let Some(node) = self.nodes.get_mut(name) {
            node.chosen.remove(block);
        }
        self.others_of(block, name);
        self.dirty.insert(name.clone());
    }
}
