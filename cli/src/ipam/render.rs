//! Plan and report for people.

use std::fmt::Write as _;

use super::{
    migrate::Report,
    plan::{Block, NodePlan, Plan, Step},
};
use crate::table::STATUS;

/// The plan: configuration, then every node with its blocks, then the verdict.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    if !plan.config.is_empty() {
        let _ = writeln!(text, "ConfigMap cilium-config, and a restart of the operator:");
        let mut table = String::new();
        for change in &plan.config {
            let before = change.before.as_deref().map(str::trim).filter(|before| !before.is_empty());
            let _ = writeln!(table, "  {}\t{} -> {}", change.key, before.unwrap_or("(none)"), change.after);
        }
        text.push_str(&STATUS.align(&table));
    }
    for node in &plan.nodes {
        let _ = writeln!(text, "{}", headline(node, &plan.to));
        let mut table = String::new();
        for (blocks, what) in [
            (&node.drains, "drains"),
            (&node.gives_back, "given back"),
            (&node.keeps, "stays"),
            (&node.gets, "new, if it changed now"),
        ] {
            for block in blocks {
                let _ = writeln!(table, "{}", row(block, what));
            }
        }
        text.push_str(&STATUS.align(&table));
        for problem in &node.problems {
            let _ = writeln!(text, "  impossible: {problem}");
        }
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "note: {warning}");
    }
    for problem in &plan.problems {
        let _ = writeln!(text, "impossible: {problem}");
    }
    let _ = writeln!(text, "{}", verdict(plan));
    text
}

fn headline(node: &NodePlan, to: &str) -> String {
    let mode = if node.mode.is_empty() { "no mode" } else { &node.mode };
    let pods = if node.pods == 1 { "1 pod".to_owned() } else { format!("{} pods", node.pods) };
    match node.step {
        Step::Nothing => format!("{}: is in {to}, {pods}", node.name),
        Step::RestartAgent => {
            format!("{}: {mode} -> {to}, its agent is restarted, {pods} keep their addresses", node.name)
        }
        Step::AwaitAgent => format!("{}: is in {to}, but its agent is not ready and is waited for, {pods}", node.name),
    }
}

fn row(block: &Block, what: &str) -> String {
    let from = if block.pool.is_empty() { block.mode.clone() } else { format!("{}, pool {}", block.mode, block.pool) };
    let in_use = match block.in_use {
        0 => String::new(),
        1 => ", 1 address in use".to_owned(),
        count => format!(", {count} addresses in use"),
    };
    format!("  {}\t{from}\t{what}{in_use}", block.cidr)
}

fn verdict(plan: &Plan) -> String {
    let left = plan.nodes.iter().filter(|node| node.step != Step::Nothing).count();
    let nodes = |count: usize| if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    if !plan.possible {
        let bad = plan.nodes.iter().filter(|node| !node.problems.is_empty()).count();
        let of_nodes = if bad > 0 { format!(" on {}", nodes(bad)) } else { String::new() };
        format!("A change to {} is impossible{of_nodes}, for the reasons above; nothing was changed.", plan.to)
    } else if left == 0 && plan.config.is_empty() {
        format!("Every node is in {}; there is nothing to do.", plan.to)
    } else {
        format!("A change to {} is possible: {} to change, {} in all.", plan.to, nodes(left), plan.nodes.len())
    }
}

/// What was done, and what drains still.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    let mut table = String::new();
    for node in &report.nodes {
        for block in &node.drains {
            let _ = writeln!(table, "  {}\t{}", node.name, row(block, "drains").trim_start());
        }
    }
    let _ = writeln!(text, "Every node is in {}.", report.to);
    if table.is_empty() {
        let _ = writeln!(text, "Nothing of another mode is left.");
    } else {
        let _ = writeln!(text, "Blocks of other modes go with the last pod that has an address of them:");
        text.push_str(&STATUS.align(&table));
        let _ = writeln!(
            text,
            "`kubectl rollout restart` of the workloads there gives their pods addresses of {}.",
            report.to
        );
    }
    let _ = writeln!(
        text,
        "Write the mode into your values as well (ipam.mode: {}), or the next helm upgrade writes the old one.",
        report.to
    );
    text
}
