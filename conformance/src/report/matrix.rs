//! Rows cases, columns combinations: for people.

use std::fmt::Write as _;

use crate::cluster::{
    Verdict,
    run::{CaseRun, Results},
};

/// What is said about a run as a whole, by name.
fn head(results: &Results) -> Vec<(&'static str, String)> {
    let (passed, failed, skipped) = results.tally();
    let scale = results.scale;
    vec![
        ("Implementation", format!("{} {}", results.subject.implementation, results.subject.version)),
        ("Target", results.target.clone()),
        ("Kernel", results.subject.kernel.clone()),
        ("Kubernetes", results.subject.kubernetes.clone()),
        ("Began", results.began.to_string()),
        ("Took", format!("{:.0} s", results.took.as_secs_f64())),
        ("Seed", results.seed.to_string()),
        (
            "Size",
            format!(
                "{} kills, {} connections, {} pods, {} in a burst",
                scale.kills, scale.connections, scale.pods, scale.burst
            ),
        ),
        ("Result", format!("{passed} passed, {failed} failed, {skipped} skipped")),
    ]
}

/// A cell: what it shows.
fn cell(run: Option<&CaseRun>) -> String {
    match run.map(|run| (&run.verdict, run.took)) {
        None => "–".to_owned(),
        Some((Verdict::Passed { .. }, took)) => format!("pass {:.1} s", took.as_secs_f64()),
        Some((Verdict::Failed { .. }, _)) => "**FAIL**".to_owned(),
        Some((Verdict::Skipped { missing }, _)) => format!("skip: {missing}"),
    }
}

/// What is told below the table: the case, whether it failed, and its reason or its figures. Failures come first.
fn notes(results: &Results) -> Vec<(String, bool, &str)> {
    let note = |failed: bool| {
        results.runs.iter().filter_map(move |run| {
            let text = match &run.verdict {
                Verdict::Failed { reason } if failed => reason.as_str(),
                Verdict::Passed { figures } if !failed && !figures.is_empty() => figures.as_str(),
                _ => return None,
            };
            Some((format!("{} on {}", run.case, run.combination), failed, text))
        })
    };
    note(true).chain(note(false)).collect()
}

/// The matrix as Markdown.
#[must_use]
pub fn markdown(results: &Results) -> String {
    let mut text = "# Conformance\n\n".to_owned();
    for (name, value) in head(results) {
        let _ = writeln!(text, "- {name}: {}", in_cell(&value));
    }
    let _ = write!(text, "\n| case |");
    for combination in &results.combinations {
        let _ = write!(text, " {} |", in_cell(combination));
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(results.combinations.len()));
    for case in &results.cases {
        let _ = write!(text, "| {case} |");
        for combination in &results.combinations {
            let _ = write!(text, " {} |", cell(results.of(combination, case)));
        }
        text.push('\n');
    }
    for (title, failed) in [("Failures", true), ("Figures", false)] {
        let told: Vec<_> = notes(results).into_iter().filter(|note| note.1 == failed).collect();
        if !told.is_empty() {
            let _ = writeln!(text, "\n## {title}\n");
        }
        for (name, _, note) in told {
            let _ = writeln!(text, "- {name}: {}", in_cell(note));
        }
    }
    text
}

/// On one line, and without what would end a cell.
fn in_cell(text: &str) -> String {
    text.replace('|', "\\|").lines().map(str::trim).collect::<Vec<_>>().join("<br>")
}

const STYLE: &str = "body{font-family:system-ui,sans-serif;margin:2em;color:#222}table{border-collapse:collapse}\
th,td{border:1px solid #ccc;padding:.3em .6em;text-align:left;font-size:.9em}thead th{writing-mode:vertical-rl}\
td.pass{background:#d9f2d9}td.fail{background:#f6c6c6;font-weight:bold}td.skip{background:#eee;color:#666}\
dt{font-weight:bold;float:left;clear:left;width:9em}pre{white-space:pre-wrap;margin:.2em 0 1em}";

/// The matrix as one HTML page without anything else that it needs; a cell tells its reason or figures when pointed at.
#[must_use]
pub fn html(results: &Results) -> String {
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Conformance</title><style>{STYLE}</style>\
         </head><body>\n<h1>Conformance</h1>\n<dl>\n"
    );
    for (name, value) in head(results) {
        let _ = writeln!(text, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    text.push_str("</dl>\n<table><thead><tr><td></td>");
    for combination in &results.combinations {
        let _ = write!(text, "<th>{}</th>", escape(combination));
    }
    text.push_str("</tr></thead><tbody>\n");
    for case in &results.cases {
        let _ = write!(text, "<tr><th>{}</th>", escape(case));
        for combination in &results.combinations {
            let run = results.of(combination, case);
            let (class, told) = match run.map(|run| &run.verdict) {
                None => ("none", ""),
                Some(Verdict::Passed { figures }) => ("pass", figures.as_str()),
                Some(Verdict::Failed { reason }) => ("fail", reason.as_str()),
                Some(Verdict::Skipped { .. }) => ("skip", ""),
            };
            let shown = cell(run).replace("**", "");
            let _ = write!(text, "<td class=\"{class}\" title=\"{}\">{}</td>", escape(told), escape(&shown));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table>\n");
    for (name, failed, note) in notes(results) {
        let what = if failed { "failed" } else { "passed" };
        let _ = writeln!(text, "<h3>{}: {what}</h3><pre>{}</pre>", escape(&name), escape(note));
    }
    text.push_str("</body></html>\n");
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::sample::results, *};

    #[test]
    fn rows_are_cases_and_columns_combinations() {
        let text = markdown(&results());
        assert!(text.contains("| case | a-dual | b-ipv4 |\n|---|---|---|\n"), "{text}");
        assert!(text.contains("| one | pass 1.2 s | skip: KILL_AGENT |\n| two | **FAIL** | – |\n"), "{text}");
        assert!(text.contains("- two on a-dual: 1 < 2 & \"x\"<br>second line"), "{text}");
        assert!(text.contains("1 passed, 1 failed, 1 skipped") && text.contains("Seed: 7"), "{text}");
    }

    #[test]
    fn page_shows_every_cell_and_lets_no_text_be_markup() {
        let text = html(&results());
        assert!(text.contains("<th>a-dual</th><th>b-ipv4</th>"), "{text}");
        assert!(
            text.contains("<td class=\"fail\" title=\"1 &lt; 2 &amp; &quot;x&quot;\nsecond line\">FAIL</td>"),
            "{text}"
        );
        assert_eq!(text.matches("<td class=").count(), 4);
        assert!(!text.contains("1 < 2"));
    }
}
