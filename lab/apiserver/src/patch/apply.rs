//! Server-side apply: the fields a manager names become its own, those it no longer names go.
//!
//! Source: KEP-555 and "Server-Side Apply" in the Kubernetes documentation.

use serde_json::Value;

use super::fields::{self, FieldSet};
use super::managed::{self, Entry};
use super::shape::{ListShape, Place, identity};
use crate::kinds::Kind;
use crate::object;

/// Manager and field of each conflict.
pub(crate) type Conflicts = Vec<(String, String)>;

/// The next state of an object under a manager's configuration, `managedFields` included.
///
/// # Errors
/// The fields that others own with another value, unless `force` takes them.
pub(crate) fn apply(
    kind: &Kind,
    live: &Value,
    config: &Value,
    manager: &str,
    subresource: &str,
    force: bool,
) -> Result<Value, Conflicts> {
    let root = Place::root(kind);
    let applied = owned_by_config(config, root);
    let mut entries = managed::read(live);

    let mut conflicts = Conflicts::new();
    for entry in entries.iter_mut().filter(|e| !e.is_of(manager, "Apply", subresource)) {
        let lost: FieldSet = entry
            .fields
            .iter()
            .filter(|path| {
                // The existence of a list entry is shared; its fields are not.
                path.last().is_some_and(|e| e.starts_with("f:"))
                    && overlaps(&applied, path)
                    && fields::find(config, path, root) != fields::find(live, path, root)
            })
            .cloned()
            .collect();
        if force {
            entry.fields.retain(|path| !lost.contains(path));
        } else {
            conflicts.extend(lost.iter().map(|path| (entry.manager.clone(), fields::display(path))));
        }
    }
    if !conflicts.is_empty() {
        return Err(conflicts);
    }

    let mut next = live.clone();
    merge(&mut next, config, root);
    let own = entries.iter().position(|e| e.is_of(manager, "Apply", subresource));
    if let Some(own) = own {
        let dropped: Vec<_> = entries[own].fields.difference(&applied).cloned().collect();
        for path in dropped {
            let kept = |set: &FieldSet| set.range(path.clone()..).next().is_some_and(|p| p.starts_with(&path));
            let others = entries.iter().enumerate().any(|(i, e)| i != own && kept(&e.fields));
            if !others && !kept(&applied) {
                fields::remove(&mut next, &path, root);
            }
        }
    }
    let fresh = Entry::new(kind, manager, "Apply", subresource, applied);
    match own {
        // The time moves only when something does, so that applying the same again is no change.
        Some(own) if entries[own].fields == fresh.fields && same_content(live, &next) => {}
        Some(own) => entries[own] = fresh,
        None => entries.push(fresh),
    }
    managed::write(&mut next, &entries);
    Ok(next)
}

/// The fields of a configuration.
pub(crate) fn owned_by_config(config: &Value, root: Place<'_>) -> FieldSet {
    fields::of_object(config, root)
}

/// Whether a path is one of the set, above one, or below one.
fn overlaps(set: &FieldSet, path: &[String]) -> bool {
    let is_or_above = set.range(path.to_vec()..).next().is_some_and(|p| p.starts_with(path));
    is_or_above || (1..path.len()).any(|n| set.contains(&path[..n]) && path[n - 1].starts_with("f:"))
}

fn same_content(a: &Value, b: &Value) -> bool {
    let strip = |object: &Value| {
        let mut object = object.clone();
        object::unset(&mut object, &["metadata", "managedFields"]);
        object
    };
    strip(a) == strip(b)
}

fn merge(live: &mut Value, config: &Value, place: Place<'_>) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !place.is_atomic_object() => {
            for (key, value) in config {
                match live.get_mut(key) {
                    Some(there) => merge(there, value, place.field(key)),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (live @ Value::Array(_), Value::Array(config)) => match place.list() {
            ListShape::Atomic => *live = Value::Array(config.clone()),
            ListShape::Set => {
                let Value::Array(live) = live else { return };
                for item in config {
                    if !live.contains(item) {
                        live.push(item.clone());
                    }
                }
            }
            ListShape::Map(keys) => {
                let Value::Array(live) = live else { return };
                for item in config {
                    let wanted = identity(item, &keys);
                    match live.iter_mut().find(|there| identity(there, &keys) == wanted) {
                        Some(there) => merge(there, item, place.item()),
                        None => live.push(item.clone()),
                    }
                }
            }
        },
        (live, config) => *live = config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::KindSet;

    fn deployment() -> std::sync::Arc<Kind> {
        KindSet::builtin().get("apps", "v1", "deployments").unwrap().clone()
    }

    #[test]
    fn fields_that_are_no_longer_applied_go_and_those_of_others_stay() {
        let kind = deployment();
        let live = json!({"metadata": {"name": "d"}});
        let config = json!({"metadata": {"labels": {"a": "1", "b": "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]}}}});
        let first = apply(&kind, &live, &config, "me", "", false).unwrap();
        let mut scaled = first.clone();
        scaled["spec"]["replicas"] = 3.into();
        managed::record(&kind, Some(&first), &mut scaled, "scaler", "");

        let config = json!({"metadata": {"labels": {"a": "1"}},
            "spec": {"template": {"spec": {"containers": [{"name": "x", "image": "2"}]}}}});
        let second = apply(&kind, &scaled, &config, "me", "", false).unwrap();
        assert_eq!(second["metadata"]["labels"], json!({"a": "1"}));
        assert_eq!(second["spec"]["template"]["spec"]["containers"], json!([{"name": "x", "image": "2"}]));
        assert_eq!(second["spec"]["replicas"], 3);
    }

    #[test]
    fn another_managers_value_is_a_conflict_unless_forced_or_equal() {
        let kind = deployment();
        let config = |n: u32| json!({"spec": {"replicas": n}});
        let live = apply(&kind, &json!({"metadata": {"name": "d"}}), &config(2), "one", "", false).unwrap();
        let conflicts = apply(&kind, &live, &config(3), "two", "", false).unwrap_err();
        assert_eq!(conflicts, [("one".to_owned(), ".spec.replicas".to_owned())]);
        assert!(apply(&kind, &live, &config(2), "two", "", false).is_ok());
        let forced = apply(&kind, &live, &config(3), "two", "", true).unwrap();
        assert_eq!(forced["spec"]["replicas"], 3);
        assert_eq!(managed::read(&forced).len(), 1, "the first manager owns nothing any more");
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let kind = deployment();
        let config = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"replicas": 2}});
        let once = apply(&kind, &json!({"metadata": {"name": "d"}}), &config, "me", "", false).unwrap();
        assert_eq!(apply(&kind, &once, &config, "me", "", false).unwrap(), once);
    }
}
