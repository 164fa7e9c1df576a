//! What came of one case: passed, failed with a reason, or skipped with the name of what is missing.

use std::fmt;

use kinesin_core::capability::{KernelFeature, Machine};

/// What came of one case.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The behaviour was seen.
    Passed,
    /// The behaviour was broken.
    Failed {
        /// What was expected, and what was seen.
        reason: String,
    },
    /// The case could not be judged here.
    Skipped {
        /// What the machine lacks.
        missing: KernelFeature,
        /// What was tried, and what the machine answered.
        reason: String,
    },
}

/// Why a case ends before its end.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The behaviour is broken: what was expected, and what was seen.
    Broken(String),
    /// The machine lacks something.
    Missing {
        /// What.
        feature: KernelFeature,
        /// What was tried, and what the machine answered.
        reason: String,
    },
}

/// The answer of a case.
pub type Judged = Result<(), Stop>;

impl Stop {
    /// A broken behaviour.
    pub fn broken(reason: impl Into<String>) -> Self {
        Self::Broken(reason.into())
    }
}

impl From<Judged> for Outcome {
    fn from(judged: Judged) -> Self {
        match judged {
            Ok(()) => Self::Passed,
            Err(Stop::Broken(reason)) => Self::Failed { reason },
            Err(Stop::Missing { feature, reason }) => Self::Skipped { missing: feature, reason },
        }
    }
}

impl Outcome {
    /// Turns a skip into a failure if the machine has what was said to be missing.
    #[must_use]
    pub fn checked(self, machine: &dyn Machine) -> Self {
        match self {
            Self::Skipped { missing, reason } if machine.has(&missing).is_ok() => Self::Failed {
                reason: format!("skipped for want of {}, which this machine has: {reason}", missing.name),
            },
            other => other,
        }
    }

    /// Whether the behaviour was seen.
    #[must_use]
    pub fn passed(&self) -> bool {
        matches!(self, Self::Passed)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
            Self::Skipped { missing, reason } => {
                write!(f, "skipped, missing {}: {reason}; {}", missing.name, missing.remedy)
            }
        }
    }
}

/// How many cases came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that could not be judged.
    pub skipped: usize,
}

impl Tally {
    /// Counts outcomes.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut tally = Self::default();
        for outcome in outcomes {
            *match outcome {
                Outcome::Passed => &mut tally.passed,
                Outcome::Failed { .. } => &mut tally.failed,
                Outcome::Skipped { .. } => &mut tally.skipped,
            } += 1;
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Ends a case as broken unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::outcome::Stop::Broken(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

#[cfg(test)]
mod tests {
    use kinesin_core::capability::KernelVersion;

    use super::*;

    const FEATURE: KernelFeature =
        KernelFeature { name: "teleport", since: KernelVersion::new(9, 9), remedy: "wait", probe: None };

    struct World(bool);

    impl Machine for World {
        fn has(&self, _: &KernelFeature) -> Result<(), String> {
            if self.0 { Ok(()) } else { Err("no".to_owned()) }
        }
    }

    fn skipped() -> Outcome {
        Outcome::from(Err(Stop::Missing { feature: FEATURE, reason: "EPERM".to_owned() }))
    }

    #[test]
    fn skip_names_what_is_missing() {
        let outcome = skipped().checked(&World(false));
        assert_eq!(outcome.to_string(), "skipped, missing teleport: EPERM; wait");
    }

    #[test]
    fn skip_fails_on_a_machine_that_has_what_was_said_to_be_missing() {
        let outcome = skipped().checked(&World(true));
        assert_eq!(outcome.to_string(), "failed: skipped for want of teleport, which this machine has: EPERM");
    }

    #[test]
    fn every_outcome_is_counted() {
        let outcomes = [Outcome::Passed, skipped(), Outcome::from(Err(Stop::broken("x"))), Outcome::Passed];
        assert_eq!(Tally::of(&outcomes).to_string(), "2 passed, 1 failed, 1 skipped");
    }
}
