//! Runs the chosen cases: sets the contenders up, measures them in turns, sums up.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use kinesin_core::causes::with_causes;
use kinesin_lab::Progress;
use nix::unistd::geteuid;

use crate::{
    BenchError, agent,
    arena::{Arena, Wanted},
    case::{Case, Contender},
    cni::{self, Order},
    facts::Facts,
    ipam,
    metric::{Figures, Metric},
    nodes, programs,
    report::{CaseReport, Report, Settings},
    schedule,
    stats::percentile,
    traffic::{self, Timing},
};

/// Between two runs, for what the one before left to do: the agent's writes to the API, memory that is given back.
const PAUSE: Duration = Duration::from_millis(50);
/// The agent's start takes seconds and scatters little.
const AGENT_ROUNDS: usize = 5;
/// So do a thousand nodes.
const NODES_ROUNDS: usize = 3;

/// What shall be run.
#[derive(Debug, Clone)]
pub struct Request {
    /// The cases, in their order.
    pub cases: Vec<Case>,
    /// Who takes part; Kinesin does always.
    pub contenders: Vec<Contender>,
    /// Where `bridge` and `host-local` are.
    pub cni_dir: PathBuf,
    /// How it is measured.
    pub settings: Settings,
    /// The command, as the report shows it.
    pub command: String,
}

/// Set when the run shall end; looked at between runs, each of which is short.
pub type Interrupt = AtomicBool;

/// Runs all cases. One that fails is told in the report, and the others go on.
///
/// # Errors
/// What keeps everything from being measured: no root, no lab, or an interrupt.
pub async fn run(request: &Request, interrupt: &Interrupt) -> Result<Report, BenchError> {
    if !geteuid().is_root() {
        return Err(BenchError::NotRoot);
    }
    let begun = Instant::now();
    let mut facts = Facts::gather(&request.cni_dir);
    for caveat in facts.caveats() {
        say(&caveat);
    }
    let in_arena = |case: &Case| !matches!(case, Case::Programs | Case::Ipam { .. } | Case::Nodes { .. });
    let takes_part = |contender: &Contender| {
        let wanted = *contender == Contender::Kinesin || request.contenders.contains(contender);
        wanted && request.cases.iter().any(|case| in_arena(case) && case.contenders().contains(contender))
    };
    let contenders = Contender::ALL.into_iter().filter(takes_part).collect();
    let mut arena = if request.cases.iter().any(in_arena) {
        let wanted = Wanted { contenders, cni_dir: request.cni_dir.clone() };
        Arena::set_up(&wanted, &Phases).await?
    } else {
        Arena::default()
    };
    let (mut cases, mut cost) = (Vec::new(), None);
    let mut failures = Vec::new();
    for case in &request.cases {
        let started = Instant::now();
        let outcome = match case {
            Case::Programs => programs::measure().map(|measured| cost = Some(measured)),
            _ => {
                let runs = rounds(*case, request, &mut arena, interrupt, &mut failures).await;
                arena.drop_lonely();
                runs.map(|runs| cases.push(CaseReport::of(*case, &runs)))
            }
        };
        match outcome {
            Ok(()) => say(&format!("{} {:.1} s", case.name(), started.elapsed().as_secs_f64())),
            Err(error) => {
                let told = format!("{}: {}", case.name(), with_causes(&error));
                say(&told);
                failures.push(told);
            }
        }
        if interrupt.load(Relaxed) {
            return Err(BenchError::Scene("interrupted; nothing was recorded".to_owned()));
        }
    }
    failures.splice(0..0, arena.absent().values().cloned());
    drop(arena);
    facts.close();
    Ok(Report {
        command: request.command.clone(),
        facts,
        settings: request.settings.clone(),
        cases,
        programs: cost,
        failures,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// All rounds of a case. A contender that fails is told in `failures` and sits out the rest of the case, as does one that
/// is not there; without Kinesin there is no case.
async fn rounds(
    case: Case,
    request: &Request,
    arena: &mut Arena,
    interrupt: &Interrupt,
    failures: &mut Vec<String>,
) -> Result<BTreeMap<Contender, Vec<Figures>>, BenchError> {
    let wanted = |contender: &&Contender| **contender == Contender::Kinesin || request.contenders.contains(contender);
    let mut contenders: Vec<Contender> = case.contenders().iter().filter(wanted).copied().collect();
    if matches!(case, Case::Nodes { .. }) {
        arena.add_lonely(&contenders, &Phases).await?;
    }
    contenders.retain(|contender| !arena.absent().contains_key(contender));
    let rounds = match case {
        Case::Agent => request.settings.rounds.min(AGENT_ROUNDS),
        Case::Nodes { .. } => request.settings.rounds.min(NODES_ROUNDS),
        _ => request.settings.rounds,
    };
    let mut runs: BTreeMap<Contender, Vec<Figures>> = BTreeMap::new();
    for round in 0..rounds {
        for contender in schedule::order(&contenders, round) {
            if interrupt.load(Relaxed) {
                return Err(BenchError::Scene("interrupted".to_owned()));
            }
            match once(case, contender, round, request, arena).await {
                Ok(figures) => runs.entry(contender).or_default().push(figures),
                Err(error) if contender == Contender::Kinesin => return Err(error),
                Err(error) => {
                    let told = format!("{} of {contender}: {}", case.name(), with_causes(&error));
                    say(&told);
                    failures.push(told);
                    runs.remove(&contender);
                    contenders.retain(|other| *other != contender);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(runs)
}

async fn once(
    case: Case,
    contender: Contender,
    round: usize,
    request: &Request,
    arena: &Arena,
) -> Result<Figures, BenchError> {
    let settings = &request.settings;
    match case {
        Case::Traffic { scope, load, family } => {
            let timing = Timing {
                warm_up: Duration::from_secs_f64(settings.warm_up_seconds),
                measured: Duration::from_secs_f64(settings.seconds),
                cpus: settings.cpus,
            };
            let path = arena.path(contender, scope)?;
            tokio::task::block_in_place(|| traffic::run(load, family, path, timing))
        }
        Case::Add { parallel } => {
            let pods = if parallel == 1 { settings.adds } else { parallel };
            let names = (0..pods).map(|pod| format!("bench-add-{round}-{pod}")).collect();
            let order = Order { pods: names, parallel: parallel > 1, keep: false };
            let network = arena.network(contender)?;
            let outcome = tokio::task::block_in_place(|| cni::run(network, &order))?;
            Ok(vec![
                (Metric::AddP50, percentile(&outcome.add_ms, 0.5)),
                (Metric::AddP99, percentile(&outcome.add_ms, 0.99)),
                (Metric::AddMax, percentile(&outcome.add_ms, 1.0)),
                (Metric::DelP50, percentile(&outcome.del_ms, 0.5)),
            ])
        }
        Case::Ipam { used } => tokio::task::block_in_place(|| ipam::round(used, settings.seconds)),
        Case::Agent => agent::restart(arena.lab()?).await,
        Case::Nodes { count } => nodes::round(arena.lonely(contender)?, contender, count).await,
        Case::Programs => Err(BenchError::Scene("the programs have no rounds".to_owned())),
    }
}

/// The first two CPUs that this process may use; none on a machine with one.
#[must_use]
pub fn two_cpus() -> Option<(usize, usize)> {
    thread::available_parallelism().ok().filter(|count| count.get() > 1)?;
    let mut cpus = allowed_cpus()?;
    Some((cpus.next()?, cpus.next()?))
}

/// The first CPU that this process may use.
pub(crate) fn first_cpu() -> Option<usize> {
    allowed_cpus()?.next()
}

fn allowed_cpus() -> Option<impl Iterator<Item = usize>> {
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).ok()?;
    Some((0..nix::sched::CpuSet::count()).filter(move |cpu| allowed.is_set(*cpu).unwrap_or(false)))
}

/// A line for whoever watches; results go elsewhere.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "bench: {line}");
}

/// Tells the phases of setting up.
struct Phases;

impl Progress for Phases {
    fn phase(&self, name: &str) {
        say(name);
    }
    fn state(&self, _: &str) {}
    fn done(&self) {}
}
