//! `config view`: the agent's effective configuration, or the cluster's ConfigMap.

use std::{collections::BTreeMap, fmt::Write as _};

use kinesin_agent_api::types::ConfigEntry;

use crate::table::CONFIG;

/// Key, value and where the value came from, sorted by key.
pub(crate) fn effective(entries: &[ConfigEntry]) -> String {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|one, other| one.key.cmp(&other.key));
    let mut text = String::new();
    for entry in sorted {
        let _ = writeln!(text, "{}\t{}\t{}", one_line(&entry.key), one_line(&entry.value), one_line(&entry.source));
    }
    CONFIG.align(&text)
}

/// Key and value, sorted by key, as `cilium config view` prints the ConfigMap.
pub(crate) fn config_map(data: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (key, value) in data {
        let _ = writeln!(text, "{key}\t{}", one_line(value));
    }
    CONFIG.align(&text)
}

/// A value of several lines keeps to its row.
fn one_line(value: &str) -> String {
    value.split(['\n', '\t']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_column_is_four_after_the_longest_key() {
        let data = BTreeMap::from([
            ("ipam".to_owned(), "multi-pool".to_owned()),
            ("egress-gateway-reconciliation-trigger-interval".to_owned(), "1s\n".to_owned()),
        ]);
        let expected = "\
egress-gateway-reconciliation-trigger-interval    1s
ipam                                              multi-pool
";
        assert_eq!(config_map(&data), expected);
    }

    #[test]
    fn effective_values_name_their_source() {
        let entry = |key: &str, value: &str, source: &str| ConfigEntry {
            key: key.to_owned(),
            value: value.to_owned(),
            source: source.to_owned(),
        };
        let entries = [entry("mtu", "1400", "flag --mtu"), entry("ipam", "kubernetes", "default")];
        assert_eq!(effective(&entries), "ipam    kubernetes    default\nmtu     1400          flag --mtu\n");
    }
}
