//! A whole run as a library: what `kinesin conformance` does.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use super::{
    case::{Case, Scale, cases},
    catalogue::backends_of,
    lab,
    lease::{Lease, Session},
    plan::{Column, Filter, columns},
    verdict::Verdict,
};
use crate::target::{KubeOptions, KubeTarget, Subject, Target};

/// Cases that share a cluster and run at once; on two cores more only wait for each other.
const AT_ONCE: usize = 2;

/// On what cases are run.
#[derive(Debug, Clone)]
pub enum On {
    /// A lab for each combination, with the programs in this directory.
    Labs {
        /// Where `kinesin-agent` and its companions are.
        bin_dir: PathBuf,
    },
    /// A cluster as it is: one column.
    Cluster(KubeOptions),
}

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// On what.
    pub on: On,
    /// Which combinations and cases.
    pub filter: Filter,
    /// How large.
    pub scale: Scale,
    /// What everything random is made of.
    pub seed: u64,
}

/// What came of one case on one combination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseRun {
    /// The combination.
    pub combination: String,
    /// The case.
    pub case: String,
    /// What came of it.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Results {
    /// What was tested.
    pub subject: Subject,
    /// `lab` or `kube`.
    pub target: String,
    /// How large the cases were.
    pub scale: Scale,
    /// What everything random was made of.
    pub seed: u64,
    /// When it began.
    pub began: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// Columns: combinations in the order in which they ran.
    pub combinations: Vec<String>,
    /// Rows: cases in the order of the suite.
    pub cases: Vec<String>,
    /// What came of each.
    pub runs: Vec<CaseRun>,
}

impl Results {
    /// What came of one case on one combination, if it was run.
    #[must_use]
    pub fn of(&self, combination: &str, case: &str) -> Option<&CaseRun> {
        self.runs.iter().find(|run| run.combination == combination && run.case == case)
    }

    /// Numbers of passed, failed and skipped cases.
    #[must_use]
    pub fn tally(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Verdict) -> bool| self.runs.iter().filter(|run| which(&run.verdict)).count();
        (
            count(|verdict| matches!(verdict, Verdict::Passed { .. })),
            count(|verdict| matches!(verdict, Verdict::Failed { .. })),
            count(|verdict| matches!(verdict, Verdict::Skipped { .. })),
        )
    }
}

/// Who is told how a run goes on. Called from several threads.
pub trait Observer: Sync {
    /// Something takes its time: `lab host_scope-native-ebpf-tcx-dual comes up`.
    fn phase(&self, what: &str);
    /// A case begins.
    fn begins(&self, combination: &str, case: &str);
    /// A case has ended.
    fn ended(&self, run: &CaseRun);
    /// What else there is to tell about a failure, such as logs.
    fn detail(&self, text: &str);
    /// Whether to stop before the next case.
    fn is_over(&self) -> bool;
}

/// What would be run, as `(combination, cases)`; a cluster's one column is called `cluster`.
///
/// # Errors
/// When the agent's program cannot tell its backends.
pub fn list(options: &Options) -> Result<Vec<(String, Vec<&'static Case>)>, String> {
    match &options.on {
        On::Labs { bin_dir } => {
            let columns = lab_columns(bin_dir, &options.filter)?;
            Ok(columns.into_iter().map(|column| (column.combination.to_string(), column.cases)).collect())
        }
        On::Cluster(_) => Ok(vec![("cluster".to_owned(), wanted(&options.filter))]),
    }
}

fn wanted(filter: &Filter) -> Vec<&'static Case> {
    cases().iter().filter(|case| filter.wants_case(case.name)).collect()
}

fn lab_columns(bin_dir: &std::path::Path, filter: &Filter) -> Result<Vec<Column>, String> {
    let backends = backends_of(&lab::agent(bin_dir)).map_err(|error| error.to_string())?;
    Ok(columns(&backends, filter))
}

/// Runs it. Blocks, and must not be called from within a runtime.
///
/// # Errors
/// When nothing could be run: no case or combination is chosen, or the target cannot be reached. A lab that does not
/// come up fails every case of its combination instead.
pub fn run(options: &Options, observer: &dyn Observer) -> Result<Results, String> {
    let begun = Instant::now();
    let mut results = Results {
        subject: Subject::default(),
        target: String::new(),
        scale: options.scale,
        seed: options.seed,
        began: Timestamp::now(),
        took: Duration::ZERO,
        combinations: Vec::new(),
        cases: Vec::new(),
        runs: Vec::new(),
    };
    match &options.on {
        On::Labs { bin_dir } => on_labs(options, bin_dir, observer, &mut results)?,
        On::Cluster(cluster) => on_cluster(options, cluster, observer, &mut results)?,
    }
    let was_run = |case: &&Case| results.runs.iter().any(|run| run.case == case.name);
    results.cases = cases().iter().filter(was_run).map(|case| case.name.to_owned()).collect();
    results.took = begun.elapsed();
    Ok(results)
}

fn on_labs(
    options: &Options,
    bin_dir: &std::path::Path,
    observer: &dyn Observer,
    results: &mut Results,
) -> Result<(), String> {
    "lab".clone_into(&mut results.target);
    let columns = lab_columns(bin_dir, &options.filter)?;
    if columns.is_empty() {
        return Err("no combination and case is called so; --list shows them".to_owned());
    }
    let own = std::process::id();
    let session = Session::new(&format!("command {own} {:x}", options.seed), own, bin_dir);
    for column in columns {
        if observer.is_over() {
            break;
        }
        let name = column.combination.to_string();
        results.combinations.push(name.clone());
        let mut runs = Vec::new();
        let done = on_lab(options, &session, &column, observer, results, &mut runs);
        if let Err(reason) = done {
            // Whatever was not judged for want of a lab has failed for that.
            let judged: BTreeSet<String> = runs.iter().map(|run: &CaseRun| run.case.clone()).collect();
            for case in column.cases.iter().filter(|case| !judged.contains(case.name)) {
                let verdict = Verdict::Failed { reason: reason.clone() };
                let run =
                    CaseRun { combination: name.clone(), case: case.name.to_owned(), verdict, took: Duration::ZERO };
                observer.ended(&run);
                runs.push(run);
            }
        }
        results.runs.extend(runs);
    }
    Ok(())
}

fn on_lab(
    options: &Options,
    session: &Session,
    column: &Column,
    observer: &dyn Observer,
    results: &mut Results,
    runs: &mut Vec<CaseRun>,
) -> Result<(), String> {
    let name = column.combination.to_string();
    let take = || {
        observer.phase(&format!("lab {name} comes up"));
        Lease::take(session, column, options.scale, true)
    };
    let mut lease = take()?;
    results.subject = lab::subject(&session.bin_dir, &lease.target);
    let (alone, shared): (Vec<&Case>, Vec<&Case>) = column.cases.iter().copied().partition(|case| case.alone);
    let failed = judge_all(options, &lease.target, &name, &shared, AT_ONCE, observer, runs);
    let mut is_spoilt = failed;
    if failed {
        observer.detail(&lease.logs());
    }
    for case in alone {
        if observer.is_over() {
            break;
        }
        if is_spoilt {
            lease.down()?;
            lease = take()?;
        }
        is_spoilt = judge_all(options, &lease.target, &name, &[case], 1, observer, runs);
        if is_spoilt {
            observer.detail(&lease.logs());
        }
    }
    observer.phase(&format!("lab {name} goes down"));
    lease.down()
}

fn on_cluster(
    options: &Options,
    cluster: &KubeOptions,
    observer: &dyn Observer,
    results: &mut Results,
) -> Result<(), String> {
    "kube".clone_into(&mut results.target);
    let wanted = wanted(&options.filter);
    if wanted.is_empty() {
        return Err("no case is called so; --list shows them".to_owned());
    }
    observer.phase("looking at the cluster");
    let target = KubeTarget::connect(cluster)?;
    let name = target.combination();
    results.subject = target.subject().clone();
    results.combinations.push(name.clone());
    let (alone, shared): (Vec<&Case>, Vec<&Case>) = wanted.into_iter().partition(|case| case.alone);
    judge_all(options, &target, &name, &shared, AT_ONCE, observer, &mut results.runs);
    judge_all(options, &target, &name, &alone, 1, observer, &mut results.runs);
    Ok(())
}

/// Judges cases, some at once; the answer tells whether one has failed.
fn judge_all(
    options: &Options,
    target: &dyn Target,
    combination: &str,
    cases: &[&Case],
    at_once: usize,
    observer: &dyn Observer,
    runs: &mut Vec<CaseRun>,
) -> bool {
    let queue = Mutex::new(cases.iter());
    let (sender, judged) = mpsc::channel();
    let mut failed = false;
    thread::scope(|scope| {
        for _ in 0..at_once.min(cases.len()) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(case) = next.filter(|_| !observer.is_over()) else { return };
                    observer.begins(combination, case.name);
                    let begun = Instant::now();
                    let verdict = case.judge(target, options.scale, options.seed);
                    let (combination, case) = (combination.to_owned(), case.name.to_owned());
                    // The receiver outlives the scope.
                    let _ = sender.send(CaseRun { combination, case, verdict, took: begun.elapsed() });
                }
            });
        }
        drop(sender);
        for run in judged {
            observer.ended(&run);
            failed |= matches!(run.verdict, Verdict::Failed { .. });
            runs.push(run);
        }
    });
    failed
}
