//! What came of a run, for machines and for people.

mod conformance;
mod junit;
mod matrix;

pub use conformance::yaml;
pub use junit::junit;
pub use matrix::{html, markdown};

#[cfg(test)]
mod sample {
    use std::time::Duration;

    use k8s_openapi::jiff::Timestamp;

    use crate::{
        cluster::{
            Scale, Verdict,
            run::{CaseRun, Results},
        },
        target::{Subject, TargetCapability},
    };

    /// Two combinations, one case of each verdict, and one that was not run.
    pub(super) fn results() -> Results {
        let run = |combination: &str, case: &str, verdict| CaseRun {
            combination: combination.to_owned(),
            case: case.to_owned(),
            verdict,
            took: Duration::from_millis(1_250),
        };
        let passed = || Verdict::Passed { figures: "0 of 10 lost".to_owned() };
        Results {
            subject: Subject {
                implementation: "kinesin".to_owned(),
                version: "0.1.0".to_owned(),
                kernel: "6.1.0".to_owned(),
                kubernetes: "v1.37.1".to_owned(),
            },
            target: "lab".to_owned(),
            scale: Scale::DAILY,
            seed: 7,
            began: Timestamp::from_second(1_700_000_000).expect("a time"),
            took: Duration::from_secs(9),
            combinations: vec!["a-dual".to_owned(), "b-ipv4".to_owned()],
            cases: vec!["one".to_owned(), "two".to_owned()],
            runs: vec![
                run("a-dual", "one", passed()),
                run("a-dual", "two", Verdict::Failed { reason: "1 < 2 & \"x\"\nsecond line".to_owned() }),
                run("b-ipv4", "one", Verdict::Skipped { missing: TargetCapability::KillAgent }),
            ],
        }
    }
}
