//! The table for a terminal.

use std::fmt::Write as _;

use super::{Comparison, MetricReport, Report, goals, number};
use crate::{case::Contender, programs::Program, stats::Advantage};

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = head(report, &mut text);
    let mut last = "";
    for (case, metric) in report.shown() {
        if case.case != last {
            let _ = writeln!(text, "\n{}  {}", case.case, case.summary);
            last = &case.case;
        }
        let _ = figures(metric, &mut text);
    }
    let _ = programs(report, &mut text);
    let _ = tail(report, &mut text);
    text
}

fn head(report: &Report, text: &mut String) -> std::fmt::Result {
    let (facts, settings) = (&report.facts, &report.settings);
    writeln!(text, "kernel {} on {} x {}, load {}", facts.kernel, facts.cpus, facts.cpu, facts.load_at_start)?;
    for caveat in facts.caveats() {
        writeln!(text, "CAUTION: {caveat}")?;
    }
    writeln!(
        text,
        "{} interleaved rounds of {} s; median (first to third quartile of the rounds), then how many times as good\n\
         Kinesin is (or the one of its modes that is named), with its 95 % interval",
        settings.rounds, settings.seconds
    )
}

fn figures(report: &MetricReport, text: &mut String) -> std::fmt::Result {
    let way = if report.more_is_better { "more is better" } else { "less is better" };
    writeln!(text, "  {}, {} ({way})", report.metric.name(), report.unit)?;
    for contender in Contender::ALL {
        let Some(summary) = report.contenders.get(&contender) else { continue };
        let quartiles = format!("({} to {})", number(summary.q1), number(summary.q3));
        write!(text, "    {contender:<20} {:>8}  {quartiles:<20}", number(summary.value))?;
        for (at, Comparison { ours, advantage, .. }) in report.against(contender).enumerate() {
            let Advantage { ratio, low, high, .. } = advantage;
            write!(
                text,
                "{} {ratio:.2} [{low:.2}, {high:.2}] {}",
                if at == 0 { "" } else { ";" },
                advantage.verdict()
            )?;
            if *ours != Contender::Kinesin {
                write!(text, " ({ours})")?;
            }
        }
        // Padding before the end of a line is of no use.
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    Ok(())
}

fn programs(report: &Report, text: &mut String) -> std::fmt::Result {
    let Some(cost) = &report.programs else { return Ok(()) };
    writeln!(text, "\nprograms of a node with VXLAN and Geneve, and of one without")?;
    writeln!(text, "          {:<16} {:>9} {:>9} {:>11}", "", "verified", "without", "translated")?;
    for Program { name, verified, verified_native, translated } in &cost.programs {
        writeln!(text, "          {name:<16} {verified:>9} {verified_native:>9} {translated:>11}")?;
    }
    writeln!(text, "          {:<16} {:>9} {:>9}  packet", "", "ns", "without")?;
    for packet in &cost.packets {
        let native = packet.native.map(|time| time.to_string()).unwrap_or_default();
        writeln!(text, "          {:<16} {:>9} {native:>9}  {}", packet.program, packet.nanoseconds, packet.packet)?;
    }
    writeln!(text, "          {:<16} {:>9}  packet, run once at a look at the clock", "", "ns")?;
    for packet in &cost.single {
        writeln!(text, "          {:<16} {:>9}  {}", packet.program, packet.nanoseconds, packet.packet)?;
    }
    Ok(())
}

fn tail(report: &Report, text: &mut String) -> std::fmt::Result {
    let outcomes = goals::outcomes(report);
    if !outcomes.is_empty() {
        writeln!(text, "\ngoals")?;
    }
    for outcome in outcomes {
        let (goal, got) = (outcome.goal, outcome.advantage);
        let figure = format!("{} {}", goal.case, goal.metric.name());
        writeln!(
            text,
            "  {figure:<34} {:<14} {:.2} of {:<13} wanted, {:.2} [{:.2}, {:.2}]: {}",
            goal.ours.name(),
            goal.at_least,
            goal.against.name(),
            got.ratio,
            got.low,
            got.high,
            outcome.verdict()
        )?;
    }
    for failure in &report.failures {
        writeln!(text, "\nnot measured: {failure}")?;
    }
    writeln!(text, "\n{:.0} s in all", report.seconds)
}
