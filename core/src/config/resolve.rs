//! Checks what was written and builds the typed tree.

mod choose;
mod cluster_pools;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{
    error::{ConfigError, Problem},
    keys::{self, Class, Key, SECTION_PREFIX, words},
    layers::{Layers, Written},
    section::Section,
    tree::{CniConfig, Config, Entry, HealthConfig, KubernetesConfig},
};
use crate::{
    combination::Selection,
    values::{Families, Underlay},
};

/// The typed tree, or everything that is wrong.
pub(super) fn resolve(layers: Layers) -> Result<Config, ConfigError> {
    let mut checked = Checked::new(layers);
    let selection = checked.selection();
    checked.backend_keys(&selection);
    let sections = checked.sections();
    // A default that stands in for a refused value contradicts what was never meant to go with it.
    let is_refused = |problem: &Problem| matches!(problem, Problem::Invalid { .. } | Problem::NotBuilt { .. });
    if !checked.problems.iter().any(is_refused) {
        checked.contradictions(&selection);
    }
    checked.cluster_pools();
    if checked.problems.is_empty() {
        Ok(checked.config(selection, sections))
    } else {
        Err(ConfigError { problems: checked.problems })
    }
}

struct Checked {
    /// Normalised values that were written.
    values: BTreeMap<String, Written>,
    /// Keys whose value follows from others: value and source.
    derived: BTreeMap<&'static str, (String, String)>,
    notices: Vec<String>,
    problems: Vec<Problem>,
}

impl Checked {
    fn new(layers: Layers) -> Self {
        let mut found =
            Self { values: BTreeMap::new(), derived: BTreeMap::new(), notices: Vec::new(), problems: layers.problems };
        for (_, written) in layers.written {
            match keys::find(&written.key) {
                Some(key) => found.check(key, written),
                None => {
                    found.values.insert(written.key.clone(), written);
                }
            }
        }
        found
    }

    fn check(&mut self, key: &'static Key, written: Written) {
        let value = match key.kind.check(&written.value) {
            Ok(value) => value,
            Err(reason) => {
                let Written { key, value, origin } = written;
                self.problems.push(Problem::Invalid { origin, key, value, reason });
                return;
            }
        };
        if let Class::NotBuilt(_) = key.class {
            if !key.accepts_unbuilt(&value) {
                let remedy = key.remedy();
                let Written { origin, .. } = written;
                self.problems.push(Problem::NotBuilt { origin, key: key.key, value, feature: key.doc, remedy });
                return;
            }
            if key.kind == keys::Kind::Bool && value == "true" {
                self.notices.push(format!(
                    "{}: {} is accepted as Cilium's default, but {} is not built into this version",
                    written.origin, key.key, key.doc
                ));
            }
        }
        self.values.insert(written.key.clone(), Written { value, ..written });
    }

    /// The value of a key of ours: written, else derived, else its default; empty if unset.
    fn get(&self, key: &'static str) -> &str {
        if let Some(written) = self.values.get(key) {
            return &written.value;
        }
        if let Some((value, _)) = self.derived.get(key) {
            return value;
        }
        keys::find(key).map_or("", |found| found.default)
    }

    fn is_on(&self, key: &'static str) -> bool {
        self.get(key) == "true"
    }

    fn shown(&self, key: &'static str) -> String {
        match self.values.get(key) {
            Some(written) => format!("{key}={:?} ({})", written.value, written.origin),
            None => format!("{key}={:?} (default)", self.get(key)),
        }
    }

    fn contradict(&mut self, first: &'static str, second: &'static str, reason: &str, remedy: &str) {
        let (first, second) = (self.shown(first), self.shown(second));
        let (reason, remedy) = (reason.to_owned(), remedy.to_owned());
        self.problems.push(Problem::Contradiction { first, second, reason, remedy });
    }

    /// Says which settings of a mode have no effect yet.
    fn backend_keys(&mut self, selection: &Selection) {
        for (key, written) in &self.values {
            let Some((found, Class::Backend(owner))) = keys::find(key).map(|found| (found, found.class)) else {
                continue;
            };
            let chosen = selection.iter().any(|(_, name)| name == owner);
            let is_default = !found.default.is_empty() && found.kind.same(&written.value, found.default);
            if !chosen && !is_default {
                self.notices.push(format!(
                    "{}: {key} belongs to the backend {owner:?}, which is not chosen; it has an effect only for nodes that \
                     change to that mode or from it",
                    written.origin
                ));
            }
        }
    }

    /// `backend.<name>.<key>` as one table per backend; dots in the key are levels.
    fn sections(&mut self) -> BTreeMap<String, Section> {
        let mut tables: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for written in self.values.values() {
            let Some(rest) = written.key.strip_prefix(SECTION_PREFIX) else { continue };
            let mut parts = rest.split('.');
            let Some(name) = parts.next() else { continue };
            let path: Vec<_> = parts.collect();
            let table = tables.entry(name.to_owned()).or_default();
            if path.iter().any(|part| part.is_empty()) || !insert(table, &path, &written.value) {
                self.problems.push(Problem::Invalid {
                    origin: written.origin.clone(),
                    key: written.key.clone(),
                    value: written.value.clone(),
                    reason: "is both a value and a table, or has an empty part; remove one".to_owned(),
                });
            }
        }
        for (key, backend, option) in keys::options() {
            let Some(written) = self.values.get(key).cloned() else { continue };
            let table = tables.entry(backend.to_owned()).or_default();
            let is_default = keys::find(key).is_some_and(|found| found.default == written.value);
            match table.get(option).and_then(Value::as_str) {
                // The chart writes defaults too, which nobody has chosen.
                Some(_) if is_default => {}
                Some(other) if other != written.value => {
                    let (first, second) = (format!("{key}={:?} ({})", written.value, written.origin), option);
                    self.problems.push(Problem::Contradiction {
                        first,
                        second: format!("{SECTION_PREFIX}{backend}.{second}={other:?}"),
                        reason: "they are the same setting".to_owned(),
                        remedy: "remove one of them".to_owned(),
                    });
                }
                _ => drop(table.insert(option.to_owned(), Value::String(written.value))),
            }
        }
        tables.into_iter().map(|(name, table)| (name.clone(), Section::new(name, table))).collect()
    }

    fn contradictions(&mut self, selection: &Selection) {
        if !self.is_on("enable-ipv4") && !self.is_on("enable-ipv6") {
            self.contradict("enable-ipv4", "enable-ipv6", "pods would have no address", "set one of them to true");
        }
        if selection.routing != "native" {
            if self.values.contains_key("auto-direct-node-routes") && self.is_on("auto-direct-node-routes") {
                let reason = "direct routes carry no tunnelled packets";
                let remedy = "remove auto-direct-node-routes or set routing-mode to native";
                self.contradict("auto-direct-node-routes", "routing-mode", reason, remedy);
            } else {
                let off = ("false".to_owned(), "routing-mode".to_owned());
                self.derived.insert("auto-direct-node-routes", off);
            }
        }
        if self.is_on("direct-routing-skip-unreachable") && !self.is_on("auto-direct-node-routes") {
            let reason = "without direct routes there is nothing to skip";
            let remedy = "set direct-routing-skip-unreachable to false";
            self.contradict("direct-routing-skip-unreachable", "auto-direct-node-routes", reason, remedy);
        }
        if self.is_on("custom-cni-conf") && self.values.contains_key("write-cni-conf-when-ready") {
            // Cilium's chart writes both; the first one wins there too, but only if the path is not ours to choose.
            self.notices.push("write-cni-conf-when-ready has no effect because custom-cni-conf is true".to_owned());
        }
        // Hosts take so much of each family (RFC 791 section 3.1, RFC 8200 section 5), and a tunnel's headers go on top.
        let least_inside = if self.is_on("enable-ipv6") { 1280 } else { 576 };
        let headers = match (&*selection.routing, self.get("underlay-protocol")) {
            ("vxlan" | "geneve", "ipv6") => 70,
            ("vxlan" | "geneve", _) => 50,
            _ => 0,
        };
        let min = least_inside + headers;
        let mtu = self.number("mtu");
        if mtu != 0 && mtu < min {
            let written = self.values.get("mtu").cloned();
            self.problems.extend(written.map(|Written { key, value, origin }| Problem::Invalid {
                origin,
                key,
                value,
                reason: format!("is too small; write 0 for detection, or a number from {min} to 65535"),
            }));
        }
    }

    fn number(&self, key: &'static str) -> u16 {
        // Values were checked against their range; what was refused never reaches a Config.
        self.get(key).parse().unwrap_or_default()
    }

    fn duration(&self, key: &'static str) -> Duration {
        keys::parse_duration(self.get(key)).unwrap_or_default()
    }

    fn path(&self, key: &'static str) -> PathBuf {
        PathBuf::from(self.get(key))
    }

    fn network(&self, key: &'static str) -> Option<IpNet> {
        self.get(key).parse().ok()
    }

    fn config(self, selection: Selection, sections: BTreeMap<String, Section>) -> Config {
        let text = |key| Some(self.get(key)).filter(|value| !value.is_empty());
        let nonzero = |key| Some(self.number(key)).filter(|number| *number != 0);
        Config {
            families: Families { v4: self.is_on("enable-ipv4"), v6: self.is_on("enable-ipv6") },
            ipv4_native_routing_cidr: self.network("ipv4-native-routing-cidr"),
            ipv6_native_routing_cidr: self.network("ipv6-native-routing-cidr"),
            auto_direct_node_routes: self.is_on("auto-direct-node-routes"),
            direct_routes_beside_tunnels: !self.values.contains_key("auto-direct-node-routes")
                || self.is_on("auto-direct-node-routes"),
            direct_routing_skip_unreachable: self.is_on("direct-routing-skip-unreachable"),
            devices: words(self.get("devices")).map(str::to_owned).collect(),
            force_device_detection: self.is_on("force-device-detection"),
            mtu_bytes: nonzero("mtu"),
            enable_tcx: self.is_on("enable-tcx"),
            underlay: match self.get("underlay-protocol") {
                "ipv4" => Underlay::Ipv4,
                "ipv6" => Underlay::Ipv6,
                _ => Underlay::Auto,
            },
            tunnel_port: nonzero("tunnel-port"),
            debug: self.is_on("debug"),
            cluster_name: self.get("cluster-name").to_owned(),
            bpf_root: self.path("bpf-root"),
            state_dir: self.path("state-dir"),
            socket_path: self.path("socket-path"),
            cni: CniConfig {
                conf_path: (!self.is_on("custom-cni-conf")).then(|| self.path("write-cni-conf-when-ready")),
                log_file: self.path("cni-log-file"),
                exclusive: self.is_on("cni-exclusive"),
                status_on_exhaustion: self.is_on("cni-status-on-exhaustion"),
            },
            k8s: KubernetesConfig {
                kubeconfig_path: text("k8s-kubeconfig-path").map(PathBuf::from),
                api_server: text("k8s-api-server").map(str::to_owned),
            },
            health: HealthConfig {
                enabled: self.is_on("enable-health-checking"),
                endpoint: self.is_on("enable-health-checking") && self.is_on("enable-endpoint-health-checking"),
                port: self.number("cluster-health-port"),
            },
            ipam_update_rate: self.duration("ipam-cilium-node-update-rate"),
            entries: self.entries(),
            notices: self.notices,
            selection,
            sections,
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let mut found: BTreeMap<String, Entry> = BTreeMap::new();
        for key in keys::all().filter(|key| key.class == Class::Ours) {
            let source = match self.derived.get(key.key) {
                Some((_, source)) => source.clone(),
                None => "default".to_owned(),
            };
            let entry = Entry { key: key.key.to_owned(), value: self.get(key.key).to_owned(), source };
            found.insert(entry.key.clone(), entry);
        }
        for Written { key, value, origin } in self.values.values() {
            let entry = Entry { key: key.clone(), value: value.clone(), source: origin.clone() };
            found.insert(key.clone(), entry);
        }
        found.into_values().collect()
    }
}

/// Puts a value under a path of tables; false if the path is taken.
fn insert(table: &mut Map<String, Value>, path: &[&str], value: &str) -> bool {
    match path {
        [] => false,
        [last] => table.insert((*last).to_owned(), Value::String(value.to_owned())).is_none(),
        [first, rest @ ..] => {
            let below = table.entry(*first).or_insert_with(|| Value::Object(Map::new()));
            below.as_object_mut().is_some_and(|below| insert(below, rest, value))
        }
    }
}

#[cfg(test)]
mod tests;
