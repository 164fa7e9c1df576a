//! Options of native routing: there are none, and unknown ones are refused.

use kinesin_core::registry::BuildContext;
use serde::Deserialize;

/// Options as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

/// What the backend does, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether routes to other nodes are set.
    pub direct_routes: bool,
    /// Whether nodes behind a gateway are left to the network without complaint.
    pub skip_unreachable: bool,
}

impl Config {
    /// Joins the options with the node's keys.
    #[must_use]
    pub fn validate(self, context: &BuildContext) -> Settings {
        Settings {
            direct_routes: context.auto_direct_node_routes,
            skip_unreachable: context.direct_routing_skip_unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_file_equals_the_default() {
        let written: Config = toml::from_str(include_str!("../default.toml")).expect("valid");
        assert_eq!(written, Config::default());
    }

    #[test]
    fn unknown_key_is_refused() {
        assert!(toml::from_str::<Config>("metric = 3").is_err());
    }
}
