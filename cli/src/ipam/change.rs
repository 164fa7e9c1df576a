//! What of the ConfigMap `cilium-config` changes with the mode; pure.

use std::collections::BTreeMap;

use kinesin_core::config::{Config, Sources, keys};
use kinesin_ipam_blocks::Mode;
use serde::Serialize;

use super::backend_of;

/// Keys of the ranges of cluster-pool, and whether they are IPv6's.
const RANGES: [(&str, bool); 4] = [
    ("cluster-pool-ipv4-cidr", false),
    ("cluster-pool-ipv4-mask-size", false),
    ("cluster-pool-ipv6-cidr", true),
    ("cluster-pool-ipv6-mask-size", true),
];

/// One key that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Change {
    pub(super) key: String,
    /// What it is now; absent if it is not there.
    pub(super) before: Option<String>,
    pub(super) after: String,
}

/// The keys that are others afterwards.
///
/// `ranges` says that nodes are, were or will be in cluster-pool: then its ranges are written down, because outside of that
/// mode an operator serves only what is written, and nodes that are still in it need it.
pub(super) fn changes(
    data: &BTreeMap<String, String>,
    to: Mode,
    settings: &[(String, String)],
    ranges: bool,
) -> Vec<Change> {
    let mut wanted: BTreeMap<String, String> = BTreeMap::new();
    let named = is_set(data, "backends.ipam");
    if named {
        wanted.insert("backends.ipam".to_owned(), backend_of(to).to_owned());
    }
    if !named || is_set(data, "ipam") {
        wanted.insert("ipam".to_owned(), to.to_string());
    }
    let ipv6 = data.get("enable-ipv6").is_some_and(|value| value.trim() == "true");
    for (key, _) in RANGES.iter().filter(|(key, of_ipv6)| ranges && (ipv6 || !of_ipv6) && !is_set(data, key)) {
        if let Some(known) = keys::find(key) {
            wanted.insert((*key).to_owned(), known.default.to_owned());
        }
    }
    wanted.extend(settings.iter().cloned());
    wanted
        .into_iter()
        .filter(|(key, after)| data.get(key).map(|before| before.trim()) != Some(after.trim()))
        .map(|(key, after)| Change { before: data.get(&key).cloned(), key, after })
        .collect()
}

fn is_set(data: &BTreeMap<String, String>, key: &str) -> bool {
    data.get(key).is_some_and(|value| !value.trim().is_empty())
}

/// The ConfigMap with the changes.
pub(super) fn after(data: &BTreeMap<String, String>, changes: &[Change]) -> BTreeMap<String, String> {
    let mut data = data.clone();
    data.extend(changes.iter().map(|change| (change.key.clone(), change.after.clone())));
    data
}

/// The configuration that an agent makes of the ConfigMap.
///
/// # Errors
/// Everything that is refused in it.
pub(super) fn load(data: &BTreeMap<String, String>) -> Result<Config, String> {
    let flags = data.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    // They stand in the ConfigMap, not on a command line.
    Config::load(&Sources { flags, ..Sources::default() })
        .map_err(|error| error.to_string().replace("flag --", "cilium-config, "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn told(data: &[(&str, &str)], to: Mode, settings: &[(&str, &str)], ranges: bool) -> Vec<String> {
        let settings: Vec<_> = map(settings).into_iter().collect();
        let found = changes(&map(data), to, &settings, ranges);
        found.iter().map(|change| format!("{}={}", change.key, change.after)).collect()
    }

    #[test]
    fn the_mode_is_written_where_it_was_chosen() {
        assert_eq!(told(&[("ipam", "kubernetes")], Mode::MultiPool, &[], false), ["ipam=multi-pool"]);
        assert_eq!(told(&[], Mode::MultiPool, &[], false), ["ipam=multi-pool"]);
        let named = [("backends.ipam", "host_scope")];
        assert_eq!(told(&named, Mode::MultiPool, &[], false), ["backends.ipam=multi_pool"]);
        let both = [("backends.ipam", "host_scope"), ("ipam", "kubernetes")];
        let expected = ["backends.ipam=multi_pool", "ipam=multi-pool"];
        assert_eq!(told(&both, Mode::MultiPool, &[], false), expected);
        assert!(told(&[("ipam", "multi-pool\n")], Mode::MultiPool, &[], false).is_empty(), "it is there already");
    }

    #[test]
    fn ranges_of_cluster_pool_are_written_down_so_that_they_go_on_being_served() {
        let data = [("ipam", "cluster-pool"), ("cluster-pool-ipv4-cidr", "10.9.0.0/16")];
        let expected = ["cluster-pool-ipv4-mask-size=24", "ipam=kubernetes"];
        assert_eq!(told(&data, Mode::Kubernetes, &[], true), expected);
        let dual = [("enable-ipv6", "true"), ("ipam", "cluster-pool")];
        assert_eq!(told(&dual, Mode::MultiPool, &[], true).len(), 5);
        let set = [("cluster-pool-ipv4-cidr", "10.8.0.0/16")];
        assert!(told(&data, Mode::ClusterPool, &set, true).contains(&"cluster-pool-ipv4-cidr=10.8.0.0/16".to_owned()));
    }

    #[test]
    fn what_would_be_refused_names_its_key() {
        let error = load(&map(&[("ipam", "multi-pool"), ("cluster-pool-ipv4-cidr", "x")])).expect_err("refused");
        assert!(error.contains("cilium-config, cluster-pool-ipv4-cidr") && error.contains("\"x\""), "{error}");
    }
}
