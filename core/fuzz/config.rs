//! The configuration from every source: a mounted directory, a values file, the environment, flags.

use std::fs;

use kinesin_core::{
    config::{Config, ConfigError, Sources, keys, to_config_map},
    values::Mac,
};

/// Keys in layers, one a line: `d KEY=VALUE` in the directory, `e NAME=VALUE` in the environment, `f KEY=VALUE` as a flag.
pub(crate) fn layers(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let mut sources = Sources { config_dir: Some(directory.path().to_owned()), ..Sources::default() };
    for line in text.lines() {
        let Some((name, value)) = line.get(2..).and_then(|line| line.split_once('=')) else { continue };
        let pair = (name.to_owned(), value.to_owned());
        match line.as_bytes()[0] {
            // Other names cannot be files of a mounted ConfigMap.
            b'd' if !name.is_empty() && name.len() < 200 && !name.starts_with('.') && !name.contains(['/', '\0']) => {
                fs::write(directory.path().join(name), value).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            b'e' => sources.env.push((format!("KINESIN__{name}"), pair.1)),
            b'f' => sources.flags.push(pair),
            _ => {}
        }
    }
    match Config::load(&sources) {
        Ok(config) => reads_as_shown(&config),
        Err(error) => explained(&error),
    }
}

/// A values file: the agent that reads it and the agent that reads the ConfigMap which the chart makes of it run alike.
pub(crate) fn values(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
    let file = directory.path().join("values.yaml");
    fs::write(&file, input).unwrap_or_else(|error| panic!("{error}"));
    let loaded = Config::load(&Sources { file: Some(file), ..Sources::default() });
    let rendered = to_config_map(text);
    match (loaded, rendered) {
        (Ok(config), Ok(map)) => {
            reads_as_shown(&config);
            let flags = map.into_iter().collect();
            let other = Config::load(&Sources { flags, ..Sources::default() });
            let other = other.unwrap_or_else(|error| panic!("accepted as a file, but not as a ConfigMap: {error}"));
            assert_eq!(differing(&config, &other), Vec::<String>::new(), "file and ConfigMap differ");
        }
        (Ok(_), Err(error)) => assert!(text.contains(char::is_control), "accepted, but not rendered: {error}"),
        (Err(error), _) => explained(&error),
    }
}

/// Small texts that stand for something.
pub(crate) fn texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(mac) = text.parse::<Mac>() {
        assert!(mac.to_string().eq_ignore_ascii_case(text), "{text:?} is read as {mac}");
    }
}

/// What `config view` shows is what runs: given back as flags, it makes the same configuration.
fn reads_as_shown(config: &Config) {
    let shown = config.entries().iter().filter(|entry| entry.source != "default");
    let flags: Vec<_> = shown.map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    let again = Config::load(&Sources { flags: flags.clone(), ..Sources::default() });
    let again = again.unwrap_or_else(|error| panic!("{flags:?} is shown, but refused: {error}"));
    assert_eq!(config.changed(&again), Vec::<String>::new(), "{flags:?}");
}

/// Keys with different values; one that only the chart writes, with the value that it has anyway, is none.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let value = |config: &Config, key: &str| {
        let written = config.entries().iter().find(|entry| entry.key == *key).map(|entry| entry.value.clone());
        written.unwrap_or_else(|| keys::find(key).map_or_else(String::new, |found| found.default.to_owned()))
    };
    one.changed(other).into_iter().filter(|key| value(one, key) != value(other, key)).collect()
}

/// A refusal names at least one thing, each on its own line.
fn explained(error: &ConfigError) {
    assert!(!error.problems.is_empty());
    assert!(error.problems.iter().all(|problem| !problem.to_string().is_empty()));
}
