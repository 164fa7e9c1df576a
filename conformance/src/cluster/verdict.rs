//! What came of one case on one cluster.

use std::fmt;

use kinesin_core::causes::with_causes;

use crate::target::TargetCapability;

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was seen as it shall be.
    Passed {
        /// What was counted on the way; empty when there is nothing to count.
        figures: String,
    },
    /// It was not.
    Failed {
        /// What was expected, and what was seen.
        reason: String,
    },
    /// The target cannot do what the case needs.
    Skipped {
        /// What it lacks.
        missing: TargetCapability,
    },
}

/// Why a case ends before its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop(String);

/// The answer of a case: what it counted.
pub type Judged = Result<String, Stop>;

impl Stop {
    /// A behaviour that is not as it shall be: what was expected, and what was seen.
    pub fn broken(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// The target itself failed.
    #[must_use]
    pub fn target(error: &(dyn std::error::Error + 'static)) -> Self {
        Self(format!("the target failed: {}", with_causes(error)))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Judged> for Verdict {
    fn from(judged: Judged) -> Self {
        match judged {
            Ok(figures) => Self::Passed { figures },
            Err(Stop(reason)) => Self::Failed { reason },
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed { figures } if figures.is_empty() => f.write_str("passed"),
            Self::Passed { figures } => write!(f, "passed: {figures}"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Skipped { missing } => write!(f, "skipped, the target lacks {missing}"),
        }
    }
}

/// Failures as one reason: the first few in full, since one broken route breaks hundreds.
pub(crate) fn told(failures: &[String], asked: usize) -> Judged {
    const TOLD: usize = 8;
    if failures.is_empty() {
        return Ok(format!("{asked} questions answered"));
    }
    let mut reason = format!("{} of {asked} questions failed:", failures.len());
    for failure in failures.iter().take(TOLD) {
        reason.push_str("\n  ");
        reason.push_str(failure);
    }
    if failures.len() > TOLD {
        reason.push_str(&format!("\n  and {} more", failures.len() - TOLD));
    }
    Err(Stop::broken(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_and_the_first_ones_told() {
        assert_eq!(told(&[], 3), Ok("3 questions answered".to_owned()));
        let failures: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
        let reason = told(&failures, 30).expect_err("failed").to_string();
        assert!(reason.starts_with("20 of 30") && reason.contains("f7") && !reason.contains("f8"), "{reason}");
        assert!(reason.ends_with("and 12 more"), "{reason}");
    }
}
