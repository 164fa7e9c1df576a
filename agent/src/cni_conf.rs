//! The CNI configuration: written when the agent is ready, and kept.
//!
//! It is never removed while the agent is away: a runtime without it cannot even stop its pods.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kinesin_core::config::Config;
use serde_json::{Value, json};

/// Suffix of configurations that were set aside, as Cilium's.
const SET_ASIDE: &str = "cilium_bak";

/// Why the CNI configuration could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path:?}; mount the CNI directory of the host there, or set custom-cni-conf")]
pub(crate) struct CniConfError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes the configuration unless it is there already; the answer is what `status` says of it.
pub(crate) fn apply(config: &Config) -> Result<String, CniConfError> {
    let Some(path) = &config.cni.conf_path else {
        return Ok("CNI configuration management disabled".to_owned());
    };
    let failed = |action, path: &Path, source| CniConfError { action, path: path.to_owned(), source };
    let content = conflist(config).to_string();
    if fs::read(path).ok().as_deref() != Some(content.as_bytes()) {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(|source| failed("make", directory, source))?;
        }
        write(path, content.as_bytes()).map_err(|source| failed("write", path, source))?;
        tracing::info!(path = %path.display(), "wrote the CNI configuration");
    }
    if config.cni.exclusive {
        set_others_aside(path).map_err(|source| failed("set aside configurations beside", path, source))?;
    }
    Ok(format!("successfully wrote CNI configuration file to {}", path.display()))
}

/// The network's name and the plugin's type are Cilium's.
fn conflist(config: &Config) -> Value {
    json!({
        // A runtime without `cniVersions` (CNI before 1.1) refuses a newer version than it knows.
        "cniVersion": "1.0.0",
        "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        "name": "cilium",
        "plugins": [{
            "type": "cilium-cni",
            "enable-debug": config.debug,
            "log-file": config.cni.log_file,
        }],
    })
}

/// Runtimes notice a rename within the directory, but not one from elsewhere (containerd 1.6 to 2.1, measured).
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    crate::store::write_atomically(path, content, 0o600)
}

/// Runtimes take the first configuration by name, so others would win or be joined to ours.
fn set_others_aside(own: &Path) -> io::Result<()> {
    let Some(directory) = own.parent() else { return Ok(()) };
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let is_configuration =
            path.extension().is_some_and(|found| found == "conf" || found == "conflist" || found == "json");
        if path == own || !is_configuration || !path.is_file() {
            continue;
        }
        let mut aside = path.clone().into_os_string();
        aside.push(".");
        aside.push(SET_ASIDE);
        fs::rename(&path, &aside)?;
        tracing::info!(path = %path.display(), "set another CNI configuration aside (key cni-exclusive)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kinesin_core::config::Sources;

    use super::*;

    fn config(directory: &Path, exclusive: bool) -> Config {
        let path = directory.join("net.d/05-cilium.conflist");
        let flags = vec![
            ("write-cni-conf-when-ready".to_owned(), path.display().to_string()),
            ("cni-exclusive".to_owned(), exclusive.to_string()),
        ];
        Config::load(&Sources { flags, ..Sources::default() }).expect("valid")
    }

    #[test]
    fn others_are_set_aside_only_if_exclusive() {
        let directory = tempfile::tempdir().expect("directory");
        let other = directory.path().join("net.d/10-bridge.conf");
        apply(&config(directory.path(), false)).expect("written");
        fs::write(&other, "{}").expect("written");
        apply(&config(directory.path(), false)).expect("kept");
        assert!(other.exists());
        let said = apply(&config(directory.path(), true)).expect("set aside");
        assert!(!other.exists() && directory.path().join("net.d/10-bridge.conf.cilium_bak").exists());
        assert!(said.starts_with("successfully wrote CNI configuration file to "), "{said}");
        assert!(directory.path().join("net.d/05-cilium.conflist").exists());
    }

    #[test]
    fn an_altered_file_is_put_right() {
        let directory = tempfile::tempdir().expect("directory");
        let config = config(directory.path(), true);
        apply(&config).expect("written");
        let path = directory.path().join("net.d/05-cilium.conflist");
        fs::write(&path, "{}").expect("altered");
        apply(&config).expect("written again");
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["plugins"][0]["type"], "cilium-cni");
    }
}
