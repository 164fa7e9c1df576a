//! What the walker takes, changes and refuses.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

fn custom(properties: Value) -> Schema {
    Schema::Structural(Arc::new(json!({"type": "object", "properties": {"spec": {
        "type": "object", "properties": properties, "required": ["size"]}}})))
}

fn causes(schema: &Schema, spec: Value) -> Vec<String> {
    let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "spec": spec});
    schema.walk(&mut object).causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
}

#[test]
fn values_that_break_a_rule_are_named_with_field_and_rule() {
    let schema = custom(json!({
        "size": {"type": "integer", "minimum": 1, "maximum": 9, "format": "int32"},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 3},
        "port": {"x-kubernetes-int-or-string": true},
        "tags": {"type": "array", "maxItems": 1, "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                 "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
        "either": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                   "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    }));
    for (spec, want) in [
        (json!({"size": 3}), ""),
        (json!({}), "spec.size: Required value"),
        (json!({"size": 0}), "spec.size: Invalid value: 0: must be greater than or equal to 1"),
        (json!({"size": "x"}), "spec.size: Invalid value: \"x\": must be of type integer: got string"),
        (json!({"size": null}), "spec.size: Invalid value: null: must be of type integer: got null"),
        (json!({"size": 1, "mode": "c"}), "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\""),
        (json!({"size": 1, "name": "A"}), "spec.name: Invalid value: \"A\": should match '^[a-z]+$'"),
        (json!({"size": 1, "name": "abcd"}), "spec.name: Invalid value: \"abcd\": may not be more than 3 bytes"),
        (json!({"size": 1, "port": "http"}), ""),
        (
            json!({"size": 1, "port": true}),
            "spec.port: Invalid value: true: must be of type integer,string: got boolean",
        ),
        (json!({"size": 1, "tags": ["a", 1]}), "spec.tags: Invalid value: [\"a\",1]: must have at most 1 items"),
        (
            json!({"size": 1, "map": {"a": "x"}}),
            "spec.map.a: Invalid value: \"x\": must be of type integer: got string",
        ),
        (json!({"size": 1, "list": [{"k": "a"}, {"k": "a"}]}), "spec.list[1]: Duplicate value: [\"a\"]"),
        (json!({"size": 1, "either": {"a": 1}}), ""),
        (
            json!({"size": 1, "either": {"a": 1, "b": 1}}),
            "spec.either: Invalid value: {\"a\":1,\"b\":1}: must validate one and only one schema (oneOf), found 2 valid alternatives",
        ),
    ] {
        assert_eq!(causes(&schema, spec.clone()).first().map(String::as_str).unwrap_or_default(), want, "{spec}");
    }
}

#[test]
fn unknown_fields_are_pruned_and_defaults_filled_in() {
    let schema = custom(json!({
        "size": {"type": "integer", "default": 2},
        "deep": {"type": "object", "default": {}, "properties": {"on": {"type": "boolean", "default": true}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }));
    let mut object =
        json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"free": {"any": 1}, "typo": 1}, "top": 1});
    let found = schema.walk(&mut object);
    assert_eq!(found.unknown, ["spec.typo", "top"]);
    assert!(found.causes.is_empty(), "{:?}", found.causes);
    assert_eq!(
        object,
        json!({"metadata": {"name": "x", "labels": {"a": "b"}},
               "spec": {"size": 2, "deep": {"on": true}, "free": {"any": 1}}})
    );
}

#[test]
fn builtin_kinds_are_checked_by_their_own_schema() {
    let pod = Schema::Builtin("Pod", "");
    let mut object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "creationTimestamp": null},
        "spec": {"containers": [{"name": "c", "imagee": "i", "ports": [{"containerPort": "x"}],
                 "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}, "status": {}});
    let found = pod.walk(&mut object);
    assert_eq!(found.unknown, ["spec.containers[0].imagee"]);
    assert_eq!(found.causes.len(), 1);
    assert_eq!(found.causes[0].field, "spec.containers[0].ports[0].containerPort");
    assert_eq!(object["metadata"], json!({"name": "x"}), "null is the same as absent");

    let mut bare = json!({"metadata": {"name": "x"}, "spec": {}});
    assert_eq!(pod.walk(&mut bare).causes[0].field, "spec.containers");
}

#[test]
fn every_builtin_kind_has_a_definition() {
    for builtin in crate::kinds_builtin::BUILTINS {
        let name = definition_name(builtin.kind, builtin.group());
        assert!(definitions().contains_key(&name), "{} has no definition ({name:?})", builtin.kind);
    }
}
