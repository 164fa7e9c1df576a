//! Reads the sources and turns each into one layer of ConfigMap keys with text values.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    error::Problem,
    helm,
    keys::{self, Lookup},
};

/// Where a configuration comes from; later ones win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// A mounted ConfigMap: one file per key. Not together with `file`.
    pub config_dir: Option<PathBuf>,
    /// A YAML file in the shape of the chart's values. Not together with `config_dir`.
    pub file: Option<PathBuf>,
    /// Environment; variables that do not start with `KINESIN__` are left alone.
    pub env: Vec<(String, String)>,
    /// Flags: ConfigMap key (as Cilium's flags are named) and value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The same sources with this process's environment.
    #[must_use]
    pub fn with_process_env(mut self) -> Self {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        self.env = std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        self.env.retain(|(name, _)| name.starts_with(ENV_PREFIX));
        self
    }

    /// What the sources say for one ConfigMap key, unchecked, whatever is wrong with the others; nothing when none does.
    #[must_use]
    pub fn written(&self, key: &str) -> Option<String> {
        read(self).written.remove(key).map(|written| written.value)
    }
}

/// Variables with this prefix are configuration.
pub(super) const ENV_PREFIX: &str = "KINESIN__";

/// No ConfigMap is larger (Kubernetes: 1 MiB for all keys together).
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One key as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// ConfigMap key.
    pub(super) key: String,
    /// Value as text; never empty.
    pub(super) value: String,
    /// File, variable or flag.
    pub(super) origin: String,
}

/// All layers laid over each other.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// The winning value per key.
    pub(super) written: BTreeMap<String, Written>,
    /// What could not be read or is no key.
    pub(super) problems: Vec<Problem>,
}

/// Reads every source and lays them over each other.
pub(super) fn read(sources: &Sources) -> Layers {
    let mut problems = Vec::new();
    let mut figment = Figment::new();
    if let (Some(dir), Some(file)) = (&sources.config_dir, &sources.file) {
        problems.push(Problem::Unreadable {
            origin: file.display().to_string(),
            reason: format!("the directory {} is given as well", dir.display()),
            remedy: "give either a config directory or a config file".to_owned(),
        });
    }
    let layers = [
        ("mounted directory", sources.config_dir.as_deref().map(|dir| read_dir(dir, &mut problems))),
        ("values file", sources.file.as_deref().map(|file| read_values(file, &mut problems))),
        ("environment", Some(read_env(&sources.env, &mut problems))),
        ("flags", Some(read_flags(&sources.flags, &mut problems))),
    ];
    for (name, layer) in layers {
        if let Some(written) = layer {
            figment = figment.merge(Layer { name, written });
        }
    }
    Layers { written: merged(&figment, &mut problems), problems }
}

fn merged(figment: &Figment, problems: &mut Vec<Problem>) -> BTreeMap<String, Written> {
    let data = figment.data().unwrap_or_else(|error| {
        problems.push(Problem::Unreadable {
            origin: "configuration".to_owned(),
            reason: error.to_string(),
            remedy: "correct it".to_owned(),
        });
        Map::new()
    });
    let mut written = BTreeMap::new();
    for (key, value) in data.into_values().flatten() {
        let origin = figment
            .get_metadata(value.tag())
            .map_or_else(String::new, |metadata| metadata.interpolate(&Profile::Default, &[&key]));
        let value = value.into_string().unwrap_or_default();
        written.insert(key.clone(), Written { key, value, origin });
    }
    written
}

/// One source as figment sees it; its metadata renders the origin of each key.
struct Layer {
    name: &'static str,
    written: Vec<Written>,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let origins: HashMap<String, String> =
            self.written.iter().map(|written| (written.key.clone(), written.origin.clone())).collect();
        let origins = Arc::new(origins);
        Metadata::named(self.name)
            .interpolater(move |_, keys| keys.first().and_then(|key| origins.get(*key)).cloned().unwrap_or_default())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict: Dict =
            self.written.iter().map(|written| (written.key.clone(), Value::from(written.value.clone()))).collect();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// One file per key. Entries that start with `..` are the kubelet's own links, not keys.
fn read_dir(dir: &Path, problems: &mut Vec<Problem>) -> Vec<Written> {
    let unreadable = |path: &Path, reason: String, remedy: &str| Problem::Unreadable {
        origin: path.display().to_string(),
        reason,
        remedy: remedy.to_owned(),
    };
    let mut names: Vec<_> = match fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries.into_iter().map(|entry| entry.file_name()).collect(),
        Err(error) => {
            let remedy = "mount the ConfigMap cilium-config there or give another directory";
            problems.push(unreadable(dir, format!("cannot be listed: {error}"), remedy));
            return Vec::new();
        }
    };
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let path = dir.join(&name);
        let Some(key) = name.to_str() else {
            problems.push(unreadable(&path, "its name is not UTF-8".to_owned(), "remove it"));
            continue;
        };
        if key.starts_with("..") {
            continue;
        }
        match read_text(&path) {
            Ok(text) => push(&mut found, problems, key, text.trim(), path.display().to_string()),
            Err(reason) => problems.push(unreadable(&path, reason, "replace it by the key's value as text")),
        }
    }
    found
}

fn read_values(file: &Path, problems: &mut Vec<Problem>) -> Vec<Written> {
    let unreadable = |reason: String| Problem::Unreadable {
        origin: file.display().to_string(),
        reason,
        remedy: "give a YAML file in the shape of the chart's values".to_owned(),
    };
    let parsed = read_text(file).map_err(unreadable).and_then(|text| helm::parse(&text).map_err(unreadable));
    match parsed {
        Ok(values) => {
            let (found, wrong) = helm::translate(&values, &file.display().to_string());
            problems.extend(wrong);
            found
        }
        Err(problem) => {
            problems.push(problem);
            Vec::new()
        }
    }
}

/// Text of a regular file (links are followed), at most 1 MiB of UTF-8 without control characters.
fn read_text(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        // A pipe would block the start for ever.
        return Err("is not a regular file".to_owned());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes, more than the {MAX_FILE_BYTES} of a ConfigMap", metadata.len()));
    }
    let bytes = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    match text.chars().find(|found| found.is_control() && !matches!(found, '\n' | '\r' | '\t')) {
        Some(found) => Err(format!("holds the control character {found:?}")),
        None => Ok(text),
    }
}

fn read_env(env: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Written> {
    let mut found: Vec<Written> = Vec::new();
    for (name, value) in env {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        let origin = format!("environment variable {name}");
        if value.contains(char::REPLACEMENT_CHARACTER) {
            problems.push(Problem::Unreadable {
                origin,
                reason: "is not UTF-8 text".to_owned(),
                remedy: "correct or unset it".to_owned(),
            });
            continue;
        }
        let Some(key) = keys::key_of_env(path) else {
            problems.push(Problem::Unknown { origin, key: name.clone(), remedy: keys::nearest_env(path) });
            continue;
        };
        let other = found.iter().find(|written| written.key == key && written.value != value.trim());
        if let Some(other) = other {
            problems.push(Problem::Contradiction {
                first: format!("{key}={value:?} ({origin})"),
                second: format!("{key}={:?} ({})", other.value, other.origin),
                reason: "both set the same key".to_owned(),
                remedy: "unset one of them".to_owned(),
            });
        }
        push(&mut found, problems, &key, value.trim(), origin);
    }
    found
}

fn read_flags(flags: &[(String, String)], problems: &mut Vec<Problem>) -> Vec<Written> {
    let mut found = Vec::new();
    for (key, value) in flags {
        push(&mut found, problems, key, value.trim(), format!("flag --{key}"));
    }
    found
}

/// Keeps a key that exists, reports one that does not. An empty value means that the key is not set.
pub(super) fn push(found: &mut Vec<Written>, problems: &mut Vec<Problem>, key: &str, value: &str, origin: String) {
    match keys::lookup(key) {
        Lookup::Known | Lookup::Section if value.is_empty() => {}
        Lookup::Known | Lookup::Section => {
            found.push(Written { key: key.to_owned(), value: value.to_owned(), origin });
        }
        Lookup::Removed(replacement) => {
            problems.push(Problem::Removed { origin, key: key.to_owned(), replacement });
        }
        Lookup::Unknown => {
            problems.push(Problem::Unknown { origin, key: key.to_owned(), remedy: keys::nearest(key) });
        }
    }
}
