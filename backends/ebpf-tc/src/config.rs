//! Options of the chassis: as written, and checked.

use std::{collections::BTreeMap, path::PathBuf};

use kinesin_abi::Stage;
use kinesin_core::registry::BuildError;
use serde::Deserialize;

/// Options as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Stage name to the path of a pinned program.
    pub slots: BTreeMap<String, PathBuf>,
}

/// Options, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Programs for stages.
    pub slots: BTreeMap<Stage, PathBuf>,
}

impl Config {
    /// Checks the options; touches no file.
    ///
    /// # Errors
    /// `Config` for a stage that does not exist or a path that is not absolute.
    pub fn validate(self) -> Result<Settings, BuildError> {
        let mut slots = BTreeMap::new();
        for (name, path) in self.slots {
            let wrong = |reason: String| BuildError::Config {
                backend: "ebpf".to_owned(),
                key: format!("slots.{name}"),
                reason,
            };
            let Some(stage) = Stage::ALL.into_iter().find(|stage| stage.name() == name) else {
                let known = Stage::ALL.map(Stage::name).join(", ");
                return Err(wrong(format!("there is no stage of this name; the stages are {known}")));
            };
            if !path.is_absolute() {
                return Err(wrong(format!("{path:?} is not the absolute path of a pinned program")));
            }
            slots.insert(stage, path);
        }
        Ok(Settings { slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_stage_is_answered_with_the_stages() {
        let config = Config { slots: BTreeMap::from([("egress".to_owned(), PathBuf::from("/p"))]) };
        let error = config.validate().expect_err("no such stage").to_string();
        assert!(error.starts_with("backendConfig.ebpf.slots.egress: "), "{error}");
        assert!(error.contains("egress_policy"), "{error}");
    }

    #[test]
    fn relative_path_is_refused() {
        let config = Config { slots: BTreeMap::from([("lb".to_owned(), PathBuf::from("p"))]) };
        assert!(config.validate().is_err());
    }
}
