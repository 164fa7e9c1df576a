//! Options of cluster pool: as written, and checked.

use std::time::Duration;

use kinesin_core::registry::BuildError;
use kinesin_ipam_allocator::check_number;
use serde::Deserialize;

use crate::NAME;

/// Options as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// Whether the node asks for further blocks.
    pub grow: bool,
    /// Free addresses per family below which it asks; 0 for a share of the block.
    pub low_watermark: u32,
    /// Seconds that a block has to be unneeded before it is given back.
    pub release_after_seconds: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { grow: true, low_watermark: 0, release_after_seconds: 5 }
    }
}

/// Options, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether the node asks for further blocks.
    pub grow: bool,
    /// Free addresses per family below which it asks; absent for a share of the block.
    pub low_watermark: Option<u32>,
    /// How long a block has to be unneeded before it is given back.
    pub linger: Duration,
}

impl Config {
    /// Checks the options; touches no file.
    ///
    /// # Errors
    /// `Config` for a number that no node can mean.
    pub fn validate(self) -> Result<Settings, BuildError> {
        // No node runs more pods, and a larger value would ask for blocks without end.
        let low = check_number(NAME, "lowWatermark", self.low_watermark, 0..=65_536, "0 is the default")?;
        // A day.
        let linger =
            check_number(NAME, "releaseAfterSeconds", self.release_after_seconds, 0..=86_400, "5 is the default")?;
        Ok(Settings {
            grow: self.grow,
            low_watermark: (low > 0).then_some(low),
            linger: Duration::from_secs(linger.into()),
        })
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
    fn impossible_numbers_are_refused_by_key() {
        for (key, config) in [
            ("lowWatermark", Config { low_watermark: u32::MAX, ..Config::default() }),
            ("releaseAfterSeconds", Config { release_after_seconds: u32::MAX, ..Config::default() }),
        ] {
            let error = config.validate().expect_err("refused").to_string();
            assert!(error.starts_with(&format!("backendConfig.cluster_pool.{key}: ")), "{error}");
        }
    }

    #[test]
    fn unknown_key_is_refused() {
        assert!(toml::from_str::<Config>("growth = true").is_err());
    }
}
