//! Strategic merge patches: lists of built-in kinds merge by key, and directives steer.
//!
//! Source: "Strategic Merge Patch" in the Kubernetes community's API documentation
//! (`sig-api-machinery/strategic-merge-patch.md`).

use serde_json::{Map, Value};

use super::shape::Place;
use crate::kinds::Kind;

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object of a kind.
///
/// # Errors
/// Text that names the list entry without its merge key, or the directive that is not understood.
pub(crate) fn patch(kind: &Kind, object: &mut Value, change: &Value) -> Result<(), String> {
    let Value::Object(change) = change else { return Err("it must be an object".to_owned()) };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(fields) = object else { return Ok(()) };
    merge_object(fields, change, Place::root(kind))
}

fn merge_object(target: &mut Map<String, Value>, change: &Map<String, Value>, place: Place<'_>) -> Result<(), String> {
    match change.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = plain_fields(change, place)?;
            return Ok(());
        }
        Some("delete") => {
            target.clear();
            return Ok(());
        }
        Some(other) => return Err(format!("$patch: {other:?} is not known; use merge, replace or delete")),
    }
    if let Some(kept) = change.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| kept.iter().any(|k| k == key));
    }
    for (key, value) in change {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(list)), Some(gone)) = (target.get_mut(field), value.as_array()) {
                list.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let here = place.field(key);
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(change) => {
                let entry = target.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
                if !entry.is_object() {
                    *entry = Value::Object(Map::new());
                }
                let Value::Object(fields) = entry else { continue };
                if change.get("$patch").and_then(Value::as_str) == Some("delete") {
                    target.remove(key);
                } else {
                    merge_object(fields, change, here)?;
                }
            }
            Value::Array(change) => {
                let old = match target.get(key) {
                    Some(Value::Array(old)) => old.clone(),
                    _ => Vec::new(),
                };
                target.insert(key.clone(), Value::Array(merge_list(old, change, here)?));
            }
            scalar => {
                target.insert(key.clone(), scalar.clone());
            }
        }
    }
    for (key, order) in change {
        if let (Some(field), Some(order)) = (key.strip_prefix(ORDER), order.as_array())
            && let Some(Value::Array(list)) = target.get_mut(field)
        {
            reorder(list, order, place.field(field));
        }
    }
    Ok(())
}

fn merge_list(mut list: Vec<Value>, change: &[Value], place: Place<'_>) -> Result<Vec<Value>, String> {
    let directive = |item: &Value| item.get("$patch").and_then(Value::as_str).map(str::to_owned);
    let is_bare_replace = |item: &Value| {
        directive(item).as_deref() == Some("replace") && item.as_object().is_some_and(|fields| fields.len() == 1)
    };
    let Some(key) = place.merge_key() else {
        if place.merges_scalars() {
            for item in change {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
            return Ok(list);
        }
        return change.iter().filter(|i| !is_bare_replace(i)).map(|i| plain(i, place.item())).collect();
    };
    if change.iter().any(is_bare_replace) {
        return change.iter().filter(|i| !is_bare_replace(i)).map(|i| plain(i, place.item())).collect();
    }
    for item in change {
        let (Some(identity), Value::Object(fields)) = (item.get(key), item) else {
            return Err(format!("the list entry {item} lacks its merge key {key:?}"));
        };
        let found = list.iter().position(|old| old.get(key) == Some(identity));
        match (directive(item).as_deref(), found) {
            (Some("delete"), _) => list.retain(|old| old.get(key) != Some(identity)),
            (Some("replace"), Some(found)) => list[found] = plain(item, place.item())?,
            (_, Some(found)) => {
                if let Some(Value::Object(old)) = list.get_mut(found) {
                    merge_object(old, fields, place.item())?;
                }
            }
            (_, None) => list.push(plain(item, place.item())?),
        }
    }
    Ok(list)
}

/// A value of a patch as it is stored where nothing was before: without directives and nulls.
fn plain(value: &Value, place: Place<'_>) -> Result<Value, String> {
    match value {
        Value::Object(fields) => Ok(Value::Object(plain_fields(fields, place)?)),
        other => Ok(other.clone()),
    }
}

fn plain_fields(fields: &Map<String, Value>, place: Place<'_>) -> Result<Map<String, Value>, String> {
    let mut change = fields.clone();
    change.remove("$patch");
    let mut fresh = Map::new();
    merge_object(&mut fresh, &change, place)?;
    Ok(fresh)
}

/// Sorts the entries that the order names; the others keep their places.
fn reorder(list: &mut [Value], order: &[Value], place: Place<'_>) {
    let key = place.merge_key();
    let rank = |item: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key).is_some() && wanted.get(key) == item.get(key),
            None => wanted == item,
        })
    };
    let slots: Vec<usize> = (0..list.len()).filter(|i| rank(&list[*i]).is_some()).collect();
    let mut named: Vec<Value> = slots.iter().map(|i| list[*i].clone()).collect();
    named.sort_by_key(|item| rank(item));
    for (slot, item) in slots.into_iter().zip(named) {
        list[slot] = item;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::KindSet;

    fn patched(plural: &str, group: &str, object: Value, change: Value) -> Value {
        let kinds = KindSet::builtin();
        let mut object = object;
        patch(kinds.get(group, "v1", plural).unwrap(), &mut object, &change).unwrap();
        object
    }

    #[test]
    fn containers_merge_by_name_and_tolerations_as_a_whole() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
                                                  {"name": "b", "image": "1"}],
                                  "tolerations": [{"key": "x"}]}});
        let got = patched(
            "pods",
            "",
            pod,
            json!({"spec": {
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
            "containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c", "image": "3"}],
            "tolerations": [{"key": "y"}]}}),
        );
        assert_eq!(
            got,
            json!({"spec": {"containers": [
            {"name": "b", "image": "1"},
            {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
            {"name": "c", "image": "3"}], "tolerations": [{"key": "y"}]}})
        );
    }

    #[test]
    fn directives_delete_replace_and_retain() {
        let base = || {
            json!({"metadata": {"finalizers": ["a/b", "c/d"]},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "strategy": {"type": "R", "rollingUpdate": {"x": 1}}}})
        };
        for (change, path, want) in [
            (
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                "/spec/containers",
                json!([{"name": "b"}]),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
                "/spec/containers",
                json!([{"name": "z"}]),
            ),
            (
                json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
                "/spec/strategy",
                json!({"type": "Recreate"}),
            ),
            (json!({"spec": {"strategy": {"$patch": "replace", "type": "Q"}}}), "/spec/strategy", json!({"type": "Q"})),
            (
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}),
                "/metadata/finalizers",
                json!(["c/d"]),
            ),
            (json!({"metadata": {"finalizers": ["e/f"]}}), "/metadata/finalizers", json!(["a/b", "c/d", "e/f"])),
            (json!({"spec": {"strategy": {"rollingUpdate": null}}}), "/spec/strategy", json!({"type": "R"})),
        ] {
            let got = patched("pods", "", base(), change.clone());
            assert_eq!(got.pointer(path), Some(&want), "{change}");
        }
    }

    #[test]
    fn ports_of_services_and_containers_have_their_own_keys() {
        let got = patched(
            "services",
            "",
            json!({"spec": {"ports": [{"port": 80, "name": "a"}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}}),
        );
        assert_eq!(got["spec"]["ports"], json!([{"port": 80, "name": "a", "targetPort": 8080}, {"port": 443}]));
        let got = patched(
            "networkpolicies",
            "networking.k8s.io",
            json!({"spec": {"ingress": [{"ports": [{"port": 1}]}]}}),
            json!({"spec": {"ingress": [{"ports": [{"port": 2}]}]}}),
        );
        assert_eq!(got["spec"]["ingress"], json!([{"ports": [{"port": 2}]}]));
    }

    #[test]
    fn an_entry_without_its_key_is_named() {
        let kinds = KindSet::builtin();
        let mut pod = json!({});
        let why =
            patch(kinds.get("", "v1", "pods").unwrap(), &mut pod, &json!({"spec": {"containers": [{"image": "x"}]}}));
        assert!(why.unwrap_err().contains("\"name\""));
    }
}
