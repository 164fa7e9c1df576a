//! The page that is kept in the repository.

use std::fmt::Write as _;

use super::{MetricReport, Report, goals, number};
use crate::case::Contender;

const METHOD: &str = "\
Each figure is the median of the rounds (a maximum is that of all rounds, and not compared), with the interquartile range
in percent of it. Below it stands how many times as good as the other Kinesin is: above 1 Kinesin is better, whichever way
the figure goes. That is the median of the rounds' ratios, in brackets with the 95 % interval of the sign test: *better*,
*worse*, or *equal* where the interval holds 1. Contenders run in turns, every second round backwards (ABBA), so that a
machine which gets slower favours nobody.

`veth` is a bare veth pair (the floor; the same for both scopes), `routing` the kernel's forwarding with host routes,
`bridge` the reference plugins `bridge` and `host-local` without masquerading. `kinesin`, `routing` and `bridge` run on
nodes of the same lab: same underlay, same sysctls, MTU 1500. CPU is the time of both ends and of ksoftirqd. ADD and DEL
are timed from the start of the plugin's process to its end, two addresses (IPv4 and IPv6) a pod.
";

pub(super) fn render(report: &Report) -> String {
    let mut page = String::from("# Benchmark results\n\n");
    // Writing to a string does not fail.
    let _ = head(report, &mut page);
    let _ = table(report, &mut page);
    let _ = goals(report, &mut page);
    let _ = programs(report, &mut page);
    if !report.failures.is_empty() {
        page.push_str("\n## Not measured\n\n");
        for failure in &report.failures {
            let _ = writeln!(page, "- {failure}");
        }
    }
    page
}

fn head(report: &Report, page: &mut String) -> std::fmt::Result {
    let (facts, settings) = (&report.facts, &report.settings);
    writeln!(
        page,
        "One run of `{}`, {}, written by that command. Commit {}.\n",
        report.command, facts.date, facts.commit
    )?;
    for caveat in facts.caveats() {
        writeln!(page, "**Caution:** {caveat}.\n")?;
    }
    let kind = if facts.is_virtual { "virtual machine" } else { "machine" };
    writeln!(
        page,
        "- {kind}: Linux {} {}, {} CPUs ({}), {:.0} GB of memory",
        facts.kernel, facts.machine, facts.cpus, facts.cpu, facts.memory_gb
    )?;
    writeln!(page, "- load average at the start {}, at the end {}", facts.load_at_start, facts.load_at_end)?;
    let cpus = match settings.cpus {
        Some((client, server)) => format!("client on CPU {client}, server on CPU {server}"),
        None => "CPUs chosen by the scheduler".to_owned(),
    };
    writeln!(
        page,
        "- {} rounds of {} s after {} s of warm-up; {cpus}; TCP {}; {} build; {:.0} s in all",
        settings.rounds,
        settings.seconds,
        settings.warm_up_seconds,
        facts.congestion_control,
        facts.profile,
        report.seconds
    )?;
    for (program, version) in &facts.versions {
        writeln!(page, "- {program}: {version}")?;
    }
    writeln!(page, "\n{METHOD}")
}

fn table(report: &Report, page: &mut String) -> std::fmt::Result {
    if report.shown().next().is_none() {
        return Ok(());
    }
    writeln!(page, "![How many times as good as the others Kinesin is](results.svg)\n\n## Figures\n")?;
    writeln!(page, "| case | figure | kinesin | veth | routing | bridge |\n|---|---|---|---|---|---|")?;
    for (case, metric) in report.shown() {
        write!(page, "| {} | {}, {} |", case.case, metric.metric.name(), metric.unit)?;
        for contender in Contender::ALL {
            write!(page, " {} |", cell(metric, contender))?;
        }
        page.push('\n');
    }
    Ok(())
}

fn cell(metric: &MetricReport, contender: Contender) -> String {
    let Some(summary) = metric.contenders.get(&contender) else { return String::new() };
    let mut cell = format!("{} ±{:.0}%", number(summary.value), summary.spread_percent());
    if let Some(advantage) = metric.advantages.get(&contender) {
        let _ = write!(
            cell,
            "<br>{:.2} [{:.2}, {:.2}] {}",
            advantage.ratio,
            advantage.low,
            advantage.high,
            advantage.verdict()
        );
    }
    cell
}

fn goals(report: &Report, page: &mut String) -> std::fmt::Result {
    let outcomes = goals::outcomes(report);
    if outcomes.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## Goals\n\n| figure | at least | measured | |\n|---|---|---|---|")?;
    for outcome in outcomes {
        let (goal, got) = (outcome.goal, outcome.advantage);
        writeln!(
            page,
            "| {} {} | {:.2} x {} | {:.2} [{:.2}, {:.2}] | {} |",
            goal.case,
            goal.metric.name(),
            goal.at_least,
            goal.against,
            got.ratio,
            got.low,
            got.high,
            outcome.verdict()
        )?;
    }
    Ok(())
}

fn programs(report: &Report, page: &mut String) -> std::fmt::Result {
    let Some(cost) = &report.programs else { return Ok(()) };
    writeln!(page, "\n## Kernel programs\n")?;
    writeln!(page, "| program | verified instructions | translated |\n|---|---|---|")?;
    for program in &cost.programs {
        writeln!(page, "| {} | {} | {} |", program.name, program.verified, program.translated)?;
    }
    writeln!(page, "\n| program | ns in a test run | packet |\n|---|---|---|")?;
    for packet in &cost.packets {
        writeln!(page, "| {} | {} | {} |", packet.program, packet.nanoseconds, packet.packet)?;
    }
    Ok(())
}
