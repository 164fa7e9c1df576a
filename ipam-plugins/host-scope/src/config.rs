//! Options of host scope: as written, and checked.

use kinesin_core::registry::BuildError;
use kinesin_ipam_allocator::check_number;
use serde::Deserialize;

use crate::NAME;

/// Options as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// Addresses per family that a node needs at least.
    pub min_addresses: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_addresses: 3 }
    }
}

/// Options, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Addresses per family that a node needs at least; one or more.
    pub min_addresses: u32,
}

impl Config {
    /// Checks the options; touches no file.
    ///
    /// # Errors
    /// `Config` for a minimum that is no number of addresses.
    pub fn validate(self) -> Result<Settings, BuildError> {
        // More than a /8 can never be had.
        let min_addresses = check_number(NAME, "minAddresses", self.min_addresses, 1..=1 << 24, "3 is the default")?;
        Ok(Settings { min_addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_file_equals_the_default() {
        let written: Config = toml::from_str(include_str!("../default.toml")).expect("valid");
        assert_eq!(written, Config::default());
        assert!(written.validate().is_ok());
    }

    #[test]
    fn impossible_minimum_is_refused_by_key() {
        for min_addresses in [0, u32::MAX] {
            let error = Config { min_addresses }.validate().expect_err("refused").to_string();
            assert!(error.starts_with("backendConfig.host_scope.minAddresses: "), "{error}");
        }
    }

    #[test]
    fn unknown_key_is_refused() {
        assert!(toml::from_str::<Config>("minAddress = 3").is_err());
    }
}
