//! Options of the chassis: as written, and checked.

use std::{collections::BTreeMap, path::PathBuf};

use kinesin_abi::Stage;
use kinesin_core::registry::BuildError;
use serde::Deserialize;

use crate::tunnel_path::TunnelPath;

/// Options as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Config {
    /// How programs are attached to the host ends of pods.
    pub endpoint_attach: EndpointAttach,
    /// Who puts tunnels on and takes them off; the chart's `tunnel.path` is the same.
    pub tunnel_path: TunnelPath,
    /// Stage name to the path of a pinned program.
    pub slots: BTreeMap<String, PathBuf>,
}

/// How programs are attached to the host ends of pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointAttach {
    /// By filters on a clsact qdisc, whatever the kernel.
    #[default]
    Filter,
    /// By tcx links where the kernel has them and `enable-tcx` is on.
    Link,
}

/// Options, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How programs are attached to the host ends of pods.
    pub endpoint_attach: EndpointAttach,
    /// Who puts tunnels on and takes them off.
    pub tunnel_path: TunnelPath,
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
        Ok(Settings { endpoint_attach: self.endpoint_attach, tunnel_path: self.tunnel_path, slots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_slot(stage: &str, path: &str) -> Config {
        Config { slots: BTreeMap::from([(stage.to_owned(), PathBuf::from(path))]), ..Config::default() }
    }

    #[test]
    fn unknown_stage_is_answered_with_the_stages() {
        let config = with_slot("egress", "/p");
        let error = config.validate().expect_err("no such stage").to_string();
        assert!(error.starts_with("backendConfig.ebpf.slots.egress: "), "{error}");
        assert!(error.contains("egress_policy"), "{error}");
    }

    #[test]
    fn relative_path_is_refused() {
        assert!(with_slot("lb", "p").validate().is_err());
    }

    #[test]
    fn default_file_equals_the_default() {
        let written: Config = toml::from_str(include_str!("../default.toml")).expect("valid");
        assert_eq!(written, Config::default());
    }

    #[test]
    fn endpoints_are_attached_by_filter_or_link() {
        let parse = |text: &str| toml::from_str::<Config>(text).map(|found| found.endpoint_attach);
        assert_eq!(parse("endpointAttach = \"link\"").expect("valid"), EndpointAttach::Link);
        let error = parse("endpointAttach = \"tcx\"").expect_err("no such way").to_string();
        assert!(error.contains("`filter` or `link`"), "{error}");
    }

    #[test]
    fn tunnels_are_put_on_by_device_or_program() {
        let parse = |text: &str| toml::from_str::<Config>(text).map(|found| found.tunnel_path);
        assert_eq!(parse("tunnelPath = \"device\"").expect("valid"), TunnelPath::Device);
        assert_eq!(parse("tunnelPath = \"bpf\"").expect("valid"), TunnelPath::Bpf);
        let error = parse("tunnelPath = \"kernel\"").expect_err("no such way").to_string();
        assert!(error.contains("`auto`, `device`, `bpf`"), "{error}");
    }
}
