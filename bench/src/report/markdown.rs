//! The page that is kept in the repository.

use std::fmt::Write as _;

use super::{Comparison, MetricReport, Report, goals, number};
use crate::{case::Contender, programs::Program, stats::Advantage};

const METHOD: &str = "\
Each figure is the median of the rounds (a maximum is that of all rounds, and not compared), with the interquartile range
in percent of it. Below it stands how many times as good as the other Kinesin is (the one of its modes that is named):
above 1 Kinesin is better, whichever way the figure goes. That is the median of the rounds' ratios, in brackets with the
95 % interval of the sign test: *better*, *worse*, or *equal* where the interval holds 1. Contenders run in turns, every
second round backwards (ABBA), so that a machine which gets slower favours nobody.

`veth` is a bare veth pair (the floor; the same for both scopes), `routing` the kernel's forwarding with host routes,
`bridge` the reference plugins `bridge` and `host-local` without masquerading, `flannel` the same plugins with the kernel's
VXLAN device between the nodes, as flannel's backend `vxlan` sets it up. `kinesin` routes natively, `kinesin-vxlan` and
`kinesin-geneve` tunnel, `kinesin-vxlan-device` through the kernel's VXLAN device (`tunnel.path: device`). All run on nodes of labs of the same shape: same underlay, same sysctls, MTU 1500 (within the
tunnels 1450 for IPv4 underlays). CPU is the time of both ends and of ksoftirqd, and the packets of a core are those per
second of it. ADD and DEL are timed from the start of the plugin's process to its end, two addresses (IPv4 and IPv6) a
pod.
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
    writeln!(page, "![How many times as good as the others Kinesin is](results.svg)")?;
    for (title, contenders) in
        [("Figures", &Contender::DIRECT[..]), ("Figures with a tunnel between the nodes", &Contender::TUNNELS)]
    {
        let took_part = |metric: &MetricReport| contenders.iter().any(|who| metric.contenders.contains_key(who));
        let mut rows = report.shown().filter(|(_, metric)| took_part(metric)).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
        writeln!(page, "\n## {title}\n\n| case | figure | {} |", names.join(" | "))?;
        writeln!(page, "|---|---|{}", "---|".repeat(contenders.len()))?;
        for (case, metric) in rows {
            write!(page, "| {} | {}, {} |", case.case, metric.metric.name(), metric.unit)?;
            for contender in contenders {
                write!(page, " {} |", cell(metric, *contender))?;
            }
            page.push('\n');
        }
    }
    Ok(())
}

fn cell(metric: &MetricReport, contender: Contender) -> String {
    let Some(summary) = metric.contenders.get(&contender) else { return String::new() };
    let mut cell = format!("{} ±{:.0}%", number(summary.value), summary.spread_percent());
    for Comparison { ours, advantage, .. } in metric.against(contender) {
        let Advantage { ratio, low, high, .. } = advantage;
        let name = if *ours == Contender::Kinesin { String::new() } else { format!("{ours} ") };
        let _ = write!(cell, "<br>{name}{ratio:.2} [{low:.2}, {high:.2}] {}", advantage.verdict());
    }
    cell
}

fn goals(report: &Report, page: &mut String) -> std::fmt::Result {
    let outcomes = goals::outcomes(report);
    if outcomes.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## Goals\n\n| figure | of | at least | measured | |\n|---|---|---|---|---|")?;
    for outcome in outcomes {
        let (goal, got) = (outcome.goal, outcome.advantage);
        writeln!(
            page,
            "| {} {} | {} | {:.2} x {} | {:.2} [{:.2}, {:.2}] | {} |",
            goal.case,
            goal.metric.name(),
            goal.ours,
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
    writeln!(page, "On a node with VXLAN and Geneve, and on one without, whose programs are smaller.\n")?;
    writeln!(page, "| program | verified instructions | without tunnels | translated |\n|---|---|---|---|")?;
    for Program { name, verified, verified_native, translated } in &cost.programs {
        writeln!(page, "| {name} | {verified} | {verified_native} | {translated} |")?;
    }
    writeln!(page, "\n| program | ns in a test run | without tunnels | packet |\n|---|---|---|---|")?;
    for packet in &cost.packets {
        let native = packet.native.map(|time| time.to_string()).unwrap_or_default();
        writeln!(page, "| {} | {} | {native} | {} |", packet.program, packet.nanoseconds, packet.packet)?;
    }
    writeln!(
        page,
        "\nThe same program cannot be run twice on a packet that goes into a tunnel or comes out of one, so the clock is read\n\
         around each run, which all of these figures contain.\n"
    )?;
    writeln!(page, "| program | ns in a single run | packet |\n|---|---|---|")?;
    for packet in &cost.single {
        writeln!(page, "| {} | {} | {} |", packet.program, packet.nanoseconds, packet.packet)?;
    }
    Ok(())
}
