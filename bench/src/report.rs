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
    /// How many times as good as each of the others Kinesin is.
    pub advantages: BTreeMap<Contender, Advantage>,
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
        let ours = contenders.get(&Contender::Kinesin).filter(|_| metric.is_compared());
        let advantage = |(contender, theirs): (&Contender, &Summary)| {
            let ours = ours?;
            let better = Advantage::of(&ours.rounds, &theirs.rounds, metric.more_is_better())?;
            Some((*contender, better))
        };
        let others = contenders.iter().filter(|(contender, _)| **contender != Contender::Kinesin);
        let advantages = others.filter_map(advantage).collect();
        Self { metric, unit: metric.unit(), more_is_better: metric.more_is_better(), contenders, advantages }
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

    /// A report of made-up figures: Kinesin has twice the packets of the bridge and half of a veth pair.
    pub(crate) fn sample() -> Report {
        let case = Case::Traffic { scope: Scope::SameNode, load: Load::Udp64, family: Family::V4 };
        let rounds = |kpps: f64| vec![vec![(Metric::PacketRate, kpps), (Metric::Loss, 0.0)]; 6];
        let runs = BTreeMap::from([
            (Contender::Kinesin, rounds(200.0)),
            (Contender::Veth, rounds(400.0)),
            (Contender::Bridge, rounds(100.0)),
        ]);
        Report {
            command: "./x bench udp".to_owned(),
            facts: Facts::gather(Path::new("/nonexistent")),
            settings: Settings { rounds: 6, seconds: 0.5, warm_up_seconds: 0.1, cpus: Some((0, 1)), adds: 50 },
            cases: vec![CaseReport::of(case, &runs)],
            programs: None,
            failures: vec!["add/1: it rained".to_owned()],
            seconds: 12.0,
        }
    }

    #[test]
    fn kinesin_is_compared_with_everyone_who_ran() {
        let report = sample();
        let packets = &report.cases[0].metrics[0];
        assert_eq!(packets.advantages[&Contender::Bridge].ratio, 2.0);
        assert_eq!(packets.advantages[&Contender::Veth].ratio, 0.5);
        assert_eq!(packets.advantages.len(), 2);
        assert!(report.cases[0].metrics[1].advantages.is_empty(), "what was lost has no ratio");
    }

    #[test]
    fn table_page_and_plot_name_cases_figures_and_failures() {
        let report = sample();
        let (text, page, plot) = (report.text(), markdown::render(&report), plot::render(&report).expect("a plot"));
        for (what, content) in [("table", &text), ("page", &page), ("plot", &plot)] {
            assert!(content.contains("same-node/udp-64") && content.contains("bridge"), "{what}: {content}");
        }
        assert!(text.contains("it rained") && page.contains("it rained"));
        assert!(text.contains("worse") && page.contains("worse"), "where it loses, it says so");
    }

    #[test]
    fn numbers_have_three_digits_that_matter() {
        assert_eq!([0.1234, 1.234, 12.34, 123.4].map(number), ["0.123", "1.23", "12.3", "123"]);
    }
}
