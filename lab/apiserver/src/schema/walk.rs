//! The walk over an object along its schema.

use serde_json::{Map, Value};

use super::Findings;
use super::formats::{compile_pattern, has_format};
use crate::error::{Cause, type_name};

/// Which rules of reading apply.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect<'a> {
    /// A built-in kind: references are followed, `null` is the same as absent, required fields are
    /// asked for in the specification only (Go writes the others as zero values).
    Builtin(&'a Map<String, Value>),
    /// The structural schema of a CRD.
    Structural,
}

/// See [`super::Schema::walk`].
#[derive(Debug)]
pub(crate) struct Walker<'a> {
    dialect: Dialect<'a>,
    found: Findings,
    /// Only look; set while alternatives (`anyOf`, `not`) are tried.
    is_trial: bool,
    /// The object is a part: no defaults, nothing required.
    is_part: bool,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(dialect: Dialect<'a>, is_part: bool) -> Self {
        Self { dialect, found: Findings::default(), is_trial: false, is_part }
    }

    /// Walks a whole object. Its `apiVersion`, `kind` and `metadata` belong to every schema.
    pub(crate) fn run(mut self, schema: &Value, object: &mut Value) -> Findings {
        match self.dialect {
            Dialect::Builtin(_) => self.value(schema, object, ""),
            Dialect::Structural => self.embedded(schema, object, ""),
        }
        self.found
    }

    /// An object with type and object metadata, which the schema need not mention.
    fn embedded(&mut self, schema: &Value, object: &mut Value, path: &str) {
        let mut kept = Vec::new();
        if let Value::Object(fields) = object {
            for key in ["apiVersion", "kind", "metadata"] {
                kept.extend(fields.remove(key).map(|value| (key, value)));
            }
        }
        // The schema may say `required: [metadata]`; the three are put back before that is looked at.
        let mut schema = schema.clone();
        if let Some(Value::Array(required)) = schema.get_mut("required") {
            required.retain(|r| !["apiVersion", "kind", "metadata"].iter().any(|k| r == k));
        }
        self.value(&schema, object, path);
        if let Value::Object(fields) = object {
            fields.extend(kept.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
    }

    fn value(&mut self, schema: &Value, value: &mut Value, path: &str) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let name = target.rsplit('/').next().unwrap_or_default();
            if let Dialect::Builtin(definitions) = self.dialect
                && let Some(schema) = definitions.get(name)
            {
                self.value(schema, value, path);
            }
            return;
        }
        if value.is_null() && is_set(schema, "nullable") {
            return;
        }
        let want = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        if is_set(schema, "x-kubernetes-int-or-string") {
            if !(value.is_string() || value.is_i64() || value.is_u64() || self.is_builtin() && value.is_number()) {
                self.found.causes.push(Cause::wrong_type(path, value, "integer,string"));
                return;
            }
        } else if !fits(value, want) {
            self.found.causes.push(Cause::wrong_type(path, value, want));
            return;
        }
        self.bounds(schema, value, path);
        if !self.is_part {
            self.alternatives(schema, value, path);
        }
        match value {
            Value::Object(fields) => self.fields(schema, fields, path),
            Value::Array(items) => {
                if let Some(schema) = schema.get("items") {
                    for (i, item) in items.iter_mut().enumerate() {
                        self.child(schema, item, &format!("{path}[{i}]"));
                    }
                }
                self.list_keys(schema, items, path);
            }
            _ => {}
        }
    }

    fn child(&mut self, schema: &Value, value: &mut Value, path: &str) {
        if is_set(schema, "x-kubernetes-embedded-resource") {
            self.embedded(schema, value, path);
        } else {
            self.value(schema, value, path);
        }
    }

    fn fields(&mut self, schema: &Value, fields: &mut Map<String, Value>, path: &str) {
        let properties = schema.get("properties").and_then(Value::as_object);
        let additional = schema.get("additionalProperties");
        let keeps = is_set(schema, "x-kubernetes-preserve-unknown-fields");
        // A schema that says nothing about fields keeps them all: JSON and Fields of the built-in kinds.
        let is_open = self.is_trial
            || keeps
            || matches!(additional, Some(Value::Bool(true)))
            || (self.is_builtin() && properties.is_none() && additional.is_none());

        if !self.is_trial && !self.is_part {
            for (key, schema) in properties.into_iter().flatten() {
                if let Some(default) = schema.get("default")
                    && fields.get(key).is_none_or(|v| v.is_null() && !is_set(schema, "nullable"))
                {
                    fields.insert(key.clone(), default.clone());
                }
            }
        }
        let keys: Vec<String> = fields.keys().cloned().collect();
        for key in keys {
            let here = join(path, &key);
            let known = properties.and_then(|p| p.get(&key)).or(additional.filter(|a| a.is_object()));
            match known {
                Some(schema) => {
                    let Some(value) = fields.get_mut(&key) else { continue };
                    if value.is_null() && self.is_builtin() {
                        fields.remove(&key);
                        continue;
                    }
                    self.child(schema, value, &here);
                }
                None if is_open => {}
                None => {
                    fields.remove(&key);
                    self.found.unknown.push(here);
                }
            }
        }
        if self.asks_for_required(path) {
            for key in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                if let Some(key) = key.as_str()
                    && !fields.contains_key(key)
                {
                    self.found.causes.push(Cause::required(join(path, key), ""));
                }
            }
        }
    }

    fn bounds(&mut self, schema: &Value, value: &Value, path: &str) {
        let limit = |key: &str| schema.get(key).and_then(Value::as_u64);
        let mut wrong = Vec::new();
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.found.causes.push(Cause::not_supported(path, value, &allowed));
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str)
            && !has_format(value, format)
        {
            wrong.push(format!("must be of format {format}"));
        }
        if let Some(number) = value.as_f64() {
            let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
            let (no_min, no_max) = (is_set(schema, "exclusiveMinimum"), is_set(schema, "exclusiveMaximum"));
            if let Some(min) = bound("minimum")
                && (number < min || no_min && number <= min)
            {
                let word = if no_min { "greater than" } else { "greater than or equal to" };
                wrong.push(format!("must be {word} {min}"));
            }
            if let Some(max) = bound("maximum")
                && (number > max || no_max && number >= max)
            {
                let word = if no_max { "less than" } else { "less than or equal to" };
                wrong.push(format!("must be {word} {max}"));
            }
            if let Some(step) = bound("multipleOf")
                && step > 0.0
                && (number / step).fract() != 0.0
            {
                wrong.push(format!("must be a multiple of {step}"));
            }
        }
        if let Some(text) = value.as_str() {
            let length = text.chars().count() as u64;
            if limit("minLength").is_some_and(|min| length < min) {
                wrong.push(format!("should be at least {} chars long", limit("minLength").unwrap_or_default()));
            }
            if limit("maxLength").is_some_and(|max| length > max) {
                wrong.push(format!("may not be more than {} bytes", limit("maxLength").unwrap_or_default()));
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && compile_pattern(pattern).is_ok_and(|regex| !regex.is_match(text))
            {
                wrong.push(format!("should match '{pattern}'"));
            }
        }
        let size = match value {
            Value::Array(items) => Some((items.len() as u64, "minItems", "maxItems", "items")),
            Value::Object(fields) => Some((fields.len() as u64, "minProperties", "maxProperties", "properties")),
            _ => None,
        };
        if let Some((size, min_key, max_key, word)) = size {
            if let Some(min) = limit(min_key).filter(|min| size < *min) {
                wrong.push(format!("should have at least {min} {word}"));
            }
            if let Some(max) = limit(max_key).filter(|max| size > *max) {
                wrong.push(format!("must have at most {max} {word}"));
            }
        }
        if is_set(schema, "uniqueItems")
            && let Value::Array(items) = value
            && items.iter().enumerate().any(|(i, item)| items[..i].contains(item))
        {
            wrong.push("shouldn't contain duplicates".to_owned());
        }
        self.found.causes.extend(wrong.iter().map(|why| Cause::invalid(path, value, why)));
    }

    fn alternatives(&mut self, schema: &Value, value: &Value, path: &str) {
        let branches = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for branch in branches("allOf") {
            let causes = self.attempt(branch, value, path);
            self.found.causes.extend(causes);
        }
        let any = branches("anyOf");
        if !any.is_empty() && !any.iter().any(|branch| self.attempt(branch, value, path).is_empty()) {
            self.found.causes.push(Cause::invalid(path, value, "must validate at least one schema (anyOf)"));
        }
        let one = branches("oneOf");
        if !one.is_empty() {
            let fitting = one.iter().filter(|branch| self.attempt(branch, value, path).is_empty()).count();
            if fitting != 1 {
                let why = format!("must validate one and only one schema (oneOf), found {fitting} valid alternatives");
                self.found.causes.push(Cause::invalid(path, value, &why));
            }
        }
        if let Some(not) = schema.get("not")
            && self.attempt(not, value, path).is_empty()
        {
            self.found.causes.push(Cause::invalid(path, value, "must not validate the schema (not)"));
        }
    }

    /// The rules of a branch that a value breaks; the value is left alone.
    fn attempt(&self, schema: &Value, value: &Value, path: &str) -> Vec<Cause> {
        let mut trial =
            Walker { dialect: self.dialect, found: Findings::default(), is_trial: true, is_part: self.is_part };
        trial.value(schema, &mut value.clone(), path);
        trial.found.causes
    }

    /// Entries of a list of type `map` or `set` must differ.
    fn list_keys(&mut self, schema: &Value, items: &[Value], path: &str) {
        let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                keys.into_iter().flatten().filter_map(Value::as_str).collect()
            }
            Some("set") => Vec::new(),
            _ => return,
        };
        let identity = |item: &Value| -> Value {
            if keys.is_empty() { item.clone() } else { keys.iter().map(|k| item.get(k).cloned()).collect() }
        };
        for (i, item) in items.iter().enumerate() {
            if items[..i].iter().any(|other| identity(other) == identity(item)) {
                self.found.causes.push(Cause {
                    field: format!("{path}[{i}]"),
                    reason: "FieldValueDuplicate",
                    message: format!("Duplicate value: {}", identity(item)),
                });
            }
        }
    }

    fn is_builtin(&self) -> bool {
        matches!(self.dialect, Dialect::Builtin(_))
    }

    fn asks_for_required(&self, path: &str) -> bool {
        !self.is_part && (!self.is_builtin() || path.starts_with("spec"))
    }
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn fits(value: &Value, want: &str) -> bool {
    match want {
        "" => true,
        "number" => value.is_number(),
        // 1.0 is an integer to JSON schema; a fraction is not.
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => type_name(value) == want,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
