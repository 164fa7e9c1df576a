//! Network configuration lists: which one counts, and what each plugin gets of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::KubeletError;

/// A configuration list; what is not read here stays in the plugins' own objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfList {
    pub(crate) name: String,
    #[serde(rename = "cniVersion", default)]
    pub(crate) cni_version: String,
    pub(crate) plugins: Vec<Value>,
}

/// Reads the list that counts: the first by file name, as containerd does.
///
/// # Errors
/// `Cni` when there is none, in containerd's words, or when it cannot be used.
pub(crate) fn find_conf(dir: &Path) -> Result<ConfList, KubeletError> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|p| matches!(p.extension().and_then(|e| e.to_str()), Some("conflist" | "conf" | "json")))
        .collect();
    files.sort();
    let Some(first) = files.first() else {
        return Err(KubeletError::Cni("cni plugin not initialized".to_owned()));
    };
    let text = fs::read_to_string(first).map_err(KubeletError::file("read", first))?;
    parse_conf(&text).map_err(|why| KubeletError::Cni(format!("cni config load failed: {}: {why}", first.display())))
}

/// Parses a list, or a single configuration, which is a list of one.
fn parse_conf(text: &str) -> Result<ConfList, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list: ConfList = if value.get("plugins").is_some() {
        serde_json::from_value(value).map_err(|error| error.to_string())?
    } else {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        ConfList { name: text("name"), cni_version: text("cniVersion"), plugins: vec![value] }
    };
    if list.name.is_empty() {
        return Err("no 'name' is given".to_owned());
    }
    if list.plugins.is_empty() || list.plugins.iter().any(|plugin| kind(plugin).is_empty()) {
        return Err("every plugin needs a 'type', and the list needs a plugin".to_owned());
    }
    Ok(list)
}

/// The type of a plugin, which is the name of its program.
pub(super) fn kind(plugin: &Value) -> &str {
    plugin["type"].as_str().unwrap_or_default()
}

impl ConfList {
    /// What a plugin reads: its own object with the list's name and version, what came before, what it can do.
    pub(super) fn stdin_of(&self, plugin: &Value, previous: Option<&Value>, port_mappings: &[Value]) -> Value {
        let mut conf = plugin.clone();
        conf["name"] = self.name.as_str().into();
        conf["cniVersion"] = if self.cni_version.is_empty() { "0.1.0" } else { &self.cni_version }.into();
        if let Some(result) = previous {
            conf["prevResult"] = result.clone();
        }
        if plugin["capabilities"]["portMappings"] == json!(true) && !port_mappings.is_empty() {
            conf["runtimeConfig"] = json!({"portMappings": port_mappings});
        }
        // The runtime answers the capabilities; the plugin is not to see the question.
        if let Some(conf) = conf.as_object_mut() {
            conf.remove("capabilities");
        }
        conf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_single_configurations_are_read_and_wrong_ones_refused() {
        let list = parse_conf(r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"a"},{"type":"b"}]}"#).unwrap();
        assert_eq!((list.name.as_str(), list.plugins.len()), ("n", 2));
        let single = parse_conf(r#"{"cniVersion":"0.3.1","name":"s","type":"cilium-cni"}"#).unwrap();
        assert_eq!((kind(&single.plugins[0]), single.cni_version.as_str()), ("cilium-cni", "0.3.1"));
        for wrong in [
            "",
            "{",
            "[]",
            r#"{"name":"n","plugins":[]}"#,
            r#"{"plugins":[{"type":"a"}]}"#,
            r#"{"name":"n","plugins":[{}]}"#,
        ] {
            assert!(parse_conf(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plugin_reads_name_version_previous_result_and_port_mappings() {
        let list = ConfList {
            name: "n".into(),
            cni_version: "1.1.0".into(),
            plugins: vec![json!({"type": "portmap", "capabilities": {"portMappings": true}}), json!({"type": "b"})],
        };
        let ports = [json!({"hostPort": 80})];
        let first = list.stdin_of(&list.plugins[0], Some(&json!({"ips": []})), &ports);
        assert_eq!(
            first,
            json!({"type": "portmap", "name": "n", "cniVersion": "1.1.0", "prevResult": {"ips": []},
                "runtimeConfig": {"portMappings": [{"hostPort": 80}]}})
        );
        assert_eq!(
            list.stdin_of(&list.plugins[1], None, &ports),
            json!({"type": "b", "name": "n", "cniVersion": "1.1.0"})
        );
    }

    #[test]
    fn the_first_file_by_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find_conf(dir.path()).unwrap_err().to_string().contains("cni plugin not initialized"));
        fs::write(dir.path().join("10-b.conf"), r#"{"name":"b","type":"t"}"#).unwrap();
        fs::write(dir.path().join("05-a.conflist"), r#"{"name":"a","plugins":[{"type":"t"}]}"#).unwrap();
        fs::write(dir.path().join("00-notes.txt"), "x").unwrap();
        assert_eq!(find_conf(dir.path()).unwrap().name, "a");
    }
}
