//! The chart's files that follow from the table of keys: default values, their schema, and the table for its templates.
//!
//! `charts/kinesin` has them checked in, and a test compares; so the chart accepts what [`super::to_config_map`] accepts
//! and renders the same ConfigMap. What shapes manifests only is in a table of its own, `own`.

mod kinds;
mod own;
mod tree;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::{
    own::{OWN, Own},
    tree::{Leaf, Tree},
};
use super::{
    helm::{CONFLIST, SECTIONS, VERBATIM},
    keys::{self, Class, Key, Kind},
};

/// Keys whose default holds only while another key is unset, so the values file must not seem to choose it.
const CONDITIONAL: &[(&str, &str)] = &[
    ("ipam", "unless backends.ipam is set"),
    ("routing-mode", "unless backends.routing is set"),
    ("tunnel-protocol", "unless backends.routing is set"),
    ("auto-direct-node-routes", "under routingMode native, false under tunnel, where true is refused"),
];

/// `values.yaml`: every value that has an effect, with its default and what it does.
///
/// A value of `null` is unset: the comment above it says what holds then.
#[must_use]
pub fn values_yaml() -> String {
    let mut text = String::from(
        "# Default values. Generated from the table of keys in core/src/config: KINESIN_BLESS=1 cargo test -p \
         kinesin-core --test chart\n#\n# Names are those of Cilium's chart. Keys of Cilium's for what is not built here \
         are not in this file: they are accepted\n# at their defaults and refused by name otherwise. null is unset.\n",
    );
    tree().write_yaml(&mut text);
    text
}

/// `values.schema.json` (JSON Schema draft 7): every value that is accepted, and nothing else.
///
/// Keys whose feature is not built are typed here and refused by the templates, whose message can name the feature.
#[must_use]
pub fn values_schema() -> String {
    let mut schema = tree().schema();
    if let Value::Object(top) = &mut schema {
        top.insert("$schema".to_owned(), json!("http://json-schema.org/draft-07/schema#"));
        top.insert("title".to_owned(), json!("Values of the chart kinesin"));
    }
    pretty(&schema)
}

/// `files/keys.json`: what the templates have to know of each key.
#[must_use]
pub fn key_table() -> String {
    let mut text = String::from("{\"keys\": [\n");
    let lines: Vec<_> = keys::all().map(|key| sorted(table_entry(key)).to_string()).collect();
    text.push_str(&lines.join(",\n"));
    text.push_str("\n], \"removed\": [\n");
    // Three elements: removed as a value, and a mapping there is another thing.
    let lines: Vec<_> = removed()
        .map(|(path, replacement)| match has_keys_below(path) {
            true => json!([path, "value", replacement]).to_string(),
            false => json!([path, replacement]).to_string(),
        })
        .collect();
    text.push_str(&lines.join(",\n"));
    text.push_str("\n]}\n");
    text
}

/// Every path of the values file with what may stand there.
fn tree() -> Tree {
    let mut tree = Tree::default();
    for key in keys::all().filter(|key| !key.helm.is_empty()) {
        tree.insert(key.helm, key_leaf(key));
    }
    let sections = json!({
        "type": ["object", "null"],
        "propertyNames": {"pattern": "^[a-z0-9_]+$"},
        "additionalProperties": {"type": ["object", "null"]},
    });
    let doc = "Options of backends: registry name, then the options that the backend's README lists";
    tree.insert(SECTIONS, Leaf::shown(doc, sections, json!({})));
    let doc = "Keys of the ConfigMap as they are; they win over the values that stand for the same key";
    tree.insert(VERBATIM, Leaf::shown(doc, verbatim_schema(), json!({})));
    for value in OWN {
        tree.insert(value.path, own_leaf(value));
    }
    for path in keys::chart_only_paths().filter(|path| !is_covered(path)) {
        let doc = "Accepted and without effect: it belongs to something that is not built here";
        tree.insert(path, Leaf::hidden(doc, json!({})));
    }
    // Below what is accepted whole, the templates alone look.
    for (path, replacement) in removed().filter(|(path, _)| !keys::is_chart_only(path)) {
        if has_keys_below(path) {
            tree.accept_values(path);
        } else {
            tree.insert(path, Leaf::hidden(&format!("Removed: {replacement}"), json!({})));
        }
    }
    tree
}

/// Removed paths, without those below another removed one.
fn removed() -> impl Iterator<Item = (&'static str, &'static str)> {
    let below = |path: &str| keys::removed_helm_paths().any(|(other, _)| path.starts_with(&format!("{other}.")));
    keys::removed_helm_paths().filter(move |(path, _)| !below(path))
}

/// Whether a removed value has the name of what holds keys of ours.
fn has_keys_below(path: &str) -> bool {
    keys::all().any(|key| key.helm.starts_with(&format!("{path}.")))
}

/// Whether the chart's own values say more of this path.
fn is_covered(path: &str) -> bool {
    OWN.iter().any(|own| own.path == path || own.path.starts_with(&format!("{path}.")))
}

fn key_leaf(key: &Key) -> Leaf {
    let schema = kinds::schema(key);
    let conditional = CONDITIONAL.iter().find(|(name, _)| *name == key.key);
    match (key.class, conditional) {
        (Class::NotBuilt(_), _) => Leaf::hidden(&format!("Not built: {}; {}", key.doc, key.remedy()), schema),
        (Class::Ours, Some((_, condition))) => {
            let doc = format!("{}. Unset: {} {condition}", with_choices(key), key.default);
            Leaf::shown(&doc, schema, Value::Null)
        }
        (Class::Ours, None) if key.default.is_empty() => Leaf::shown(&with_choices(key), schema, Value::Null),
        (Class::Ours, None) => Leaf::shown(&with_choices(key), schema, typed_default(key)),
        (Class::Backend(backend), _) => {
            let default = if key.default.is_empty() { "nothing" } else { key.default };
            let doc = format!("{}; an option of the backend {backend}. Unset: {default}", key.doc);
            Leaf::shown(&doc, schema, Value::Null)
        }
    }
}

fn with_choices(key: &Key) -> String {
    match key.kind {
        Kind::Choice(words) => format!("{} ({})", key.doc, words.join(", ")),
        _ => key.doc.to_owned(),
    }
}

/// The default as a values file writes it.
fn typed_default(key: &Key) -> Value {
    let text = key.default.strip_suffix(CONFLIST).unwrap_or(key.default);
    match key.kind {
        Kind::Bool => json!(text == "true"),
        Kind::Int(..) => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
        _ => json!(text),
    }
}

fn own_leaf(own: &Own) -> Leaf {
    let default = serde_yaml_ng::from_str(own.default).unwrap_or_else(|_| json!(own.default));
    Leaf::shown(own.doc, kinds::own_schema(own.shape), default)
}

/// Keys of the ConfigMap as properties, so that a misspelt one is refused.
fn verbatim_schema() -> Value {
    let plain = json!({"type": ["string", "number", "boolean", "null"]});
    let known: Map<String, Value> =
        keys::all().filter(|key| !key.is_chart_only()).map(|key| (key.key.to_owned(), plain.clone())).collect();
    json!({
        "type": ["object", "null"],
        "properties": known,
        "patternProperties": {"^backend\\.[a-z0-9_]+\\..+$": plain},
        "additionalProperties": false,
    })
}

fn table_entry(key: &Key) -> Value {
    let mut entry = BTreeMap::from([("key", json!(key.key)), ("path", json!(key.helm))]);
    if !key.default.is_empty() {
        entry.insert("default", json!(key.default));
    }
    match key.class {
        Class::Ours => entry.insert("class", json!("ours")),
        Class::Backend(name) => {
            entry.insert("backend", json!(name));
            entry.insert("class", json!("backend"))
        }
        Class::NotBuilt(_) => {
            entry.insert("accepts", json!(kinds::accepted(key)));
            entry.insert("feature", json!(key.doc));
            entry.insert("remedy", json!(key.remedy()));
            entry.insert("class", json!("unbuilt"))
        }
    };
    if key.is_chart_only() {
        entry.insert("chartOnly", json!(true));
    }
    match (key.key, key.kind) {
        ("write-cni-conf-when-ready", _) => entry.insert("suffix", json!(CONFLIST)),
        ("auto-create-cilium-pod-ip-pools", _) => entry.insert("pools", json!(true)),
        (_, Kind::List | Kind::Names) => entry.insert("words", json!(true)),
        _ => None,
    };
    json!(entry)
}

/// Keys in order, whether or not some crate of the build makes `serde_json` keep that of insertion.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn pretty(value: &Value) -> String {
    format!("{:#}\n", sorted(value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_stands_where_others_lie_below() {
        let tree = tree();
        assert_eq!(tree.conflicts(), Vec::<String>::new());
    }

    #[test]
    fn chart_values_are_known_to_the_reader_of_values() {
        for own in OWN {
            assert!(keys::is_chart_only(own.path), "{} would be refused as unknown", own.path);
            let parsed: Result<Value, _> = serde_yaml_ng::from_str(own.default);
            assert!(parsed.is_ok(), "default of {}", own.path);
        }
    }

    #[test]
    fn defaults_render_the_map_of_an_empty_file() {
        let (defaults, empty) = (super::super::to_config_map(&values_yaml()), super::super::to_config_map(""));
        assert_eq!(defaults, empty);
        assert!(defaults.is_ok(), "{defaults:?}");
    }

    #[test]
    fn whatever_is_accepted_without_being_built_is_listed() {
        for key in keys::all().filter(|key| matches!(key.class, Class::NotBuilt(_))) {
            for value in kinds::accepted(key) {
                assert!(key.accepts_unbuilt(&value), "{}={value}", key.key);
            }
        }
    }
}
