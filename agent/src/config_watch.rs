//! Looks at the configuration again while the agent runs.
//!
//! A running agent never takes a new configuration over by itself: it says that one is there, and whether it would be
//! accepted. The one that runs is saved, so that a restart under a broken one goes on with it and says so.

use std::time::Duration;

use kinesin_core::config::{Config, ConfigError, Sources};

use crate::{
    engine::Engine,
    selection::{self, SelectionError},
    store::{Store, StoreError},
};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "watch-config";
/// How often the sources are read again: some small files.
pub(crate) const PERIOD: Duration = Duration::from_secs(3);

/// What is to be said of the configuration that lies there now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Degradation {
    /// Why it is refused; the accepted one runs.
    pub(crate) refused: Option<String>,
    /// Keys that a restart would change.
    pub(crate) pending: Vec<String>,
}

impl Degradation {
    /// What `status` says of it; nothing when all is well.
    pub(crate) fn message(&self) -> Option<String> {
        if let Some(reason) = &self.refused {
            return Some(format!(
                "runs on the configuration accepted before, because the new one is refused: {reason}"
            ));
        }
        (!self.pending.is_empty())
            .then(|| format!("restart the agent to apply the new configuration: {}", self.pending.join(", ")))
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    /// A key or value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The choice of backends.
    #[error(transparent)]
    Selection(#[from] SelectionError),
}

/// Reads and checks the sources, backends included.
pub(crate) fn load(sources: &Sources, node_name: &str) -> Result<(Config, selection::Backends), Refusal> {
    let config = Config::load(sources)?;
    let backends = selection::build(&config, node_name)?;
    Ok((config, backends))
}

/// The keys of a configuration as they can be loaded again.
fn written(config: &Config) -> Vec<(String, String)> {
    let set = config.entries().iter().filter(|entry| entry.source != "default" && !entry.value.is_empty());
    set.map(|entry| (entry.key.clone(), entry.value.clone())).collect()
}

/// Saves an accepted configuration, unless it is there already.
pub(crate) fn remember(store: &Store, config: &Config) -> Result<(), StoreError> {
    let keys = written(config);
    if store.load_config().ok().flatten().as_ref() == Some(&keys) { Ok(()) } else { store.save_config(&keys) }
}

/// The configuration that was accepted before, if there is one and it still loads.
pub(crate) fn recall(store: &Store, node_name: &str) -> Option<(Config, selection::Backends)> {
    let flags = store.load_config().ok().flatten()?;
    load(&Sources { flags, ..Sources::default() }, node_name).ok()
}

/// Compares the sources with what runs.
pub(crate) fn compare(engine: &Engine, sources: &Sources) -> Degradation {
    match load(sources, &engine.node_name) {
        Ok((config, _)) => Degradation { refused: None, pending: config.changed(&engine.config) },
        Err(refusal) => Degradation { refused: Some(refusal.to_string()), pending: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_remembered_as_it_was_written() {
        let flags = vec![("enable-ipv6".to_owned(), "true".to_owned()), ("mtu".to_owned(), "1400".to_owned())];
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
        let again = Config::load(&Sources { flags: written(&config), ..Sources::default() }).expect("valid again");
        assert!(again.changed(&config).is_empty(), "{:?}", again.changed(&config));
    }

    #[test]
    fn a_refusal_is_told_before_pending_changes() {
        let both = Degradation { refused: Some("no such key".to_owned()), pending: vec!["mtu".to_owned()] };
        assert!(both.message().is_some_and(|text| text.contains("no such key")));
        let pending = Degradation { refused: None, pending: vec!["mtu".to_owned()] };
        assert!(pending.message().is_some_and(|text| text.ends_with(": mtu")));
        assert_eq!(Degradation::default().message(), None);
    }
}
