//! The schemas of the built-in kinds, made once, when first asked for.

use std::collections::HashMap;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::kinds_builtin::BUILTINS;

const ANY_JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

/// The OpenAPI definitions of all built-in kinds, by their OpenAPI name.
pub(crate) fn definitions() -> &'static Map<String, Value> {
    &all().definitions
}

/// The OpenAPI name of a built-in kind, such as `io.k8s.api.core.v1.Pod`.
pub(crate) fn definition_name(kind: &'static str, group: &'static str) -> String {
    all().names.get(&(kind, group)).cloned().unwrap_or_default()
}

struct All {
    definitions: Map<String, Value>,
    names: HashMap<(&'static str, &'static str), String>,
}

fn all() -> &'static All {
    static ALL: OnceLock<All> = OnceLock::new();
    ALL.get_or_init(|| {
        let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
        let mut generator = settings.into_generator();
        let mut names = HashMap::new();
        for builtin in BUILTINS {
            let reference = (builtin.schema)(&mut generator);
            let target = reference.get("$ref").and_then(Value::as_str).unwrap_or_default();
            let name = target.rsplit('/').next().unwrap_or_default().to_owned();
            names.insert((builtin.kind, builtin.group()), name);
        }
        let mut definitions = generator.take_definitions(true);
        // `default`, `example` and `enum` of a CRD's schema are any JSON; the generated schema says "object".
        if let Some(Value::Object(json)) = definitions.get_mut(ANY_JSON) {
            json.remove("type");
        }
        All { definitions, names }
    })
}
