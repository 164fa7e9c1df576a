//! The project's goals, and whether a run met them.
//!
//! Each says how many times as good as another Kinesin shall at least be; a latency of at most 1.10 times another's is
//! an advantage of at least 1/1.10.

use super::Report;
use crate::{
    case::Contender,
    metric::Metric,
    stats::{Advantage, FEWEST},
};

/// A goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Name of the case.
    pub case: &'static str,
    /// Which of its figures.
    pub metric: Metric,
    /// Which of ours.
    pub ours: Contender,
    /// Compared with whom.
    pub against: Contender,
    /// The least advantage.
    pub at_least: f64,
}

/// A goal and what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The goal.
    pub goal: Goal,
    /// What was measured.
    pub advantage: Advantage,
}

impl Outcome {
    /// `met` or `missed` where the whole interval says so, else with `, not certain`.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        let Advantage { ratio, low, high, rounds } = self.advantage;
        if rounds < FEWEST {
            return "too few rounds";
        }
        match (ratio >= self.goal.at_least, low >= self.goal.at_least, high >= self.goal.at_least) {
            (true, true, _) => "met",
            (true, false, _) => "met, not certain",
            (false, _, true) => "missed, not certain",
            (false, _, false) => "missed",
        }
    }
}

const fn goal(case: &'static str, metric: Metric, against: Contender, at_least: f64) -> Goal {
    Goal { case, metric, ours: Contender::Kinesin, against, at_least }
}

const fn tunnel(ours: Contender, case: &'static str, metric: Metric, against: Contender, at_least: f64) -> Goal {
    Goal { case, metric, ours, against, at_least }
}

/// Bulk through a tunnel, compared with the kernel's own device.
const FASTER: f64 = 1.15;
/// A response through a tunnel takes at most 0.95 of the time.
const SOONER: f64 = 1.0 / 0.95;

const GOALS: [Goal; 32] = [
    goal("same-node/tcp-segmented", Metric::Throughput, Contender::Bridge, 1.2),
    goal("same-node/udp-64", Metric::PacketRate, Contender::Bridge, 1.2),
    goal("same-node/tcp-stream", Metric::Throughput, Contender::Routing, 0.9),
    goal("same-node/tcp-stream", Metric::CpuPerGb, Contender::Routing, 1.0 / 0.9),
    goal("same-node/tcp-rr", Metric::RoundTripP50, Contender::Veth, 1.0 / 1.1),
    goal("same-node/tcp-rr", Metric::RoundTripP99, Contender::Veth, 1.0 / 1.1),
    goal("same-node/udp-rr", Metric::RoundTripP50, Contender::Veth, 1.0 / 1.1),
    goal("same-node/udp-rr", Metric::RoundTripP99, Contender::Veth, 1.0 / 1.1),
    goal("other-node/tcp-stream", Metric::Throughput, Contender::Routing, 0.9),
    goal("other-node/tcp-stream", Metric::CpuPerGb, Contender::Routing, 1.0 / 0.9),
    goal("other-node/tcp-segmented", Metric::Throughput, Contender::Routing, 1.1),
    goal("other-node/udp-64", Metric::PacketRate, Contender::Routing, 1.1),
    goal("other-node/tcp-rr", Metric::RoundTripP50, Contender::Routing, 1.0 / 1.05),
    goal("other-node/tcp-rr", Metric::RoundTripP99, Contender::Routing, 1.0 / 1.05),
    goal("other-node/udp-rr", Metric::RoundTripP50, Contender::Routing, 1.0 / 1.05),
    goal("other-node/udp-rr", Metric::RoundTripP99, Contender::Routing, 1.0 / 1.05),
    tunnel(Contender::KinesinVxlan, "other-node/tcp-stream", Metric::Throughput, Contender::Flannel, FASTER),
    tunnel(Contender::KinesinVxlan, "other-node/tcp-rr", Metric::RoundTripP50, Contender::Flannel, SOONER),
    tunnel(Contender::KinesinVxlan, "other-node/tcp-rr", Metric::RoundTripP99, Contender::Flannel, SOONER),
    tunnel(Contender::KinesinGeneve, "other-node/tcp-stream", Metric::Throughput, Contender::Flannel, FASTER),
    tunnel(Contender::KinesinGeneve, "other-node/tcp-rr", Metric::RoundTripP50, Contender::Flannel, SOONER),
    tunnel(Contender::KinesinGeneve, "other-node/tcp-rr", Metric::RoundTripP99, Contender::Flannel, SOONER),
    // Where the kernel has both ways, the quicker one is the default (`tunnel.path: auto`).
    tunnel(
        Contender::KinesinVxlan,
        "other-node/tcp-rr-one-cpu",
        Metric::RoundTripP50,
        Contender::KinesinVxlanDevice,
        1.0,
    ),
    // As many bytes, so as fast.
    tunnel(Contender::KinesinGeneve, "other-node/tcp-stream", Metric::Throughput, Contender::KinesinVxlan, 1.0),
    tunnel(Contender::KinesinGeneve, "other-node/udp-64", Metric::PacketsPerCore, Contender::KinesinVxlan, 1.0),
    goal("same-node/tcp-segmented-v6", Metric::Throughput, Contender::Bridge, 1.2),
    goal("same-node/udp-64-v6", Metric::PacketRate, Contender::Bridge, 1.2),
    goal("other-node/udp-64-v6", Metric::PacketRate, Contender::Routing, 1.1),
    goal("add/1", Metric::AddP50, Contender::Bridge, 2.0),
    goal("add/1", Metric::AddP99, Contender::Bridge, 2.0),
    goal("add/100", Metric::AddP50, Contender::Bridge, 2.0),
    goal("add/100", Metric::AddP99, Contender::Bridge, 2.0),
];

/// Every goal that the report has figures for.
pub(super) fn outcomes(report: &Report) -> Vec<Outcome> {
    let outcome = |goal: Goal| {
        let case = report.cases.iter().find(|case| case.case == goal.case)?;
        let metric = case.metrics.iter().find(|found| found.metric == goal.metric)?;
        Some(Outcome { goal, advantage: metric.advantage(goal.ours, goal.against)? })
    };
    GOALS.into_iter().filter_map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{case::Case, report::tests::sample};

    #[test]
    fn every_goal_is_about_a_case_and_who_takes_part_in_it() {
        for goal in GOALS {
            let case = Case::all().into_iter().find(|case| case.name() == goal.case).expect(goal.case);
            assert!(case.contenders().contains(&goal.ours) && goal.ours.rivals().contains(&goal.against), "{goal:?}");
            assert!(case.contenders().contains(&goal.against), "{goal:?}");
        }
    }

    #[test]
    fn a_goal_is_met_for_certain_only_by_the_whole_interval() {
        let goal = GOALS[0];
        let verdict =
            |ratio, low, high| Outcome { goal, advantage: Advantage { ratio, low, high, rounds: 9 } }.verdict();
        assert_eq!(verdict(1.3, 1.25, 1.35), "met");
        assert_eq!(verdict(1.3, 1.1, 1.5), "met, not certain");
        assert_eq!(verdict(1.1, 1.0, 1.3), "missed, not certain");
        assert_eq!(verdict(1.1, 1.0, 1.15), "missed");
    }

    #[test]
    fn goals_without_figures_are_left_out() {
        let outcomes = outcomes(&sample());
        assert_eq!(outcomes.len(), 1);
        assert_eq!((outcomes[0].goal.case, outcomes[0].verdict()), ("same-node/udp-64", "met"));
    }
}
