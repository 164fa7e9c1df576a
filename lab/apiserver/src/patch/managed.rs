//! `metadata.managedFields`: who last set which field.

use serde_json::{Value, json};

use super::fields::{self, FieldSet};
use super::shape::Place;
use crate::kinds::Kind;
use crate::object;

/// One manager's fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    /// `Apply` or `Update`.
    pub(crate) operation: String,
    pub(crate) subresource: String,
    pub(crate) api_version: String,
    pub(crate) time: String,
    pub(crate) fields: FieldSet,
}

impl Entry {
    pub(crate) fn new(kind: &Kind, manager: &str, operation: &str, subresource: &str, fields: FieldSet) -> Self {
        Self {
            manager: if manager.is_empty() { "unknown".to_owned() } else { manager.to_owned() },
            operation: operation.to_owned(),
            subresource: subresource.to_owned(),
            api_version: kind.api_version(),
            time: object::now(),
            fields,
        }
    }

    pub(crate) fn is_of(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        self.manager == manager && self.operation == operation && self.subresource == subresource
    }
}

/// The entries of an object.
pub(crate) fn read(object: &Value) -> Vec<Entry> {
    object::list(object, &["metadata", "managedFields"])
        .iter()
        .map(|entry| Entry {
            manager: object::text(entry, &["manager"]).to_owned(),
            operation: object::text(entry, &["operation"]).to_owned(),
            subresource: object::text(entry, &["subresource"]).to_owned(),
            api_version: object::text(entry, &["apiVersion"]).to_owned(),
            time: object::text(entry, &["time"]).to_owned(),
            fields: fields::decode(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes entries into an object; those without fields are left out.
pub(crate) fn write(object: &mut Value, entries: &[Entry]) {
    let list: Vec<Value> = entries
        .iter()
        .filter(|e| !e.fields.is_empty())
        .map(|e| {
            let mut entry = json!({
                "manager": e.manager, "operation": e.operation, "apiVersion": e.api_version, "time": e.time,
                "fieldsType": "FieldsV1", "fieldsV1": fields::encode(&e.fields),
            });
            if !e.subresource.is_empty() {
                entry["subresource"] = e.subresource.as_str().into();
            }
            entry
        })
        .collect();
    if list.is_empty() {
        object::unset(object, &["metadata", "managedFields"]);
    } else {
        object::set(object, &["metadata", "managedFields"], list);
    }
}

/// Gives the fields that a plain write changed to its manager, and takes them from others.
pub(crate) fn record(kind: &Kind, old: Option<&Value>, new: &mut Value, manager: &str, subresource: &str) {
    let root = Place::root(kind);
    let now = fields::of_object(new, root);
    let changed: FieldSet = match old {
        None => now.iter().filter(|p| p[0] != "f:status").cloned().collect(),
        Some(old) => {
            let before = fields::of_object(old, root);
            let changed: FieldSet = now
                .iter()
                .filter(|path| {
                    let is_entry = path.last().is_some_and(|e| !e.starts_with("f:"));
                    !before.contains(*path)
                        || !is_entry && fields::find(old, path, root) != fields::find(new, path, root)
                })
                .cloned()
                .collect();
            if changed.is_empty() && before.len() == now.len() {
                return;
            }
            changed
        }
    };
    let mut entries = read(new);
    for entry in &mut entries {
        let is_own = entry.is_of(manager, "Update", subresource);
        entry.fields.retain(|path| now.contains(path) && (is_own || !changed.contains(path)));
    }
    match entries.iter_mut().find(|e| e.is_of(manager, "Update", subresource)) {
        Some(own) if !changed.is_empty() => {
            own.fields.extend(changed);
            own.time = object::now();
            own.api_version = kind.api_version();
        }
        Some(_) => {}
        None => entries.push(Entry::new(kind, manager, "Update", subresource, changed)),
    }
    write(new, &entries);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::KindSet;

    #[test]
    fn a_changed_field_moves_to_who_changed_it() {
        let kinds = KindSet::builtin();
        let kind = kinds.get("", "v1", "configmaps").unwrap();
        let mut old = json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "1"}});
        record(kind, None, &mut old, "first", "");
        let mut new = old.clone();
        new["data"]["a"] = "2".into();
        record(kind, Some(&old), &mut new, "second", "");
        let owners: Vec<(String, Vec<String>)> = read(&new)
            .iter()
            .map(|e| (e.manager.clone(), e.fields.iter().map(|p| fields::display(p)).collect()))
            .collect();
        assert_eq!(
            owners,
            [("first".to_owned(), vec![".data.b".to_owned()]), ("second".to_owned(), vec![".data.a".to_owned()]),]
        );
    }
}
