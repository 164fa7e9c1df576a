//! The world of the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::values::{Families, Family};
use kinesin_ipam_blocks::{
    BlockRange, BlockUse, Claims, Effect, Engine, Failure, Mode, Name, NodeView, Outcome, Pool, Pools, Report, Request,
    Settings, Source, Version, parse_object_name,
};
use proptest::test_runner::TestCaseError;

const NODES: usize = 4;
const QUARANTINE: Duration = Duration::from_secs(30);
/// Peers know of a change after this at the latest.
const PEERS: Duration = Duration::from_secs(25);
const HOLD: Duration = Duration::from_secs(600);

type Check = Result<(), TestCaseError>;

/// One object of the API server after one write; nothing if it was deleted.
#[derive(Debug, Clone)]
enum Event {
    Claims(Name, Option<(u64, Claims)>),
    Node(Name, Option<(u64, Node)>),
}

/// A CiliumNode.
#[derive(Debug, Clone, Default, PartialEq)]
struct Node {
    mode: Option<Mode>,
    pod_cidrs: Vec<String>,
    allocated: Vec<Pool>,
    requested: BTreeMap<Name, Request>,
    uses: BTreeMap<IpNet, BlockUse>,
    report: Report,
    touched: u64,
}

impl Node {
    fn view(&self, version: u64) -> NodeView {
        NodeView {
            version: Version(version.to_string()),
            mode: self.mode,
            pod_cidrs: self.pod_cidrs.clone(),
            allocated: self.allocated.clone(),
            requested: self.requested.clone(),
            uses: self.uses.clone(),
            report: self.report.clone(),
        }
    }

    fn blocks(&self) -> Vec<IpNet> {
        let texts = self.pod_cidrs.iter().chain(self.allocated.iter().flat_map(|pool| &pool.cidrs));
        texts.map(|text| text.parse().expect("a network")).collect()
    }
}

#[derive(Debug, Default)]
struct Operator {
    engine: Option<Engine>,
    /// Events that its watches have delivered.
    seen: usize,
    /// Requests that did not reach the API server yet, and for a fence what was read.
    requests: Vec<(Effect, Option<u64>)>,
    answers: Vec<(Effect, Outcome)>,
}

pub(crate) struct World {
    pools: Pools,
    roomy: bool,
    now: Duration,
    version: u64,
    claims: BTreeMap<Name, (u64, Claims)>,
    nodes: BTreeMap<Name, (u64, Node)>,
    log: Vec<Event>,
    operators: [Operator; 2],
    /// When a block left a node's list.
    left: Vec<(IpNet, Name, Duration)>,
    broken: Option<String>,
}

fn name(number: usize) -> Name {
    format!("n{}", number % NODES).into()
}

impl World {
    pub(crate) fn new(pools: Pools, roomy: bool) -> Self {
        let mut world = Self::empty(pools, roomy);
        for number in 0..NODES {
            world.set_mode(number, if number % 2 == 0 { Mode::ClusterPool } else { Mode::MultiPool });
        }
        world
    }

    /// Without nodes.
    pub(crate) fn empty(pools: Pools, roomy: bool) -> Self {
        Self {
            pools,
            roomy,
            now: Duration::from_secs(1),
            version: 0,
            claims: BTreeMap::new(),
            nodes: BTreeMap::new(),
            log: Vec::new(),
            operators: Default::default(),
            left: Vec::new(),
            broken: None,
        }
    }

    pub(crate) fn play(&mut self, script: &[u16]) -> Check {
        for step in script {
            self.step(usize::from(*step));
            self.check()?;
        }
        Ok(())
    }

    /// No address is listed by two nodes, nor by one soon after another had it.
    pub(crate) fn check(&mut self) -> Check {
        let all: Vec<_> =
            self.nodes.iter().flat_map(|(name, (_, node))| node.blocks().into_iter().map(move |b| (b, name))).collect();
        for (index, (block, node)) in all.iter().enumerate() {
            for (other, holder) in &all[index + 1..] {
                if block.contains(other) || other.contains(block) {
                    return Err(TestCaseError::fail(format!("{block} of {node} and {other} of {holder}")));
                }
            }
        }
        match self.broken.take() {
            Some(reason) => Err(TestCaseError::fail(reason)),
            None => Ok(()),
        }
    }

    fn step(&mut self, number: usize) {
        let (kind, rest) = (number % 16, number / 16);
        let which = rest % 2;
        match kind {
            0..=2 => self.deliver(which, 1 + rest / 2 % 4),
            3..=5 => self.reach(which, rest / 2),
            6..=8 => self.answer(which, rest / 2),
            9 => self.lose(which, rest / 2),
            10 => self.now += Duration::from_millis(200 * (1 + rest as u64 % 100)),
            11 if rest % 4 == 0 => self.operators[which] = Operator::default(),
            11 => self.start(which, rest / 8),
            _ => self.agent(rest % NODES, rest / NODES),
        }
    }

    /// Starts an operator from a state of some age, unless it runs.
    pub(crate) fn start(&mut self, which: usize, age: usize) {
        if self.operators[which].engine.is_some() {
            return self.poll(which);
        }
        let seen = self.log.len() - (age % 8).min(self.log.len());
        let mut engine = Engine::new(Settings {
            mode: Mode::ClusterPool,
            families: Families { v4: true, v6: false },
            grow: true,
            quarantine: QUARANTINE,
            hold: HOLD,
        });
        engine.set_pools(self.pools.clone());
        let mut state = BTreeMap::new();
        for event in &self.log[..seen] {
            let key = match event {
                Event::Claims(name, _) => (0, name.clone()),
                Event::Node(name, _) => (1, name.clone()),
            };
            state.insert(key, event.clone());
        }
        for event in state.into_values() {
            feed(&mut engine, event);
        }
        self.operators[which] = Operator { engine: Some(engine), seen, ..Operator::default() };
        self.poll(which);
    }

    fn poll(&mut self, which: usize) {
        let operator = &mut self.operators[which];
        if let Some(engine) = &mut operator.engine {
            let effects = engine.poll(self.now, "wall clocks jump");
            operator.requests.extend(effects.into_iter().map(|effect| (effect, None)));
        }
    }

    /// What is under way of an operator arrives and is answered, whatever that leads to; its watches stay silent.
    pub(crate) fn run(&mut self, which: usize) -> Check {
        for _ in 0..1000 {
            self.reach(which, 0);
            self.answer(which, 0);
            self.check()?;
        }
        Ok(())
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    pub(crate) fn deliver(&mut self, which: usize, count: usize) {
        for _ in 0..count {
            let operator = &mut self.operators[which];
            let (Some(engine), Some(event)) = (&mut operator.engine, self.log.get(operator.seen)) else { break };
            feed(engine, event.clone());
            operator.seen += 1;
        }
        self.poll(which);
    }

    pub(crate) fn reach(&mut self, which: usize, index: usize) {
        if self.operators[which].requests.is_empty() {
            return;
        }
        let index = index % self.operators[which].requests.len();
        let (effect, read) = self.operators[which].requests.remove(index);
        match (&effect, read) {
            (Effect::FenceNode { node }, None) if self.nodes.contains_key(node) => {
                let version = self.nodes[node].0;
                self.operators[which].requests.push((effect, Some(version)));
            }
            _ => {
                let outcome = self.execute(&effect, read);
                self.operators[which].answers.push((effect, outcome));
            }
        }
    }

    pub(crate) fn answer(&mut self, which: usize, index: usize) {
        let operator = &mut self.operators[which];
        if let (Some(engine), false) = (&mut operator.engine, operator.answers.is_empty()) {
            let (effect, outcome) = operator.answers.remove(index % operator.answers.len());
            engine.finish(&effect, outcome);
        }
        self.poll(which);
    }

    /// A request or its answer is lost. The request may still arrive later, which only those that write notice.
    fn lose(&mut self, which: usize, index: usize) {
        let operator = &mut self.operators[which];
        let (effect, delayed) = if index.is_multiple_of(2) && !operator.requests.is_empty() {
            let (effect, read) = operator.requests.remove(index / 2 % operator.requests.len());
            let writes = matches!(effect, Effect::WriteClaims { .. } | Effect::PatchNode { .. });
            (effect.clone(), (writes && index.is_multiple_of(4)).then_some((effect, read)))
        } else if !operator.answers.is_empty() {
            (operator.answers.remove(index / 2 % operator.answers.len()).0, None)
        } else {
            return;
        };
        if let Some(engine) = &mut operator.engine {
            engine.finish(&effect, failed(&effect));
        }
        self.poll(which);
        if let Some((effect, read)) = delayed {
            self.execute(&effect, read);
        }
    }

    /// What the API server does.
    fn execute(&mut self, effect: &Effect, read: Option<u64>) -> Outcome {
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

    fn write_node(&mut self, name: &Name, node: Option<Node>) {
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
    fn agent(&mut self, number: usize, choice: usize) {
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

    /// The agent of a node prefers a mode; it is made if it is not there.
    pub(crate) fn set_mode(&mut self, number: usize, mode: Mode) {
        let node = self.nodes.get(&name(number)).map(|(_, node)| node.clone()).unwrap_or_default();
        self.write_node(&name(number), Some(Node { mode: Some(mode), ..node }));
    }

    pub(crate) fn ask(&mut self, number: usize, pool: &str, ipv4: u64) {
        let mut node = self.nodes[&name(number)].1.clone();
        node.requested.insert(pool.into(), Request { ipv4, ipv6: 0 });
        self.write_node(&name(number), Some(node));
    }

    /// Blocks of a node.
    pub(crate) fn blocks(&self, number: usize) -> Vec<IpNet> {
        self.nodes[&name(number)].1.blocks()
    }

    /// Requests of an operator that did not arrive yet.
    pub(crate) fn requests(&self, which: usize) -> usize {
        self.operators[which].requests.len()
    }

    pub(crate) fn publish_by_hand(&mut self, number: usize, block: &str) {
        let mut node = self.nodes[&name(number)].1.clone();
        node.pod_cidrs.push(block.to_owned());
        self.write_node(&name(number), Some(node));
    }

    /// One operator, nothing lost, until nobody has anything to do.
    pub(crate) fn settle(&mut self) -> Check {
        // Requests that are under way still arrive.
        for which in [0, 1] {
            while !self.operators[which].requests.is_empty() {
                self.reach(which, 0);
                self.check()?;
            }
            self.operators[which] = Operator::default();
        }
        self.start(0, 0);
        for _ in 0..40 {
            for _ in 0..10_000 {
                let operator = &self.operators[0];
                let idle =
                    operator.requests.is_empty() && operator.answers.is_empty() && operator.seen == self.log.len();
                if idle {
                    break;
                }
                self.deliver(0, usize::MAX);
                self.reach(0, 0);
                self.answer(0, 0);
                self.check()?;
            }
            assert!(self.operators[0].requests.is_empty(), "it comes to rest");
            self.now += Duration::from_secs(20);
            self.poll(0);
        }
        Ok(())
    }

    /// Claimed is what is listed, and whoever lacks something lacks it because there is none.
    pub(crate) fn nothing_is_lost(&mut self) -> Check {
        self.agree()?;
        let engine = self.operators[0].engine.as_ref().expect("it runs");
        if self.roomy && !engine.counts().problems.is_empty() {
            return Err(TestCaseError::fail(format!("problems in an empty range: {:?}", engine.counts().problems)));
        }
        // All nodes go; then one that asks for everything gets everything.
        for number in 0..NODES {
            self.write_node(&name(number), None);
        }
        self.settle()?;
        self.agree()?;
        let all = |family| -> u128 { self.pools.ranges(&Source::pool("other"), family).map(BlockRange::count).sum() };
        let (ipv4, ipv6) = (all(Family::V4) as u64, all(Family::V6) as u64);
        let everything = Node {
            mode: Some(Mode::MultiPool),
            requested: BTreeMap::from([("other".into(), Request { ipv4: 2 * ipv4, ipv6: 14 * ipv6 })]),
            ..Node::default()
        };
        self.write_node(&name(0), Some(everything));
        self.settle()?;
        self.agree()?;
        let blocks = self.nodes[&name(0)].1.blocks();
        let expected = ipv4 + ipv6;
        if blocks.len() as u64 != expected {
            return Err(TestCaseError::fail(format!("{} of {expected} blocks came back: {blocks:?}", blocks.len())));
        }
        Ok(())
    }

    fn agree(&self) -> Check {
        let mut claimed = BTreeSet::new();
        for (object, (_, claims)) in &self.claims {
            assert_eq!(parse_object_name(object), Some(claims.network));
            claimed.extend(claims.claims.iter().map(|(block, claim)| (*block, claim.node.clone())));
        }
        let listed: BTreeSet<_> = self
            .nodes
            .iter()
            .flat_map(|(name, (_, node))| node.blocks().into_iter().map(move |block| (block, name.clone())))
            .collect();
        if claimed != listed {
            let (claims, lists) = (claimed.difference(&listed), listed.difference(&claimed));
            let text =
                format!("claimed only: {:?}; listed only: {:?}", claims.collect::<Vec<_>>(), lists.collect::<Vec<_>>());
            return Err(TestCaseError::fail(text));
        }
        Ok(())
    }
}

fn feed(engine: &mut Engine, event: Event) {
    match event {
        Event::Claims(name, seen) => {
            let network = parse_object_name(&name).expect("a network");
            engine.see_claims(&name, network, seen.map(|(v, claims)| (Version(v.to_string()), claims)));
        }
        Event::Node(name, seen) => engine.see_node(&name, seen.map(|(version, node)| node.view(version))),
    }
}

fn failed(effect: &Effect) -> Outcome {
    match effect {
        Effect::WriteClaims { .. } => Outcome::ClaimsWritten(Err(Failure::Unknown)),
        Effect::ReadClaims { .. } => Outcome::ClaimsRead(Err(Failure::Unknown)),
        Effect::ListOverlaps { .. } => Outcome::Overlaps(Err(Failure::Unknown)),
        _ => Outcome::Node(Err(Failure::Unknown)),
    }
}
