//! What can be wrong with a configuration.

use std::fmt;

/// A configuration that was refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// At least one problem, in the order of the sources.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the configuration is refused: {only}"),
            many => {
                write!(f, "the configuration is refused for {} reasons:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl ConfigError {
    /// Whether the same sources could be accepted later without a change to them: never.
    #[must_use]
    pub fn retryable(&self) -> bool {
        false
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A source cannot be read as configuration.
    #[error("{origin}: {reason}; {remedy}")]
    Unreadable {
        /// The file, directory or variable.
        origin: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// No such key.
    #[error("{origin}: there is no key {key:?}; {remedy}")]
    Unknown {
        /// Where it was written.
        origin: String,
        /// As it was written.
        key: String,
        /// The nearest key, or where the list is.
        remedy: String,
    },
    /// A key of Cilium for what is not built here.
    #[error("{origin}: {key}={value:?}: {feature} is not built into this version; {remedy}")]
    NotBuilt {
        /// Where it was written.
        origin: String,
        /// ConfigMap key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What the key belongs to.
        feature: &'static str,
        /// The values that are accepted.
        remedy: String,
    },
    /// A key that Cilium or this project has removed.
    #[error("{origin}: {key} was removed; {replacement}")]
    Removed {
        /// Where it was written.
        origin: String,
        /// As it was written.
        key: String,
        /// What to write in its place.
        replacement: &'static str,
    },
    /// A value that does not fit its key.
    #[error("{origin}: {key}={value:?} {reason}")]
    Invalid {
        /// Where it was written.
        origin: String,
        /// ConfigMap key.
        key: String,
        /// As it was written.
        value: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Two values that cannot both hold.
    #[error("{first} and {second} contradict each other: {reason}; {remedy}")]
    Contradiction {
        /// `key=value (origin)`.
        first: String,
        /// `key=value (origin)`.
        second: String,
        /// Why not both.
        reason: String,
        /// What to change.
        remedy: String,
    },
}
