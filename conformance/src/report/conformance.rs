//! A report file in the spirit of the Gateway API's `ConformanceReport`, for whoever publishes what they have tested.
//!
//! Source of the shape: <https://gateway-api.sigs.k8s.io/geps/gep-1709/>.

use serde::Serialize;

use crate::cluster::{Scale, Verdict, run::Results};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    api_version: &'static str,
    kind: &'static str,
    date: String,
    implementation: Implementation<'a>,
    /// `lab` or `kube`.
    target: &'a str,
    kernel: &'a str,
    kubernetes: &'a str,
    seed: u64,
    scale: Scale,
    profiles: Vec<Profile<'a>>,
}

#[derive(Serialize)]
struct Implementation<'a> {
    project: &'a str,
    version: &'a str,
    url: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    /// The combination.
    name: &'a str,
    /// `success`, `partial` (something was skipped) or `failure`.
    result: &'static str,
    statistics: Statistics,
    passed_tests: Vec<Passed<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed_tests: Vec<Failed<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped_tests: Vec<Skipped<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Statistics {
    passed: usize,
    failed: usize,
    skipped: usize,
}

#[derive(Serialize)]
struct Passed<'a> {
    name: &'a str,
    seconds: f64,
    #[serde(skip_serializing_if = "str::is_empty")]
    figures: &'a str,
}

#[derive(Serialize)]
struct Failed<'a> {
    name: &'a str,
    seconds: f64,
    reason: &'a str,
}

#[derive(Serialize)]
struct Skipped<'a> {
    name: &'a str,
    /// What the target lacks.
    capability: String,
}

/// The results as YAML.
///
/// # Errors
/// When it cannot be written, which only lack of memory causes.
pub fn yaml(results: &Results) -> Result<String, String> {
    let report = Report {
        api_version: "conformance.kinesin.io/v1alpha1",
        kind: "ConformanceReport",
        date: results.began.to_string(),
        implementation: Implementation {
            project: &results.subject.implementation,
            version: &results.subject.version,
            url: env!("CARGO_PKG_REPOSITORY"),
        },
        target: &results.target,
        kernel: &results.subject.kernel,
        kubernetes: &results.subject.kubernetes,
        seed: results.seed,
        scale: results.scale,
        profiles: results.combinations.iter().map(|combination| profile(results, combination)).collect(),
    };
    serde_yaml_ng::to_string(&report).map_err(|error| error.to_string())
}

fn profile<'a>(results: &'a Results, combination: &'a str) -> Profile<'a> {
    let (mut passed, mut failed, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for run in results.runs.iter().filter(|run| run.combination == combination) {
        let name = run.case.as_str();
        let seconds = (run.took.as_secs_f64() * 10.0).round() / 10.0;
        match &run.verdict {
            Verdict::Passed { figures } => passed.push(Passed { name, seconds, figures }),
            Verdict::Failed { reason } => failed.push(Failed { name, seconds, reason }),
            Verdict::Skipped { missing } => skipped.push(Skipped { name, capability: missing.to_string() }),
        }
    }
    Profile {
        name: combination,
        result: match (failed.is_empty(), skipped.is_empty() && !passed.is_empty()) {
            (false, _) => "failure",
            (true, false) => "partial",
            (true, true) => "success",
        },
        statistics: Statistics { passed: passed.len(), failed: failed.len(), skipped: skipped.len() },
        passed_tests: passed,
        failed_tests: failed,
        skipped_tests: skipped,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::sample::results, *};

    #[test]
    fn report_says_what_was_tested_and_what_came_of_it() {
        let report: Value = serde_yaml_ng::from_str(&yaml(&results()).expect("written")).expect("YAML");
        assert_eq!((&report["kind"], &report["kernel"]), (&json!("ConformanceReport"), &json!("6.1.0")));
        assert_eq!(report["implementation"]["version"], "0.1.0");
        assert_eq!(report["date"], "2023-11-14T22:13:20Z");
        let [first, second] = [&report["profiles"][0], &report["profiles"][1]];
        assert_eq!(first["statistics"], json!({"Passed": 1, "Failed": 1, "Skipped": 0}));
        assert_eq!((&first["result"], &second["result"]), (&json!("failure"), &json!("partial")));
        assert_eq!(first["failedTests"][0]["reason"], "1 < 2 & \"x\"\nsecond line");
        assert_eq!(second["skippedTests"], json!([{"name": "one", "capability": "KILL_AGENT"}]));
    }
}
