//! The world of the model: operators, what is under way between them and the API server, and what must hold.

mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kinesin_core::values::{Families, Family};
use kinesin_ipam_blocks::{
    BlockRange, BlockUse, Claims, Effect, Engine, Mode, Name, NodeView, Outcome, Pool, Pools, Report, Request,
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
            engine.finish(&effect, server::failed(&effect));
        }
        self.poll(which);
        if let Some((effect, read)) = delayed {
            self.execute(&effect, read);
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
