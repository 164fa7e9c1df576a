//! Follows the mounted ConfigMap while the operator runs.
//!
//! The directory is read once a second and compared: kubelet swaps a link in it, others write files, and a mount may be
//! one that tells nobody of changes. A hundred small files are read in less than a millisecond.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kinesin_core::config::{Config, Sources};
use tokio::sync::watch;

use crate::{ipam::IpamSettings, state::State};

const INTERVAL: Duration = Duration::from_secs(1);

/// Reads the settings of a mounted ConfigMap.
///
/// # Errors
/// What in it is refused, all of it, or a value that the operator alone reads.
pub(crate) fn load(directory: PathBuf) -> anyhow::Result<IpamSettings> {
    let sources = Sources { config_dir: Some(directory), ..Sources::default() };
    IpamSettings::of(&Config::load(&sources)?)
}

/// Sends the settings whenever they are others. A configuration that is refused changes nothing and is reported.
pub(crate) async fn follow(directory: PathBuf, settings: watch::Sender<IpamSettings>, state: Arc<State>) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let path = directory.clone();
        let Ok(loaded) = tokio::task::spawn_blocking(move || load(path)).await else { return };
        match loaded {
            Ok(next) => {
                said.clear();
                state.ipam.set_config_error(None);
                settings.send_if_modified(|settings| {
                    let modified = *settings != next;
                    *settings = next;
                    modified
                });
            }
            Err(error) => {
                let text = format!("{error:#}");
                // Once for each reason, not every second.
                if text != said {
                    tracing::error!(error = text, "the configuration is refused; the last one goes on");
                    said.clone_from(&text);
                    state.ipam.set_config_error(Some(text));
                }
            }
        }
    }
}
