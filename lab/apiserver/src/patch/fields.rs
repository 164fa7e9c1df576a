//! Sets of field paths, as `metadata.managedFields` keeps them (`FieldsV1`).
//!
//! An element of a path is written as in `FieldsV1`: `f:name` for a field, `k:{"name":"x"}` for a
//! list entry by its keys, `v:"x"` for a scalar in a set.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shape::{ListShape, Place, identity};

/// A path from the top of an object.
pub(crate) type Path = Vec<String>;

/// A set of paths.
pub(crate) type FieldSet = BTreeSet<Path>;

/// Metadata that the server writes and nobody owns.
const UNOWNED: [&str; 11] = [
    "name",
    "namespace",
    "generateName",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// The paths of everything an object says.
pub(crate) fn of_object(object: &Value, root: Place<'_>) -> FieldSet {
    let mut set = FieldSet::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    if !UNOWNED.contains(&key.as_str()) {
                        let path = vec!["f:metadata".to_owned(), format!("f:{key}")];
                        collect(value, root.field("metadata").field(key), path, &mut set);
                    }
                }
            }
            _ => collect(value, root.field(key), vec![format!("f:{key}")], &mut set),
        }
    }
    set
}

fn collect(value: &Value, place: Place<'_>, path: Path, set: &mut FieldSet) {
    let below = |element: String| {
        let mut path = path.clone();
        path.push(element);
        path
    };
    match value {
        Value::Object(fields) if !fields.is_empty() && !place.is_atomic_object() => {
            for (key, value) in fields {
                collect(value, place.field(key), below(format!("f:{key}")), set);
            }
        }
        Value::Array(items) if !items.is_empty() => match place.list() {
            ListShape::Atomic => {
                set.insert(path);
            }
            ListShape::Set => set.extend(items.iter().map(|item| below(format!("v:{item}")))),
            ListShape::Map(keys) => {
                for item in items {
                    let path = below(format!("k:{}", identity(item, &keys)));
                    set.insert(path.clone());
                    for (key, value) in item.as_object().into_iter().flatten() {
                        let mut path = path.clone();
                        path.push(format!("f:{key}"));
                        collect(value, place.item().field(key), path, set);
                    }
                }
            }
        },
        _ => {
            set.insert(path);
        }
    }
}

/// The value at a path; a list entry is found by its keys.
pub(crate) fn find<'a>(object: &'a Value, path: &[String], root: Place<'_>) -> Option<&'a Value> {
    let Some((element, rest)) = path.split_first() else { return Some(object) };
    if let Some(name) = element.strip_prefix("f:") {
        return find(object.get(name)?, rest, root.field(name));
    }
    let position = position(object, element, root)?;
    find(object.get(position)?, rest, root.item())
}

/// Takes the value at a path away, and the objects and lists that this leaves empty.
pub(crate) fn remove(object: &mut Value, path: &[String], root: Place<'_>) {
    let Some((element, rest)) = path.split_first() else { return };
    if let Some(name) = element.strip_prefix("f:") {
        let Value::Object(fields) = object else { return };
        let Some(value) = fields.get_mut(name) else { return };
        if rest.is_empty() {
            fields.remove(name);
            return;
        }
        remove(value, rest, root.field(name));
        if is_empty(value) {
            fields.remove(name);
        }
        return;
    }
    let Some(position) = position(object, element, root) else { return };
    let Value::Array(items) = object else { return };
    if rest.is_empty() {
        items.remove(position);
    } else if let Some(item) = items.get_mut(position) {
        remove(item, rest, root.item());
    }
}

fn position(list: &Value, element: &str, place: Place<'_>) -> Option<usize> {
    let items = list.as_array()?;
    if let Some(value) = element.strip_prefix("v:") {
        let wanted: Value = serde_json::from_str(value).ok()?;
        return items.iter().position(|item| *item == wanted);
    }
    let wanted = element.strip_prefix("k:")?;
    let ListShape::Map(keys) = place.list() else { return None };
    items.iter().position(|item| identity(item, &keys) == wanted)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A set as the nested object of `fieldsV1`.
pub(crate) fn encode(set: &FieldSet) -> Value {
    let mut top = Map::new();
    for path in set {
        let mut here = &mut top;
        for element in path {
            let entry = here.entry(element.clone()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(next) = entry else { return Value::Null };
            here = next;
        }
        // A list entry is owned itself, beside its fields.
        if path.last().is_some_and(|e| e.starts_with("k:")) {
            here.insert(".".to_owned(), Value::Object(Map::new()));
        }
    }
    Value::Object(top)
}

/// The set that a `fieldsV1` object says.
pub(crate) fn decode(fields: &Value) -> FieldSet {
    fn walk(node: &Value, path: &mut Path, set: &mut FieldSet) {
        let children = node.as_object().into_iter().flatten();
        let mut is_leaf = true;
        for (key, child) in children {
            if key == "." {
                set.insert(path.clone());
            } else {
                path.push(key.clone());
                walk(child, path, set);
                path.pop();
            }
            is_leaf = false;
        }
        if is_leaf && !path.is_empty() {
            set.insert(path.clone());
        }
    }
    let mut set = FieldSet::new();
    walk(fields, &mut Vec::new(), &mut set);
    set
}

/// A path as messages show it: `.spec.containers[name="x"].image`.
pub(crate) fn display(path: &[String]) -> String {
    let mut text = String::new();
    for element in path {
        if let Some(name) = element.strip_prefix("f:") {
            text.push('.');
            text.push_str(name);
        } else if let Some(keys) = element.strip_prefix("k:") {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            text.push_str(&format!("[{}]", parts.join(",")));
        } else {
            text.push_str(&format!("[{}]", element.trim_start_matches("v:")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::KindSet;

    #[test]
    fn a_set_survives_encoding() {
        let kinds = KindSet::builtin();
        let root = Place::root(kinds.get("", "v1", "pods").unwrap());
        let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                     "tolerations": [{"key": "k"}], "volumes": []}});
        let set = of_object(&pod, root);
        assert_eq!(decode(&encode(&set)), set);
        let shown: Vec<String> = set.iter().map(|p| display(p)).collect();
        assert_eq!(
            shown,
            [
                ".metadata.finalizers[\"x/y\"]",
                ".metadata.labels.a",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].image",
                ".spec.containers[name=\"c\"].name",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
                ".spec.tolerations",
                ".spec.volumes",
            ]
        );
        for path in &set {
            assert!(find(&pod, path, root).is_some(), "{}", display(path));
        }
    }

    #[test]
    fn removing_every_path_leaves_nothing_owned() {
        let kinds = KindSet::builtin();
        let root = Place::root(kinds.get("", "v1", "pods").unwrap());
        let mut pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        for path in of_object(&pod.clone(), root) {
            remove(&mut pod, &path, root);
        }
        assert_eq!(pod, json!({"metadata": {"name": "p"}}));
    }
}
