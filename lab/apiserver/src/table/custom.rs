//! Tables of custom kinds: name, the CRD's columns, and an age where it names none.

use serde_json::{Value, json};

use super::age::{age, age_since};
use crate::jsonpath;
use crate::kinds::Kind;
use crate::object;

pub(super) fn columns(kind: &Kind) -> Vec<Value> {
    let mut columns = vec![json!({"name": "Name", "type": "string", "format": "name",
        "description": "Name must be unique within a namespace.", "priority": 0})];
    columns.extend(kind.columns.iter().map(|c| {
        json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": c.priority})
    }));
    if kind.columns.is_empty() {
        columns.push(json!({"name": "Age", "type": "date", "format": "", "description": "", "priority": 0}));
    }
    columns
}

pub(super) fn cells(kind: &Kind, object: &Value) -> Vec<Value> {
    let mut cells = vec![Value::from(object::name(object))];
    for column in &kind.columns {
        let found = jsonpath::find(&column.path, object);
        // Several hits of one column show as one text, and none as an empty cell.
        cells.push(match (found.as_slice(), column.kind.as_str()) {
            ([], _) => Value::Null,
            ([value], "date") => age_since(value.as_str().unwrap_or_default()).into(),
            ([value], "string") => value.as_str().map_or_else(|| value.to_string(), str::to_owned).into(),
            ([value], "boolean" | "integer" | "number") => (*value).clone(),
            ([value], _) => (*value).clone(),
            (several, _) => {
                let texts: Vec<String> =
                    several.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
                texts.join(",").into()
            }
        });
    }
    if kind.columns.is_empty() {
        cells.push(age(object));
    }
    cells
}
