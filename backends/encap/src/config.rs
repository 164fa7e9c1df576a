//! Options of a tunnel, the same for every format: there are none, and unknown ones are refused.

use kinesin_core::{registry::BuildContext, values::Underlay};
use serde::Deserialize;

/// Options as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

/// What the backend does, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Family of the outer headers.
    pub underlay: Underlay,
}

impl Config {
    /// Joins the options with the node's keys.
    #[must_use]
    pub fn validate(self, context: &BuildContext) -> Settings {
        Settings { underlay: context.underlay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_key_is_refused() {
        let section = serde_json::json!({"port": 3});
        assert!(serde_json::from_value::<Config>(section).is_err());
    }
}
