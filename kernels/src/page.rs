//! The page about the kernels: docs/kernels.md.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    findings::{Count, Findings, LabFindings, Route},
    labs::{NODES, SETUPS, Setup},
    tunnels::TESTS,
};

/// What the run was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Day, UTC.
    pub(crate) date: String,
    /// The last commit before the run.
    pub(crate) commit: String,
    /// What the emulator calls itself.
    pub(crate) emulator: String,
}

/// The whole page.
pub(crate) fn render(facts: &Facts, kernels: &[Findings]) -> String {
    let mut page = format!(
        "# Kernels\n\n\
         What Kinesin does under the kernels of Debian: each is booted in a virtual machine, which loads every kernel \
         program through\nthe product's loader, brings up labs of {NODES} nodes with the real agent, operator and CNI \
         plugin, and probes every pod from\nevery other with TCP, UDP and ICMP over IPv4 and IPv6.\n\n\
         `./x kernels --record` wrote this page on {}, after commit {}, with {}\n\
         (emulated, so nothing here is a time). `kernels/README.md` tells how it works.\n",
        facts.date, facts.commit, facts.emulator
    );
    page.push_str("\n## Kernel x backend\n\n");
    page.push_str(&backends(kernels));
    page.push_str(
        "\n`yes`: every lab with this backend passed, and for the chassis every program loads and does what it should. `refused`: the agent does not\n\
         start and says why, as below. `-`: doctor says nothing against the backend, but there was no chassis to try it with.\n",
    );
    page.push_str("\n## Attachment and connectivity\n\n");
    page.push_str(&labs(kernels));
    page.push_str(
        "\nAnswered probes of all. \"Attached by\" is what the agent says, and the links that are pinned on a node were found to\n\
         agree: tcx needs kernel 6.6, and without it programs are attached by filters on a clsact qdisc (`Legacy TC`).\n",
    );
    page.push_str("\n## Tunnels\n\n");
    page.push_str(&tunnels(kernels));
    page.push_str(
        "\nTwo nodes of the chassis, or one and a namespace with a device of the kernel's own (`backends/ebpf-tc/tests/chassis/`,\n\
         `stock.rs` and `disturbed.rs`). Interop: pings, UDP and TCP both ways, IPv4 and IPv6 over IPv4 and over IPv6, segments\n\
         together in frames of more than twice the MTU, two options that nobody knows in every packet of the device. Loss, delay,\n\
         reordering: netem on one node's uplink (4 ms +-3 ms with a quarter reordered, 2 ms +-1 ms with 2 % lost); TCP streams both\n\
         ways are whole and never stall, of datagrams only those are missing that netem dropped, and no program drops any.\n",
    );
    page.push_str("\n## Programs\n\n");
    page.push_str(&programs(kernels));
    page.push_str(
        "\nInstructions that the verifier went through, of at most 1,000,000; kernels before 5.16 do not tell. Each program was\n\
         loaded by itself, whatever the agent says of the kernel. Older verifiers recognise less that they have seen before,\n\
         so the oldest kernel is the one to look at before a program grows. The tests (`backends/ebpf-tc/tests/test_run/`) send\n\
         a table of packets, cut and changed at random too, through the programs, and want what the pipeline outside the kernel does.\n",
    );
    page.push_str("\n## What the kernels lack\n\n");
    for kernel in kernels {
        let _ = writeln!(page, "- {} ({})", kernel.release, kernel.package);
        page.extend(lacks(kernel).iter().map(|lack| format!("  - {lack}\n")));
    }
    let faulty: Vec<&Findings> = kernels.iter().filter(|kernel| !kernel.faults.is_empty()).collect();
    if !faulty.is_empty() {
        page.push_str("\n## Faults\n\n");
    }
    for kernel in faulty {
        let _ = writeln!(page, "{}:\n\n```text\n{}\n```\n", kernel.release, kernel.faults.join("\n"));
    }
    page
}

fn backends(kernels: &[Findings]) -> String {
    let every: BTreeSet<(&str, &str)> = kernels
        .iter()
        .flat_map(|kernel| kernel.health.iter().map(|health| (health.r#trait.as_str(), health.name.as_str())))
        .collect();
    let rows = every.into_iter().map(|(role, name)| {
        let cells = kernels.iter().map(|kernel| backend(kernel, role, name).to_owned());
        [vec![format!("{role} `{name}`")], cells.collect()].concat()
    });
    table(&[vec!["backend".to_owned()], releases(kernels)].concat(), rows.collect())
}

fn backend(kernel: &Findings, role: &str, name: &str) -> &'static str {
    let Some(health) = kernel.health.iter().find(|health| health.r#trait == role && health.name == name) else {
        return "**failed**";
    };
    if !health.problems.is_empty() {
        return "refused";
    }
    if kernel.refusal.is_some() {
        return "-";
    }
    // A backend of IPAM or routing runs in the lab of its own, every other in all of them.
    let is_in = |setup: &Setup| setup.name == name || setup.routing == name;
    let own: Vec<&str> = SETUPS.iter().filter(|setup| is_in(setup)).map(|setup| setup.name).collect();
    let expected = if own.is_empty() { SETUPS.len() } else { own.len() };
    let is_of_it = |lab: &&LabFindings| (own.is_empty() || own.contains(&lab.setup)) && lab.passed();
    let passed = kernel.labs.iter().filter(is_of_it).count();
    let loads =
        kernel.programs.iter().all(|program| program.refusal.is_none()) && matches!(kernel.packets, Some(Ok(_)));
    if passed == expected && (loads || role != "chassis") { "yes" } else { "**failed**" }
}

fn labs(kernels: &[Findings]) -> String {
    let head = [
        "kernel",
        "lab",
        "routing",
        "options",
        "attached by",
        "same node, IPv4",
        "same node, IPv6",
        "other node, IPv4",
        "other node, IPv6",
    ];
    let rows = kernels.iter().flat_map(|kernel| kernel.labs.iter().map(|lab| lab_row(short(&kernel.release), lab)));
    table(&head.map(str::to_owned), rows.collect())
}

fn lab_row(release: &str, lab: &LabFindings) -> Vec<String> {
    let setup = SETUPS.iter().find(|setup| setup.name == lab.setup);
    let (routing, options) = setup.map(|setup| (setup.routing, setup.options)).unwrap_or_default();
    let count = |other_node, is_ipv6| {
        let Count { answered, all } = lab.probes.get(&Route { other_node, is_ipv6 }).copied().unwrap_or_default();
        if answered == all && all > 0 { format!("{answered}/{all}") } else { format!("**{answered}/{all}**") }
    };
    let mode = if lab.attach_mode.is_empty() { "**unknown**" } else { &lab.attach_mode };
    [release, lab.setup, routing, options, mode]
        .map(str::to_owned)
        .into_iter()
        .chain([count(false, false), count(false, true), count(true, false), count(true, true)])
        .collect()
}

fn tunnels(kernels: &[Findings]) -> String {
    let cell = |kernel: &Findings, number: usize| match kernel.tunnels {
        Some(passed) if passed[number] => "yes",
        None if kernel.refusal.is_some() => "-",
        _ => "**failed**",
    };
    let rows = TESTS.iter().enumerate().map(|(number, test)| {
        let cells = kernels.iter().map(|kernel| cell(kernel, number).to_owned()).collect();
        [vec![test.says.to_owned()], cells].concat()
    });
    table(&[vec!["with what".to_owned()], releases(kernels)].concat(), rows.collect())
}

fn programs(kernels: &[Findings]) -> String {
    let names: BTreeSet<&str> =
        kernels.iter().flat_map(|kernel| kernel.programs.iter().map(|program| program.name.as_str())).collect();
    let cell = |kernel: &Findings, name: &str| match kernel.programs.iter().find(|program| program.name == name) {
        None => "**not tried**".to_owned(),
        Some(program) if program.refusal.is_some() => "refused".to_owned(),
        Some(program) => program.verified.map_or_else(|| "loads".to_owned(), |count| count.to_string()),
    };
    let rows = names.into_iter().map(|name| {
        let cells = kernels.iter().map(|kernel| cell(kernel, name)).collect();
        [vec![format!("`{name}`")], cells].concat()
    });
    let packets = kernels.iter().map(|kernel| match &kernel.packets {
        Some(Ok(passed)) => format!("{passed} passed"),
        Some(Err(_)) => "**failed**".to_owned(),
        None => "**not tried**".to_owned(),
    });
    let rows = rows.chain([[vec!["tests with packets".to_owned()], packets.collect()].concat()]);
    table(&[vec!["program".to_owned()], releases(kernels)].concat(), rows.collect())
}

/// In the words of the programs themselves.
fn lacks(kernel: &Findings) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    for health in &kernel.health {
        let told =
            health.problems.iter().map(|problem| format!("doctor, {} `{}`: {problem}", health.r#trait, health.name));
        said.extend(told);
    }
    said.extend(kernel.refusal.iter().map(|refusal| format!("agent: {refusal}")));
    let refused = kernel.programs.iter().filter_map(|program| Some((&program.name, program.refusal.as_ref()?)));
    said.extend(refused.map(|(name, refusal)| format!("verifier, `{name}`: {}", one_line(refusal))));
    if !kernel.labs.is_empty() && !kernel.labs.iter().any(has_links) {
        said.push("tcx: filters take its place".to_owned());
    }
    if said.is_empty() {
        let nothing = if kernel.faults.is_empty() { "nothing" } else { "nothing that it told; see the faults" };
        said.push(nothing.to_owned());
    }
    said
}

fn has_links(lab: &LabFindings) -> bool {
    lab.links != (0, 0)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn releases(kernels: &[Findings]) -> Vec<String> {
    kernels.iter().map(|kernel| short(&kernel.release).to_owned()).collect()
}

/// Without the flavour, which is the same for all.
fn short(release: &str) -> &str {
    release.strip_suffix("-cloud-amd64").unwrap_or(release)
}

/// A table with its columns aligned, so that it can be read as text too.
fn table(head: &[String], rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{body}", line(head), line(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::findings::tests::{refused, well};

    fn page() -> String {
        let facts = Facts { date: "2026-11-25".to_owned(), commit: "abc".to_owned(), emulator: "QEMU 7.2".to_owned() };
        let kernels = [
            Findings::of("bullseye linux-image-5.10", &refused(), 3.0),
            Findings::of("trixie linux-image-6.12", &well("6.12.1"), 60.0),
        ];
        render(&facts, &kernels)
    }

    #[test]
    fn each_backend_has_a_row_and_each_kernel_a_column() {
        let expected = "\
| backend           | 5.10.0-32  | 6.12.1 |
| ----------------- | ---------- | ------ |
| chassis `ebpf`    | refused    | yes    |
| ipam `host_scope` | -          | yes    |
| routing `native`  | **failed** | yes    |
";
        assert!(page().contains(expected), "{}", page());
    }

    #[test]
    fn attachments_and_counts_are_those_of_the_lab() {
        let row = "| 6.12.1 | host_scope   | vxlan   | as it is by default                              | TCX, endpoints by Legacy TC | 2/2";
        assert!(page().contains(row), "{}", page());
        assert!(page().contains("| `from_host`        | refused   | 3188     |"), "{}", page());
    }

    #[test]
    fn tunnels_are_told_for_kernels_that_run_the_chassis() {
        assert!(page().contains("| loss, delay, reordering: `geneve` "), "{}", page());
        let row = page().lines().find(|line| line.contains("`vxlan` device")).map(str::to_owned).unwrap_or_default();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[2..4], ["-", "yes"], "{row}");
    }

    #[test]
    fn lacking_is_told_in_the_words_of_the_programs() {
        let page = page();
        let doctor = "  - doctor, chassis `ebpf`: kernel 5.10 is older than 5.15; run a newer kernel\n";
        assert!(page.contains(doctor), "{page}");
        assert!(page.contains("- 6.12.1 (trixie linux-image-6.12)\n  - nothing\n"), "{page}");
        assert!(!page.contains("## Faults"), "{page}");
    }

    #[test]
    fn what_failed_stands_out_and_is_told() {
        let facts = Facts { date: String::new(), commit: String::new(), emulator: String::new() };
        let mut answers = well("6.12.1");
        answers.retain(|answer| !format!("{:?}", answer.step).contains("cluster_pool"));
        let page = render(&facts, &[Findings::of("a package", &answers, 1.0)]);
        assert!(page.contains("| chassis `ebpf`    | **failed** |"), "{page}");
        assert!(page.contains("| ipam `host_scope` | yes        |"), "{page}");
        assert!(page.contains("## Faults\n\n6.12.1:\n\n```text\ncluster_pool: not every pod reached"), "{page}");
    }
}
