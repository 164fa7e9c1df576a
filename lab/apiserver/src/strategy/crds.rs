//! CustomResourceDefinitions.

use serde_json::Value;

use crate::error::Cause;
use crate::object;
use crate::schema::compile_pattern;

pub(super) fn set_defaults(crd: &mut Value) {
    let kind = object::text(crd, &["spec", "names", "kind"]).to_owned();
    object::set_default(crd, &["spec", "names", "singular"], kind.to_lowercase());
    object::set_default(crd, &["spec", "names", "listKind"], format!("{kind}List"));
    object::set_default(crd, &["spec", "conversion", "strategy"], "None");
}

pub(super) fn validate(old: Option<&Value>, crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (group, plural) = (object::text(crd, &["spec", "group"]), object::text(crd, &["spec", "names", "plural"]));
    let want = format!("{plural}.{group}");
    if object::name(crd) != want {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object::name(crd).into(), why));
    }
    let scope = object::text(crd, &["spec", "scope"]);
    if !matches!(scope, "Namespaced" | "Cluster") {
        let allowed = ["Cluster", "Namespaced"].map(str::to_owned);
        causes.push(Cause::not_supported("spec.scope", &scope.into(), &allowed));
    }
    let versions = object::list(crd, &["spec", "versions"]);
    let stored = versions.iter().filter(|v| object::flag(v, &["storage"])).count();
    if stored != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &stored.into(), why));
    }
    if object::text(crd, &["spec", "conversion", "strategy"]) == "Webhook" {
        causes.push(Cause::invalid(
            "spec.conversion.strategy",
            &"Webhook".into(),
            "conversion webhooks are not called by this server; use None and one schema for all versions",
        ));
    }
    for (i, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
        match object::at(version, &["schema", "openAPIV3Schema"]) {
            Some(schema) if object::text(schema, &["type"]) == "object" => check_schema(schema, &path, 0, &mut causes),
            Some(schema) => {
                causes.push(Cause::invalid(format!("{path}.type"), &schema["type"], "must be object at the root"))
            }
            None => causes.push(Cause::required(path, "schemas are required")),
        }
    }
    if let Some(old) = old {
        for (field, path) in [("spec.scope", ["spec", "scope"]), ("spec.group", ["spec", "group"])] {
            if object::at(old, &path) != object::at(crd, &path) {
                causes.push(Cause::invalid(field, &object::text(crd, &path).into(), "field is immutable"));
            }
        }
    }
    causes
}

/// What would make values of a schema uncheckable: references, broken patterns, endless depth.
fn check_schema(schema: &Value, path: &str, depth: usize, causes: &mut Vec<Cause>) {
    if depth > 64 {
        causes.push(Cause::forbidden(path, "the schema is nested deeper than 64 levels"));
        return;
    }
    if schema.get("$ref").is_some() {
        causes.push(Cause::forbidden(format!("{path}.$ref"), "$ref is not supported in structural schemas"));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && let Err(why) = compile_pattern(pattern)
    {
        causes.push(Cause::invalid(format!("{path}.pattern"), &pattern.into(), &why));
    }
    for (name, property) in object::map(schema, &["properties"]).into_iter().flatten() {
        check_schema(property, &format!("{path}.properties[{name}]"), depth + 1, causes);
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(field).filter(|s| s.is_object()) {
            check_schema(inner, &format!("{path}.{field}"), depth + 1, causes);
        }
    }
}
