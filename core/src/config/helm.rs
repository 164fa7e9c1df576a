//! Translates a values file into the keys of the ConfigMap.

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml_ng::Value;

use super::{
    error::{ConfigError, Problem},
    keys::{self, Class, Key, Kind, SECTION_PREFIX},
    layers::{Written, push},
};

/// Path in the values file under which backends have their own options.
pub(super) const SECTIONS: &str = "backendConfig";
/// Path under which ConfigMap keys stand as they are.
pub(super) const VERBATIM: &str = "extraConfig";
/// The agent writes this file into the directory that the chart names.
pub(super) const CONFLIST: &str = "/05-cilium.conflist";

/// Renders the ConfigMap `cilium-config` of a values file, as the chart does.
///
/// What is in it: our keys with their defaults, whatever the file sets, and the defaults of the chosen IPAM mode. Keys
/// whose feature is not built are rendered too; it is [`super::Config::load`] that refuses them.
///
/// # Examples
/// ```
/// let map = kinesin_core::config::to_config_map("ipam: {operator: {clusterPoolIPv4PodCIDRList: [10.0.0.0/8]}}")?;
/// assert_eq!(map["ipam"], "kubernetes");
/// assert_eq!(map["cluster-pool-ipv4-cidr"], "10.0.0.0/8", "what is set stays, whatever the mode");
/// assert!(!map.contains_key("cluster-pool-ipv4-mask-size"), "a default is only written in the mode that it belongs to");
/// # Ok::<(), kinesin_core::config::ConfigError>(())
/// ```
///
/// # Errors
/// [`ConfigError`] for what is no YAML, for unknown and for removed paths.
pub fn to_config_map(values: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    const ORIGIN: &str = "values";
    let parsed = parse(values).map_err(|reason| ConfigError {
        problems: vec![Problem::Unreadable {
            origin: ORIGIN.to_owned(),
            reason,
            remedy: "give YAML in the shape of the chart's values".to_owned(),
        }],
    })?;
    let (written, problems) = translate(&parsed, ORIGIN);
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    let mut map: BTreeMap<String, String> = keys::all()
        .filter(|key| key.class == Class::Ours && !key.default.is_empty() && !key.helm.is_empty())
        .map(|key| (key.key.to_owned(), key.default.to_owned()))
        .collect();
    let names_backend = |key: &str| written.iter().any(|found| found.key == key);
    let names_routes = names_backend("auto-direct-node-routes");
    // The alias must not contradict a choice by registry name, so it is left out then.
    if names_backend("backends.ipam") {
        map.remove("ipam");
    }
    if names_backend("backends.routing") {
        for alias in ["routing-mode", "tunnel-protocol", "auto-direct-node-routes"] {
            map.remove(alias);
        }
    }
    let set: BTreeSet<String> = written.iter().map(|written| written.key.clone()).collect();
    map.extend(written.into_iter().map(|written| (written.key, written.value)));
    if map.get("routing-mode").is_some_and(|mode| mode == "tunnel") {
        // The default suits native routing only; what the file itself says stays, to be refused at load.
        map.retain(|key, _| names_routes || key != "auto-direct-node-routes");
    }
    let mode = map.get("ipam").cloned().unwrap_or_default();
    for key in keys::all().filter(|key| matches!(key.class, Class::Backend(owner) if owner == mode.replace('-', "_"))) {
        // The chart leaves this one to the agent's own default.
        if !key.default.is_empty() && !key.helm.is_empty() && key.key != "ipam-multi-pool-pre-allocation" {
            map.entry(key.key.to_owned()).or_insert_with(|| key.default.to_owned());
        }
    }
    // What the file sets stays in any mode: nodes may be on their way from one mode to another.
    let ipv6 = map.get("enable-ipv6").is_some_and(|value| value == "true");
    map.retain(|key, _| ipv6 || set.contains(key) || !key.starts_with("cluster-pool-ipv6-"));
    Ok(map)
}

/// Parses YAML; the answer is a mapping, empty for an empty file.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    match serde_yaml_ng::from_str::<Value>(text) {
        Ok(Value::Null) => Ok(Value::Mapping(serde_yaml_ng::Mapping::new())),
        Ok(values @ Value::Mapping(_)) => Ok(values),
        Ok(_) => Err("is no mapping of keys to values".to_owned()),
        Err(error) => Err(format!("is no YAML: {error}")),
    }
}

/// Turns values into ConfigMap keys; `origin` is the file's name.
pub(super) fn translate(values: &Value, origin: &str) -> (Vec<Written>, Vec<Problem>) {
    let mut walk = Walk { origin, written: Vec::new(), problems: Vec::new() };
    // Helm knows no order of keys, so the file's cannot decide: keys as they are win over the values that mean the same.
    let (last, first) =
        values.as_mapping().into_iter().flatten().partition(|(name, _)| name.as_str() == Some(VERBATIM));
    walk.mapping("", &Value::Mapping(cloned(first)));
    walk.mapping("", &Value::Mapping(cloned(last)));
    (walk.written, walk.problems)
}

fn cloned(entries: Vec<(&Value, &Value)>) -> serde_yaml_ng::Mapping {
    entries.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

struct Walk<'a> {
    origin: &'a str,
    written: Vec<Written>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn mapping(&mut self, path: &str, values: &Value) {
        for (name, value) in values.as_mapping().into_iter().flatten() {
            let Some(name) = scalar(name) else {
                self.problems.push(Problem::Unknown {
                    origin: self.origin.to_owned(),
                    key: format!("{path}.{name:?}"),
                    remedy: "write the name of a key as text".to_owned(),
                });
                continue;
            };
            let path = if path.is_empty() { name } else { format!("{path}.{name}") };
            self.value(&path, value);
        }
    }

    fn value(&mut self, path: &str, value: &Value) {
        if value.is_null() {
            // Helm: null takes a value away, so that the default holds.
            return;
        }
        if path == VERBATIM || path == SECTIONS {
            return match value {
                Value::Mapping(_) if path == VERBATIM => self.verbatim(value),
                Value::Mapping(_) => self.sections(SECTION_PREFIX.trim_end_matches('.'), SECTIONS, value, 0),
                _ => self.invalid(path, value, "is no mapping; write the keys under it"),
            };
        }
        if let Some(key) = keys::find_helm(path) {
            return match text_of(key, value) {
                Ok(text) if key.is_chart_only() => self.chart_only(key, text.trim()),
                Ok(text) => self.keep(key.key, &text, path),
                Err(reason) => self.invalid(path, value, &reason),
            };
        }
        let below = format!("{path}.");
        let has_keys_below = keys::all().any(|key| key.helm.starts_with(&below));
        // A word that was removed may be the name of what holds keys of ours.
        if let Some(replacement) = keys::removed_helm(path)
            && !(value.is_mapping() && has_keys_below)
        {
            self.problems.push(Problem::Removed { origin: self.origin.to_owned(), key: path.to_owned(), replacement });
            return;
        }
        if keys::is_chart_only(path) {
            return;
        }
        let leads_somewhere = has_keys_below || keys::leads_to_chart_only(&below);
        match value {
            Value::Mapping(_) if leads_somewhere => self.mapping(path, value),
            _ if leads_somewhere => self.invalid(path, value, "is no mapping; write the keys under it"),
            _ => self.problems.push(Problem::Unknown {
                origin: self.origin.to_owned(),
                key: path.to_owned(),
                remedy: keys::nearest_helm(path),
            }),
        }
    }

    /// A switch that no ConfigMap carries: whoever reads the file must refuse it.
    fn chart_only(&mut self, key: &'static Key, value: &str) {
        let checked = if value.is_empty() { return } else { key.kind.check(value) };
        let origin = self.origin.to_owned();
        match checked {
            Ok(value) if key.accepts_unbuilt(&value) => {}
            Ok(value) => {
                let (feature, remedy) = (key.doc, key.remedy());
                self.problems.push(Problem::NotBuilt { origin, key: key.key, value, feature, remedy });
            }
            Err(reason) => {
                let (key, value) = (key.key.to_owned(), value.to_owned());
                self.problems.push(Problem::Invalid { origin, key, value, reason });
            }
        }
    }

    fn verbatim(&mut self, values: &Value) {
        for (name, value) in values.as_mapping().into_iter().flatten() {
            match (scalar(name), plain(value)) {
                (Some(name), Some(text)) => {
                    self.keep(&name, &text, &format!("{VERBATIM}.{name}"));
                }
                _ => self.invalid(&format!("{VERBATIM}.{name:?}"), value, "is no text; quote it"),
            }
        }
    }

    /// Options of backends: mappings become dotted keys, lists become JSON text.
    fn sections(&mut self, key: &str, path: &str, values: &Value, depth: usize) {
        for (name, value) in values.as_mapping().into_iter().flatten() {
            let Some(name) = scalar(name) else {
                self.invalid(path, value, "has a key that is no text; quote it");
                continue;
            };
            let (key, path) = (format!("{key}.{name}"), format!("{path}.{name}"));
            match value {
                Value::Null => {}
                Value::Mapping(_) if depth < 16 => self.sections(&key, &path, value, depth + 1),
                _ if depth == 0 => self.invalid(&path, value, "is no mapping; write the backend's options under it"),
                Value::Sequence(_) => match serde_json::to_string(value) {
                    Ok(text) => self.keep(&key, &text, &path),
                    Err(error) => self.invalid(&path, value, &format!("cannot be kept: {error}")),
                },
                _ => match scalar(value) {
                    Some(text) => self.keep(&key, &text, &path),
                    None => self.invalid(&path, value, "is no value; write text, a number, true or false"),
                },
            }
        }
    }

    fn keep(&mut self, key: &str, text: &str, path: &str) {
        let origin = format!("{} ({path})", self.origin);
        push(&mut self.written, &mut self.problems, key, text.trim(), origin);
    }

    fn invalid(&mut self, path: &str, value: &Value, reason: &str) {
        let mut shown =
            scalar(value).or_else(|| serde_json::to_string(value).ok()).unwrap_or_else(|| format!("{value:?}"));
        if shown.len() > 80 {
            shown = shown.chars().take(77).chain("...".chars()).collect();
        }
        self.problems.push(Problem::Invalid {
            origin: self.origin.to_owned(),
            key: path.to_owned(),
            value: shown,
            reason: reason.to_owned(),
        });
    }
}

/// The ConfigMap text of a value, as the chart writes it.
fn text_of(key: &Key, value: &Value) -> Result<String, String> {
    match (key.key, value) {
        ("write-cni-conf-when-ready", Value::String(dir)) => {
            Ok(if dir.is_empty() { String::new() } else { format!("{}{CONFLIST}", dir.trim_end_matches('/')) })
        }
        ("auto-create-cilium-pod-ip-pools", Value::Mapping(_)) => pools(value),
        (_, Value::Sequence(items)) if matches!(key.kind, Kind::List | Kind::Names | Kind::Text) => {
            let items: Option<Vec<_>> = items.iter().map(scalar).collect();
            items.map(|items| items.join(" ")).ok_or_else(|| "has an item that is neither text nor a number".to_owned())
        }
        (_, Value::Mapping(entries)) if entries.is_empty() => Ok(String::new()),
        // A mapping where the chart takes one, such as a selector of labels: NAME=VALUE, joined by commas.
        (_, Value::Mapping(entries)) if key.kind == Kind::Text => {
            let pairs: Option<Vec<_>> =
                entries.iter().map(|(name, value)| Some(format!("{}={}", scalar(name)?, scalar(value)?))).collect();
            // Sorted, as Helm does with every mapping.
            let sorted = |mut pairs: Vec<String>| {
                pairs.sort();
                pairs.join(",")
            };
            pairs.map(sorted).ok_or_else(|| "is nested too deep".to_owned())
        }
        _ => scalar(value).ok_or_else(|| "is no single value".to_owned()),
    }
}

/// `NAME=ATTR;ATTR` per pool, pools sorted and joined by commas.
fn pools(value: &Value) -> Result<String, String> {
    const FORM: &str = "is no pool table; write NAME: {ipv4: {cidrs: [..], maskSize: N}}";
    let mut found = BTreeMap::new();
    for (name, pool) in value.as_mapping().into_iter().flatten() {
        let name = scalar(name).ok_or(FORM)?;
        let mut attributes = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let Some(settings) = pool.get(family) else { continue };
            match settings.get("cidrs") {
                None => {}
                Some(Value::Sequence(items)) => {
                    let items: Vec<_> = items.iter().map(scalar).collect::<Option<_>>().ok_or(FORM)?;
                    attributes.push(format!("{family}-cidrs:{}", items.join(",")));
                }
                // The chart's join accepts a single text as well.
                Some(single) => attributes.push(format!("{family}-cidrs:{}", scalar(single).ok_or(FORM)?)),
            }
            if let Some(size) = settings.get("maskSize") {
                attributes.push(format!("{family}-mask-size:{}", scalar(size).ok_or(FORM)?));
            }
        }
        if attributes.is_empty() {
            return Err(FORM.to_owned());
        }
        found.insert(name.clone(), format!("{name}={}", attributes.join(";")));
    }
    Ok(found.into_values().collect::<Vec<_>>().join(","))
}

fn plain(value: &Value) -> Option<String> {
    if value.is_null() { Some(String::new()) } else { scalar(value) }
}

/// Text of a string, number or boolean.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
