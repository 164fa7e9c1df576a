//! What was measured, as data, a terminal table, JSON, a plot and a page.

mod goals;
mod markdown;
mod plot;
mod table;

use std::{collections::BTreeMap, fs, path::Path};

use serde::Serialize;

pub use goals::{Goal, Outcome};

use crate::{
    BenchError,
    case::{Case, Contender},
    facts::Facts,
    metric::{Figures, Metric},
    programs::Cost,
    stats::{Advantage, Summary},
};

/// A whole run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The command that makes such a report again.
    pub command: String,
    /// The machine.
    pub facts: Facts,
    /// How it was measured.
    pub settings: Settings,
    /// The cases, in the order of their runs.
    pub cases: Vec<CaseReport>,
    /// The kernel programs, if they were measured.
    pub programs: Option<Cost>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
    /// How long all of it took, setting up included, in seconds.
    pub seconds: f64,
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Interleaved rounds.
    pub rounds: usize,
    /// Measured seconds of a run.
    pub seconds: f64,
    /// Seconds before it.
    pub warm_up_seconds: f64,
    /// CPUs of client and server, if they were tied to some.
    pub cpus: Option<(usize, usize)>,
    /// ADDs of a round, one after another.
    pub adds: usize,
}

/// One case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CaseReport {
    /// Its name.
    pub case: String,
    /// What it measures.
    pub summary: &'static str,
    /// Its figures.
    pub metrics: Vec<MetricReport>,
}

/// One kind of figure of a case.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricReport {
    /// Which.
    pub metric: Metric,
    /// Its unit.
    pub unit: &'static str,
    /// Which way is better.
    pub more_is_better: bool,
    /// What each contender reached.
    pub contenders: BTreeMap<Contender, Summary>,
    /// How many times as good as its rivals each of ours is.
    pub comparisons: Vec<Comparison>,
}

/// One of ours and one of its rivals.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Which of ours.
    pub ours: Contender,
    /// With whom it is compared.
    pub theirs: Contender,
    /// How many times as good it is.
    #[serde(flatten)]
    pub advantage: Advantage,
}

impl CaseReport {
    /// Sums up the rounds of a case: per contender the figures of each run.
    #[must_use]
    pub fn of(case: Case, runs: &BTreeMap<Contender, Vec<Figures>>) -> Self {
        let mut metrics: Vec<Metric> = Vec::new();
        for (metric, _) in runs.values().flatten().flatten() {
            if !metrics.contains(metric) {
                metrics.push(*metric);
            }
        }
        let metrics = metrics.into_iter().map(|metric| MetricReport::of(metric, runs)).collect();
        Self { case: case.name(), summary: case.summary(), metrics }
    }
}

impl MetricReport {
    fn of(metric: Metric, runs: &BTreeMap<Contender, Vec<Figures>>) -> Self {
        let rounds = |figures: &Vec<Figures>| -> Vec<f64> {
            figures.iter().flatten().filter(|(found, _)| *found == metric).map(|(_, value)| *value).collect()
        };
        let contenders: BTreeMap<Contender, Summary> = runs
            .iter()
            .map(|(contender, figures)| (*contender, Summary::of(rounds(figures), metric.summed())))
            .filter(|(_, summary)| !summary.rounds.is_empty())
            .collect();
        let pairs =
            Contender::OURS.into_iter().flat_map(|ours| ours.rivals().iter().map(move |theirs| (ours, *theirs)));
        let compare = |(ours, theirs)| {
            let (mine, other) = (contenders.get(&ours)?, contenders.get(&theirs)?);
            let advantage = Advantage::of(&mine.rounds, &other.rounds, metric.more_is_better())?;
            Some(Comparison { ours, theirs, advantage })
        };
        let comparisons = pairs.filter(|_| metric.is_compared()).filter_map(compare).collect();
        Self { metric, unit: metric.unit(), more_is_better: metric.more_is_better(), contenders, comparisons }
    }

    /// What one of ours reached against a rival, if both ran.
    #[must_use]
    pub fn advantage(&self, ours: Contender, theirs: Contender) -> Option<Advantage> {
        let found = self.comparisons.iter().find(|found| (found.ours, found.theirs) == (ours, theirs));
        found.map(|found| found.advantage)
    }

    /// The comparisons with `theirs`.
    fn against(&self, theirs: Contender) -> impl Iterator<Item = &Comparison> {
        self.comparisons.iter().filter(move |found| found.theirs == theirs)
    }
}

impl Report {
    /// Figures that tables and the plot show.
    fn shown(&self) -> impl Iterator<Item = (&CaseReport, &MetricReport)> {
        let metrics = |case| {
            let case: &CaseReport = case;
            case.metrics.iter().filter(|found| found.metric.is_shown()).map(move |metric| (case, metric))
        };
        self.cases.iter().flat_map(metrics)
    }

    /// The table for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        table::render(self)
    }

    /// Writes `results.json`, `results.txt`, `results.md` and `results.svg` to a directory.
    ///
    /// # Errors
    /// `Io` and `Plot`.
    pub fn save(&self, dir: &Path) -> Result<(), BenchError> {
        fs::create_dir_all(dir).map_err(BenchError::io(format!("make {}", dir.display())))?;
        let json = serde_json::to_string_pretty(self).map_err(BenchError::io("write down the results"))?;
        for (name, content) in [
            ("results.json", json),
            ("results.txt", self.text()),
            ("results.md", markdown::render(self)),
            ("results.svg", plot::render(self)?),
        ] {
            write(&dir.join(name), &content)?;
        }
        Ok(())
    }

    /// Rewrites the page and the plot that are in the repository.
    ///
    /// # Errors
    /// `Io` and `Plot`.
    pub fn record(&self, dir: &Path) -> Result<(), BenchError> {
        write(&dir.join("RESULTS.md"), &markdown::render(self))?;
        write(&dir.join("results.svg"), &plot::render(self)?)
    }
}

fn write(path: &Path, content: &str) -> Result<(), BenchError> {
    fs::write(path, content).map_err(BenchError::io(format!("write {}", path.display())))
}

/// A number with three digits that matter.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::{Family, Load, Scope};

    /// A report of made-up figures: Kinesin has twice the packets of the bridge and half of a veth pair; with VXLAN it has
    /// twice those of flannel, with Geneve a quarter less than with VXLAN.
    pub(crate) fn sample() -> Report {
        let case = |scope| Case::Traffic { scope, load: Load::Udp64, family: Family::V4 };
        let rounds = |kpps: f64| vec![vec![(Metric::PacketRate, kpps), (Metric::Loss, 0.0)]; 6];
        let runs = BTreeMap::from([
            (Contender::Kinesin, rounds(200.0)),
            (Contender::Veth, rounds(400.0)),
            (Contender::Bridge, rounds(100.0)),
        ]);
        let tunnels = BTreeMap::from([
            (Contender::KinesinVxlan, rounds(80.0)),
            (Contender::KinesinGeneve, rounds(60.0)),
            (Contender::Flannel, rounds(40.0)),
        ]);
        Report {
            command: "./x bench udp".to_owned(),
            facts: Facts::gather(Path::new("/nonexistent")),
            settings: Settings { rounds: 6, seconds: 0.5, warm_up_seconds: 0.1, cpus: Some((0, 1)), adds: 50 },
            cases: vec![CaseReport::of(case(Scope::SameNode), &runs), CaseReport::of(case(Scope::OtherNode), &tunnels)],
            programs: None,
            failures: vec!["add/1: it rained".to_owned()],
            seconds: 12.0,
        }
    }

    #[test]
    fn kinesin_is_compared_with_everyone_who_ran() {
        let report = sample();
        let packets = &report.cases[0].metrics[0];
        let ratio = |theirs| packets.advantage(Contender::Kinesin, theirs).map(|found| found.ratio);
        assert_eq!((ratio(Contender::Bridge), ratio(Contender::Veth)), (Some(2.0), Some(0.5)));
        assert_eq!(packets.comparisons.len(), 2, "with nobody who did not run");
        assert!(report.cases[0].metrics[1].comparisons.is_empty(), "what was lost has no ratio");
    }

    #[test]
    fn tunnels_are_compared_with_tunnels() {
        let report = sample();
        let packets = &report.cases[1].metrics[0];
        let pairs: Vec<_> =
            packets.comparisons.iter().map(|found| (found.ours, found.theirs, found.advantage.ratio)).collect();
        assert_eq!(
            pairs,
            [
                (Contender::KinesinVxlan, Contender::Flannel, 2.0),
                (Contender::KinesinGeneve, Contender::KinesinVxlan, 0.75),
                (Contender::KinesinGeneve, Contender::Flannel, 1.5),
            ]
        );
    }

    #[test]
    fn table_page_and_plot_name_cases_figures_and_failures() {
        let report = sample();
        let (text, page, plot) = (report.text(), markdown::render(&report), plot::render(&report).expect("a plot"));
        for (what, content) in [("table", &text), ("page", &page), ("plot", &plot)] {
            for word in ["same-node/udp-64", "bridge", "other-node/udp-64", "kinesin-geneve", "flannel"] {
                assert!(content.contains(word), "no {word} in the {what}: {content}");
            }
        }
        assert!(text.contains("it rained") && page.contains("it rained"));
        assert!(text.contains("worse") && page.contains("worse"), "where it loses, it says so");
    }

    #[test]
    fn numbers_have_three_digits_that_matter() {
        assert_eq!([0.1234, 1.234, 12.34, 123.4].map(number), ["0.123", "1.23", "12.3", "123"]);
    }
}
