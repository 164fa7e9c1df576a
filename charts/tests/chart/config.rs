//! The ConfigMap that helm renders is the one that core makes of the same values.

use kinesin_core::config::{
    keys::{self, Class, Kind},
    to_config_map,
};
use serde_json::{Value, json};

use crate::helm::{FIXTURES, config_map, fixture, rendered, run};

fn compare(what: &str, values: &str) {
    let expected = to_config_map(values).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(config_map(&rendered(values)), expected, "{what}");
}

#[test]
fn config_map_is_what_core_makes_of_the_same_values() {
    compare("no values", "");
    for name in FIXTURES {
        compare(name, &fixture(name));
    }
}

#[test]
fn seed_values_become_the_keys_that_the_seed_shows() {
    let grown = config_map(&rendered(&fixture("seed-cluster-pool-grown")));
    assert_eq!(grown["ipam"], "cluster-pool");
    assert_eq!(grown["cluster-pool-ipv4-cidr"], "172.20.42.0/28 172.20.84.0/28 10.0.0.0/28");
    assert_eq!(grown["cluster-pool-ipv4-mask-size"], "29");
    let multi = config_map(&rendered(&fixture("seed-multi-pool")));
    assert_eq!(multi["ipam"], "multi-pool");
    assert_eq!(multi["auto-create-cilium-pod-ip-pools"], "default=ipv4-cidrs:172.20.0.0/16;ipv4-mask-size:28");
}

#[test]
fn keys_of_another_mode_are_there_if_they_are_set() {
    let cidrs = "clusterPoolIPv4PodCIDRList: [10.9.0.0/16], clusterPoolIPv6MaskSize: 112";
    for (mode, ipv6) in [("kubernetes", false), ("multi-pool", true), ("cluster-pool", false), ("cluster-pool", true)] {
        let values = format!("ipv6: {{enabled: {ipv6}}}\nipam: {{mode: {mode}, operator: {{{cidrs}}}}}");
        compare(&values, &values);
        let map = config_map(&rendered(&values));
        assert_eq!(map["cluster-pool-ipv4-cidr"], "10.9.0.0/16", "{values}");
        assert_eq!(map["cluster-pool-ipv6-mask-size"], "112", "{values}");
        let defaults = |key: &str| map.contains_key(key);
        assert_eq!(defaults("cluster-pool-ipv4-mask-size"), mode == "cluster-pool", "{values}");
        assert_eq!(defaults("cluster-pool-ipv6-cidr"), mode == "cluster-pool" && ipv6, "{values}");
        assert!(!defaults("ipam-multi-pool-pre-allocation"), "{values}");
    }
}

/// A value that differs from the default and that the kind allows.
fn another(key: &keys::Key) -> Value {
    match key.kind {
        Kind::Bool => json!(key.default != "true"),
        Kind::Int(min, max) => json!(if key.default == max.to_string() { min } else { max.min(1 << 40) }),
        Kind::Ratio => json!(0.5),
        Kind::Choice(words) => json!(words.iter().rfind(|word| **word != key.default)),
        Kind::Cidr(family) if family.to_string() == "IPv4" => json!("10.9.0.0/16"),
        Kind::Cidr(_) => json!("fd09::/64"),
        Kind::Duration => json!("1m30s"),
        Kind::Text => json!({"b": "two", "a": 1}),
        Kind::List => json!(["one", "two"]),
        Kind::Name => json!("other"),
        Kind::Names => json!(["one", "two"]),
        Kind::Path => json!("/other/place"),
        Kind::ClusterName => json!("other-1"),
    }
}

fn put(values: &mut Value, path: &str, value: Value) {
    let mut place = values;
    for part in path.split('.') {
        place = &mut place[part];
    }
    *place = value;
}

#[test]
fn every_key_with_an_effect_reaches_the_config_map() {
    // One run of helm for all of them, in which no choice by registry name takes an alias away.
    let mut values = json!({});
    let written = |key: &&keys::Key| {
        let pools = key.key == "auto-create-cilium-pod-ip-pools";
        !key.helm.is_empty() && !key.key.starts_with("backends.") && !matches!(key.class, Class::NotBuilt(_)) && !pools
    };
    for key in keys::all().filter(written) {
        put(&mut values, key.helm, another(key));
    }
    let text = values.to_string();
    compare("every key", &text);
    let map = config_map(&rendered(&text));
    for key in keys::all().filter(written) {
        assert!(map.get(key.key).is_some_and(|value| value != key.default), "{}", key.key);
    }
}

#[test]
fn default_values_and_null_change_nothing() {
    let nothing = config_map(&rendered(""));
    let mut defaults = json!({});
    let mut nulls = json!({});
    for key in keys::all().filter(|key| !key.helm.is_empty() && !key.default.is_empty()) {
        if !matches!(key.class, Class::NotBuilt(_)) {
            put(&mut nulls, key.helm, Value::Null);
        } else if key.kind != Kind::Text && !key.is_chart_only() {
            put(&mut defaults, key.helm, serde_yaml_ng::from_str(key.default).expect("YAML"));
        }
    }
    assert_eq!(config_map(&rendered(&nulls.to_string())), nothing);
    // Defaults of what is not built are accepted, and are what the map has more.
    let text = defaults.to_string();
    compare("defaults", &text);
    assert!(config_map(&rendered(&text)).len() > 200);
}

#[test]
fn lint_has_nothing_to_say() {
    let chart = crate::helm::chart();
    for name in FIXTURES {
        let output = run(&["lint", "--strict", chart.to_str().expect("UTF-8")], &fixture(name));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("WARNING") && !said.contains("ERROR"), "{name}: {said}");
    }
}
