//! JUnit XML, as CI systems read it: one suite for each combination.

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite, XmlString};

use crate::cluster::{
    Verdict,
    run::{CaseRun, Results},
};

/// The results as JUnit XML.
///
/// # Errors
/// When it cannot be written, which only lack of memory causes.
pub fn junit(results: &Results) -> Result<String, String> {
    let mut report = Report::new("kinesin conformance");
    report.set_time(results.took);
    for combination in &results.combinations {
        let mut suite = TestSuite::new(combination.as_str());
        let properties = [
            ("implementation", &results.subject.implementation),
            ("version", &results.subject.version),
            ("kernel", &results.subject.kernel),
            ("target", &results.target),
            ("seed", &results.seed.to_string()),
        ];
        for (name, value) in properties {
            suite.add_property(Property::new(name, value.as_str()));
        }
        let own = results.runs.iter().filter(|run| run.combination == *combination);
        suite.add_test_cases(own.map(test_case));
        report.add_test_suite(suite);
    }
    report.to_string().map_err(|error| error.to_string())
}

fn test_case(run: &CaseRun) -> TestCase {
    let mut out = None;
    let status = match &run.verdict {
        Verdict::Passed { figures } => {
            out = Some(figures.as_str()).filter(|figures| !figures.is_empty());
            TestCaseStatus::success()
        }
        Verdict::Failed { reason } => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(reason.lines().next().unwrap_or_default()).set_description(reason.as_str());
            status
        }
        Verdict::Skipped { missing } => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(missing.to_string());
            status
        }
    };
    let mut case = TestCase::new(run.case.as_str(), status);
    case.set_classname(run.combination.as_str()).set_time(run.took);
    if let Some(out) = out {
        case.set_system_out(XmlString::new(out));
    }
    case
}

#[cfg(test)]
mod tests {
    use super::{super::sample::results, *};

    #[test]
    fn every_case_is_in_the_suite_of_its_combination() {
        let text = junit(&results()).expect("written");
        let read = Report::deserialize_from_str(&text).expect("what was written is JUnit");
        assert_eq!((read.tests, read.failures), (3, 1), "{text}");
        let names: Vec<String> = read.test_suites.iter().map(|suite| suite.name.to_string()).collect();
        assert_eq!(names, ["a-dual", "b-ipv4"]);
        assert!(text.contains("KILL_AGENT") && text.contains("0 of 10 lost") && text.contains("second line"), "{text}");
    }
}
