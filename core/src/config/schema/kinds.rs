//! JSON Schema of one value.

use serde_json::{Value, json};

use super::{
    super::keys::{Class, Key, Kind},
    own::Shape,
};
use crate::values::Family;

/// What the values file may hold for a key. An empty text and `null` are unset everywhere.
pub(super) fn schema(key: &Key) -> Value {
    if key.key == "auto-create-cilium-pod-ip-pools" {
        return pools();
    }
    match key.kind {
        Kind::Bool => json!({"enum": [true, false, "true", "false", "", null]}),
        Kind::Int(min, u64::MAX) => number(json!({"minimum": min})),
        Kind::Int(min, max) => number(json!({"minimum": min, "maximum": max})),
        Kind::Ratio => json!({
            "type": ["number", "string", "null"], "minimum": 0, "maximum": 1, "pattern": "^([0-9]+(\\.[0-9]+)?)?$"
        }),
        Kind::Choice(words) => {
            let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            all.extend([json!(""), Value::Null]);
            json!({"enum": all})
        }
        Kind::Cidr(Family::V4) => text("^([0-9.]+/[0-9]+)?$"),
        Kind::Cidr(Family::V6) => text("^([0-9a-fA-F:.]+/[0-9]+)?$"),
        Kind::Duration => text("^(0|([0-9.]+(ns|us|ms|s|m|h))+)?$"),
        Kind::Name => text("^[a-z0-9_]*$"),
        Kind::Path => text("^(/.*)?$"),
        Kind::ClusterName => text("^([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?)?$"),
        Kind::List => json!({"type": ["array", "string", "null"], "items": {"type": ["string", "number", "boolean"]}}),
        Kind::Names => json!({
            "type": ["array", "string", "null"], "items": {"type": "string", "pattern": "^[a-z0-9_]+$"},
            "pattern": "^[a-z0-9_, ]*$"
        }),
        // Selectors of labels are mappings in the chart, lists of words are lists.
        Kind::Text => json!({
            "type": ["string", "number", "boolean", "array", "object", "null"],
            "items": {"type": ["string", "number", "boolean"]},
            "additionalProperties": {"type": ["string", "number", "boolean"]}
        }),
    }
}

/// What the values file may hold for a value that shapes manifests only.
pub(super) fn own_schema(shape: Shape) -> Value {
    match shape {
        Shape::Flag => json!({"type": ["boolean", "null"]}),
        Shape::Count => json!({"type": ["integer", "null"], "minimum": 0}),
        Shape::CountOrShare => json!({"type": ["integer", "string", "null"], "minimum": 0, "pattern": "^[0-9]+%?$"}),
        Shape::Text => json!({"type": ["string", "null"]}),
        Shape::Path => text("^/.*$"),
        Shape::Port => json!({
            "type": ["integer", "string", "null"], "minimum": 1, "maximum": 65535, "pattern": "^[0-9]*$"
        }),
        Shape::Words => json!({"type": ["array", "null"], "items": {"type": "string"}}),
        Shape::Labels => json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}}),
        Shape::Object => json!({"type": ["object", "null"]}),
        Shape::Objects => json!({"type": ["array", "null"], "items": {"type": "object"}}),
        Shape::RunPath => json!({"enum": ["/var/run/cilium", "/run/cilium"]}),
        Shape::PullPolicy => json!({"enum": ["Always", "IfNotPresent", "Never", null]}),
    }
}

/// Texts that a key whose feature is not built may have; for a duration in the usual spellings.
pub(super) fn accepted(key: &Key) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut keep = |text: &str| {
        if !text.is_empty() && key.accepts_unbuilt(text) && !all.iter().any(|known| known == text) {
            all.push(text.to_owned());
        }
    };
    keep(key.default);
    if let Class::NotBuilt(also) = key.class {
        also.iter().for_each(|text| keep(text));
    }
    match key.kind {
        Kind::Bool => ["true", "false"].iter().for_each(|text| keep(text)),
        Kind::Duration => durations(key.default).iter().for_each(|text| keep(text)),
        Kind::Ratio if key.default.parse::<f64>().is_ok_and(|ratio| ratio == 0.0) => keep("0"),
        _ => {}
    }
    all
}

/// A duration written in other ways; those that mean something else are sorted out by the caller.
fn durations(default: &str) -> Vec<String> {
    let short = default.strip_suffix("0s").filter(|rest| rest.ends_with(['m', 'h'])).unwrap_or(default);
    let mut all = vec![short.to_owned(), format!("{short}0s"), format!("{default}0s")];
    if let Some(minutes) = short.strip_suffix('m').and_then(|text| text.parse::<u64>().ok()) {
        all.push(format!("{}s", minutes * 60));
    }
    all
}

fn number(mut limits: Value) -> Value {
    limits["type"] = json!(["integer", "string", "null"]);
    limits["pattern"] = json!("^[0-9]*$");
    limits
}

fn text(pattern: &str) -> Value {
    json!({"type": ["string", "null"], "pattern": pattern})
}

fn pools() -> Value {
    let family = json!({
        "type": ["object", "null"], "additionalProperties": false,
        "properties": {
            // The chart's join takes a single text as well.
            "cidrs": {"type": ["array", "string"], "items": {"type": "string"}},
            "maskSize": {"type": ["integer", "string"], "minimum": 0, "maximum": 128, "pattern": "^[0-9]+$"},
        },
    });
    json!({
        "type": ["object", "string", "null"],
        "additionalProperties": {
            "type": "object", "minProperties": 1, "additionalProperties": false,
            "properties": {"ipv4": family, "ipv6": family},
        },
    })
}
