//! The part of JSONPath that printer columns use: `.a.b`, `['a.b']`, `[0]`, `[*]`, `[?(@.a=="b")]`.

use serde_json::Value;

#[derive(Debug, PartialEq)]
enum Step<'a> {
    Field(String),
    Index(i64),
    All,
    Filter { path: &'a str, is_equal: bool, value: Option<Value> },
}

/// Everything a path leads to; a path that does not parse leads nowhere.
pub(crate) fn find<'a>(path: &str, object: &'a Value) -> Vec<&'a Value> {
    let Some(steps) = parse(path) else { return Vec::new() };
    let mut here = vec![object];
    for step in &steps {
        here = here.into_iter().flat_map(|value| follow(step, value)).collect();
    }
    here.retain(|value| !value.is_null());
    here
}

fn follow<'a>(step: &Step<'_>, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => {
            let Some(items) = value.as_array() else { return Vec::new() };
            let length = i64::try_from(items.len()).unwrap_or_default();
            let index = if *index < 0 { length + index } else { *index };
            usize::try_from(index).ok().and_then(|i| items.get(i)).into_iter().collect()
        }
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(fields) => fields.values().collect(),
            _ => Vec::new(),
        },
        Step::Filter { path, is_equal, value: wanted } => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let fits = |item: &&'a Value| {
                let found = find(path, item);
                match wanted {
                    Some(wanted) => found.contains(&wanted) == *is_equal,
                    None => !found.is_empty(),
                }
            };
            items.iter().filter(fits).collect()
        }
    }
}

fn parse(path: &str) -> Option<Vec<Step<'_>>> {
    let mut rest = path.trim().trim_start_matches('{').trim_end_matches('}').trim();
    rest = rest.strip_prefix('$').or_else(|| rest.strip_prefix('@')).unwrap_or(rest);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(after[..end].trim())?);
            rest = &after[end + 1..];
            continue;
        }
        let after = rest.strip_prefix('.').unwrap_or(rest);
        let (mut name, mut end, mut is_escaped) = (String::new(), after.len(), false);
        for (i, c) in after.char_indices() {
            match c {
                '\\' if !is_escaped => is_escaped = true,
                '.' | '[' if !is_escaped => {
                    end = i;
                    break;
                }
                c => {
                    name.push(c);
                    is_escaped = false;
                }
            }
        }
        if name.is_empty() && end == 0 && !after.starts_with('[') {
            return None;
        }
        match name.as_str() {
            "" => {}
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
        rest = &after[end..];
    }
    Some(steps)
}

/// The position of the bracket that closes this one; quotes and inner brackets are passed over.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (i, c) in text.char_indices() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('"' | '\'', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) if depth == 0 => return Some(i),
            (']', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(inside: &str) -> Option<Step<'_>> {
    if inside == "*" || inside == ":" {
        return Some(Step::All);
    }
    if let Some(condition) = inside.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        let condition = condition.trim();
        for (operator, is_equal) in [("==", true), ("!=", false)] {
            if let Some((path, value)) = condition.split_once(operator) {
                return Some(Step::Filter { path: path.trim(), is_equal, value: Some(literal(value.trim())?) });
            }
        }
        return Some(Step::Filter { path: condition, is_equal: true, value: None });
    }
    match literal(inside)? {
        Value::String(name) => Some(Step::Field(name)),
        number => number.as_i64().map(Step::Index),
    }
}

fn literal(text: &str) -> Option<Value> {
    for quote in ['"', '\''] {
        if let Some(inside) = text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote)) {
            return Some(inside.into());
        }
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_of_printer_columns_lead_where_they_should() {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "spec": {"addresses": [{"type": "Hostname", "ip": "h"}, {"type": "InternalIP", "ip": "10.0.0.1"}],
                     "flag": false, "list": [1, 2, 3]},
        });
        for (path, want) in [
            (r#".spec.addresses[?(@.type=="InternalIP")].ip"#, json!(["10.0.0.1"])),
            (r#".spec.addresses[?(@.type != 'Hostname')].ip"#, json!(["10.0.0.1"])),
            (".spec.addresses[*].ip", json!(["h", "10.0.0.1"])),
            (".spec.list[0]", json!([1])),
            (".spec.list[-1]", json!([3])),
            (r".metadata.annotations.a\.b/c", json!(["x"])),
            (".metadata.annotations['a.b/c']", json!(["x"])),
            ("{.spec.flag}", json!([false])),
            (".spec.absent.deeper", json!([])),
            (".spec.list[", json!([])),
            ("..", json!([])),
        ] {
            let found: Vec<Value> = find(path, &object).into_iter().cloned().collect();
            assert_eq!(Value::from(found), want, "{path}");
        }
    }
}
