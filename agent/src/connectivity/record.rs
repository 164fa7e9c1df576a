//! What is known of every path.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kinesin_netlink::NetNs;

use super::{
    UNWELL_INTERVAL,
    probe::{Large, Outcome, Path},
};

/// Rounds over which loss is counted.
const WINDOW: usize = 20;
/// Upper bounds of the latency histogram in seconds.
pub(crate) const BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Node,
    Endpoint,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Node, Self::Endpoint];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Endpoint => "endpoint",
        }
    }
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) node: String,
    pub(crate) is_local: bool,
    pub(crate) kind: Kind,
    pub(crate) path: Path,
}

impl Target {
    fn key(&self) -> Key {
        (self.node.clone(), self.kind, self.path.peer)
    }

    /// Where its probes start: those to another node's health endpoint in the own one.
    pub(crate) fn netns<'a>(&self, inside: Option<&'a NetNs>) -> Option<&'a NetNs> {
        inside.filter(|_| self.kind == Kind::Endpoint && !self.is_local)
    }
}

/// Node, what of it, and the address.
type Key = (String, Kind, IpAddr);

/// What is known of one path.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) target: Target,
    /// What the last probe found; absent before the first one.
    pub(crate) outcome: Option<Outcome>,
    probed: Option<Instant>,
    /// Small echoes sent and answered, round by round.
    echoes: VecDeque<(u32, u32)>,
}

impl Record {
    fn new(target: Target) -> Self {
        Self { target, outcome: None, probed: None, echoes: VecDeque::new() }
    }

    /// Percent of small echoes that were lost lately; absent when none was sent.
    pub(crate) fn loss_percent(&self) -> Option<u32> {
        let (sent, answered) =
            self.echoes.iter().fold((0, 0), |(sent, answered), round| (sent + round.0, answered + round.1));
        (sent - answered).checked_mul(100)?.checked_div(sent)
    }

    /// What is wrong with the path in a sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        let outcome = self.outcome.as_ref()?;
        let mut parts = Vec::new();
        if let Err(reason) = &outcome.icmp {
            parts.push(format!("ICMP: {reason}"));
        }
        if let Err(reason) = &outcome.http {
            parts.push(format!("HTTP on TCP port {}: {reason}", self.target.path.port));
        }
        if self.is_black_hole() {
            parts.push(format!(
                "MTU black hole: packets of {} bytes vanish, smaller ones arrive, and nobody says that they are too \
                 large; raise the MTU of the network between the nodes, or lower the key mtu",
                self.target.path.mtu_bytes
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    pub(crate) fn is_black_hole(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.large == Large::Vanish)
    }

    fn is_due(&self, interval: Duration) -> bool {
        let interval = if self.problem().is_some() { UNWELL_INTERVAL } else { interval };
        self.probed.is_none_or(|when| when.elapsed() >= interval)
    }
}

/// Everything that is known of paths from this node.
#[derive(Debug, Default)]
pub(crate) struct Connectivity {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) records: BTreeMap<Key, Record>,
    pub(crate) interval: Duration,
    /// When a probe ended last.
    pub(crate) probed_at: Option<Timestamp>,
    pub(crate) latency: BTreeMap<(Kind, &'static str), Histogram>,
}

/// Latencies since the start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Histogram {
    pub(crate) counts: [u64; BUCKETS.len()],
    pub(crate) count: u64,
    pub(crate) sum_seconds: f64,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        for (count, bound) in self.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= bound);
        }
        self.count += 1;
        self.sum_seconds += seconds;
    }
}

impl Connectivity {
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over which paths there are. One that is another than before is a new one.
    pub(crate) fn expect(&self, targets: &[Target], interval: Duration) {
        let mut known = self.known();
        let mut before = std::mem::take(&mut known.records);
        for target in targets {
            let kept = before.remove(&target.key()).filter(|record| record.target == *target);
            known.records.insert(target.key(), kept.unwrap_or_else(|| Record::new(target.clone())));
        }
        known.interval = interval;
    }

    /// The paths that are to be probed now, those that were never probed first.
    pub(crate) fn due(&self) -> Vec<Target> {
        let known = self.known();
        let mut due: Vec<_> = known.records.values().filter(|record| record.is_due(known.interval)).collect();
        due.sort_by_key(|record| record.probed);
        due.into_iter().map(|record| record.target.clone()).collect()
    }

    /// Notes what came of a probe. A change for worse or better is told in the log, once.
    pub(crate) fn learn(&self, target: &Target, outcome: Outcome) {
        let mut known = self.known();
        for (protocol, time) in [("icmp", &outcome.icmp), ("http", &outcome.http)] {
            if let Ok(time) = time {
                known.latency.entry((target.kind, protocol)).or_default().add(*time);
            }
        }
        known.probed_at = Some(Timestamp::now());
        let Some(record) = known.records.get_mut(&target.key()) else { return };
        let before = record.problem();
        if outcome.sent > 0 {
            record.echoes.push_back((outcome.sent, outcome.answered));
        }
        while record.echoes.len() > WINDOW {
            record.echoes.pop_front();
        }
        record.outcome = Some(outcome);
        record.probed = Some(Instant::now());
        let (node, kind, address) = (&target.node, target.kind.word(), target.path.peer);
        match (before, record.problem()) {
            (before, Some(problem)) if before.as_ref() != Some(&problem) => {
                tracing::warn!(node, kind, %address, problem, "a path is not well");
            }
            (Some(_), None) => tracing::info!(node, kind, %address, "a path is well again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(node: &str, mtu_bytes: u32) -> Target {
        let path = Path { peer: "192.0.2.1".parse().expect("an address"), port: 4240, mtu_bytes };
        Target { node: node.to_owned(), is_local: false, kind: Kind::Node, path }
    }

    fn outcome(answered: bool, large: Large) -> Outcome {
        let time = Duration::from_micros(300);
        let icmp = if answered { Ok(time) } else { Err("no answer".to_owned()) };
        let (sent, got) = if answered { (1, 1) } else { (3, 0) };
        Outcome { icmp: icmp.clone(), http: icmp, sent, answered: got, large }
    }

    #[test]
    fn paths_are_due_once_and_forgotten_with_their_node() {
        let known = Connectivity::default();
        let (one, two) = (target("one", 1500), target("two", 1500));
        known.expect(&[one.clone(), two.clone()], Duration::from_secs(60));
        assert_eq!(known.due(), [one.clone(), two.clone()]);
        known.learn(&one, outcome(true, Large::Carried));
        assert_eq!(known.due(), std::slice::from_ref(&two));
        let narrower = target("one", 1400);
        known.expect(std::slice::from_ref(&narrower), Duration::from_secs(60));
        assert_eq!(known.due(), [narrower], "another MTU is another question");
        known.learn(&two, outcome(true, Large::Carried));
        assert_eq!(known.known().records.len(), 1, "what is learnt of a node that has left is dropped");
    }

    #[test]
    fn losses_and_black_holes_are_named() {
        let known = Connectivity::default();
        let path = target("one", 1500);
        known.expect(std::slice::from_ref(&path), Duration::from_secs(60));
        let record = || known.known().records.values().next().cloned().expect("one");
        assert_eq!((record().loss_percent(), record().problem()), (None, None));
        known.learn(&path, outcome(true, Large::Carried));
        assert_eq!((record().loss_percent(), record().problem()), (Some(0), None));
        known.learn(&path, outcome(false, Large::Unknown));
        assert_eq!(record().loss_percent(), Some(75));
        let problem = record().problem().expect("a problem");
        assert!(problem.contains("ICMP: no answer") && problem.contains("TCP port 4240"), "{problem}");
        known.learn(&path, outcome(true, Large::Vanish));
        let problem = record().problem().expect("a problem");
        assert!(problem.contains("MTU black hole") && problem.contains("1500 bytes"), "{problem}");
        for _ in 0..WINDOW {
            known.learn(&path, outcome(true, Large::Carried));
        }
        assert_eq!((record().loss_percent(), record().problem()), (Some(0), None), "the past is forgotten");
    }

    #[test]
    fn buckets_hold_what_is_at_most_their_bound() {
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_micros(300));
        histogram.add(Duration::from_secs(2));
        assert_eq!((histogram.counts, histogram.count), ([0, 1, 1, 1, 1, 1, 1, 1, 1], 2));
    }
}
