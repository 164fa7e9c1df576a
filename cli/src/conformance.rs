//! `conformance`: cases on every combination of backends, or on a cluster as it is.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use kinesin_conformance::{
    cluster::{
        Case, Scale, Verdict,
        catalogue::Selection,
        plan::Filter,
        run::{self, CaseRun, Observer, On, Options, Results},
    },
    report,
    target::KubeOptions,
};
use kinesin_lab::Spec;
use serde::Serialize;

use crate::{
    args::{ConformanceArgs, ConformanceTarget, Global},
    output::{Format, print, render},
};

/// Something failed that was run.
const FAILED: u8 = 1;
/// Nothing could be run, or it was broken off.
const NOT_RUN: u8 = 2;

/// Runs the suite; the exit code is 0 when nothing failed, 1 when a case did, 2 when the suite could not be run.
pub(crate) async fn answer(global: &Global, args: ConformanceArgs) -> ExitCode {
    match run_suite(global, args).await {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done if stderr is gone as well.
            let _ = writeln!(io::stderr(), "Error: {}", kinesin_core::causes::with_causes(error.as_ref()));
            NOT_RUN.into()
        }
    }
}

async fn run_suite(global: &Global, args: ConformanceArgs) -> anyhow::Result<ExitCode> {
    let options = options(global, &args)?;
    if args.list {
        let list = run::list(&options).map_err(anyhow::Error::msg)?;
        print(&render(global.output, &rows(&list), |_| list_text(&list))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    has_room_for_files(&args)?;
    let wanted = run::list(&options).map_err(anyhow::Error::msg)?.iter().map(|(_, cases)| cases.len()).sum();
    let terminal = std::sync::Arc::new(Terminal::new(wanted));
    terminal.line(&format!("{wanted} cases, seed {}", options.seed));
    let observer = std::sync::Arc::clone(&terminal);
    // The suite blocks, and has runtimes of its own.
    let mut running = tokio::task::spawn_blocking(move || run::run(&options, &*observer));
    let results = loop {
        tokio::select! {
            done = &mut running => break done.context("the suite panicked")?,
            _ = tokio::signal::ctrl_c() => {
                terminal.line("stopping after the cases that run now; what was made is removed");
                terminal.over.store(true, Ordering::Relaxed);
            }
        }
    };
    let results = results.map_err(anyhow::Error::msg)?;
    // First what needs no disk: a run of minutes must not be lost with a file.
    print(&shown(global.output, &results)?)?;
    write_files(&args, &results)?;
    let (passed, failed, skipped) = results.tally();
    let is_over = terminal.over.load(Ordering::Relaxed);
    let broken_off = if is_over { ", broken off" } else { "" };
    terminal.line(&format!("{passed} passed, {failed} failed, {skipped} skipped{broken_off}"));
    Ok(if failed > 0 {
        FAILED.into()
    } else if is_over || passed == 0 {
        NOT_RUN.into()
    } else {
        ExitCode::SUCCESS
    })
}

fn options(global: &Global, args: &ConformanceArgs) -> anyhow::Result<Options> {
    let on = match args.target {
        ConformanceTarget::Lab => On::Labs {
            bin_dir: match &args.bin_dir {
                Some(dir) => fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?,
                None => Spec::default().bin_dir,
            },
        },
        ConformanceTarget::Kube => On::Cluster(KubeOptions {
            kubeconfig: global.kubeconfig.clone(),
            namespace: global.namespace.clone(),
            image: args.image.clone(),
        }),
    };
    let size = if args.full_size { Scale::FULL } else { Scale::DAILY };
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Options {
        on,
        filter: Filter {
            selection: match (args.full, args.default_only) {
                (true, _) => Selection::Full,
                (_, true) => Selection::Default,
                _ => Selection::Covering,
            },
            combinations: args.combinations.clone(),
            cases: args.cases.clone(),
        },
        scale: Scale {
            kills: args.kills.unwrap_or(size.kills),
            storm_kills: args.kills.unwrap_or(size.storm_kills),
            connections: args.connections.unwrap_or(size.connections),
            pods: args.pods.unwrap_or(size.pods),
            burst: args.pods.unwrap_or(size.burst),
        },
        // Short enough to be typed again.
        seed: args.seed.unwrap_or_else(|| clock().as_micros() as u64 % 1_000_000_000),
    })
}

/// Refuses files that could not be written at the end of the run.
fn has_room_for_files(args: &ConformanceArgs) -> anyhow::Result<()> {
    for path in [&args.junit, &args.markdown, &args.html, &args.report].into_iter().flatten() {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        anyhow::ensure!(
            parent.is_none_or(std::path::Path::is_dir) && !path.is_dir(),
            "cannot write {}: give a file in a directory that exists",
            path.display()
        );
    }
    Ok(())
}

fn write_files(args: &ConformanceArgs, results: &Results) -> anyhow::Result<()> {
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> Result<String, String>| -> anyhow::Result<()> {
        let Some(path) = path else { return Ok(()) };
        let text = text().map_err(anyhow::Error::msg)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&args.junit, &|| report::junit(results))?;
    write(&args.markdown, &|| Ok(report::markdown(results)))?;
    write(&args.html, &|| Ok(report::html(results)))?;
    write(&args.report, &|| report::yaml(results))
}

/// For people the matrix, for machines the report.
fn shown(format: Format, results: &Results) -> anyhow::Result<String> {
    let report = report::yaml(results).map_err(anyhow::Error::msg)?;
    let value: serde_json::Value = serde_yaml_ng::from_str(&report).context("cannot read the own report")?;
    render(format, &value, |_| report::markdown(results))
}

#[derive(Serialize)]
struct Row<'a> {
    combination: &'a str,
    case: &'a str,
    needs: Vec<String>,
    alone: bool,
}

fn rows<'a>(list: &'a [(String, Vec<&'static Case>)]) -> Vec<Row<'a>> {
    let row = |combination: &'a String, case: &'static Case| Row {
        combination,
        case: case.name,
        needs: case.needs.iter().map(ToString::to_string).collect(),
        alone: case.alone,
    };
    list.iter().flat_map(|(combination, cases)| cases.iter().map(move |case| row(combination, case))).collect()
}

fn list_text(list: &[(String, Vec<&'static Case>)]) -> String {
    list.iter().flat_map(|(name, cases)| cases.iter().map(move |case| format!("{name}/{}\n", case.name))).collect()
}

/// Progress as lines on stderr, so that stdout belongs to the results.
#[derive(Debug)]
struct Terminal {
    begun: Instant,
    wanted: usize,
    done: std::sync::atomic::AtomicUsize,
    over: AtomicBool,
}

impl Terminal {
    fn new(wanted: usize) -> Self {
        Self { begun: Instant::now(), wanted, done: Default::default(), over: AtomicBool::new(false) }
    }

    fn line(&self, text: &str) {
        // Progress is not worth an error.
        let _ = writeln!(io::stderr(), "[{:>6.1} s] {text}", self.begun.elapsed().as_secs_f64());
    }
}

impl Observer for Terminal {
    fn phase(&self, what: &str) {
        self.line(what);
    }

    fn begins(&self, _combination: &str, case: &str) {
        self.line(&format!("          {case} ..."));
    }

    fn ended(&self, run: &CaseRun) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let (word, told) = match &run.verdict {
            Verdict::Passed { figures } => ("pass", figures.clone()),
            Verdict::Failed { reason } => ("FAIL", reason.clone()),
            Verdict::Skipped { missing } => ("skip", format!("the target lacks {missing}")),
        };
        let (wanted, took) = (self.wanted, run.took.as_secs_f64());
        self.line(&format!("{done:>3}/{wanted} {word} {} ({took:.1} s) {told}", run.case));
    }

    fn detail(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {line}"));
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
