//! CustomResourceDefinitions become kinds.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::{Kind, KindSet, NameRule, PrinterColumn, ScalePaths};
use crate::object::{at, flag, int, list, text};
use crate::schema::Schema;

/// The finalizer by which a definition waits for its instances to go.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The built-in kinds and those of all definitions; the second part names what clashes.
///
/// A definition whose names are taken by an older one is not served.
pub(crate) fn kinds_of(crds: &[Arc<Value>]) -> (KindSet, Vec<(String, String)>) {
    let mut kinds = KindSet::builtin();
    let mut clashes = Vec::new();
    let mut sorted: Vec<&Arc<Value>> = crds.iter().collect();
    sorted.sort_by_key(|c| text(c, &["metadata", "creationTimestamp"]).to_owned());
    for crd in sorted {
        match clash(&kinds, crd) {
            Some(why) => clashes.push((crate::object::uid(crd).to_owned(), why)),
            None => kinds_of_one(crd).into_iter().for_each(|kind| kinds.insert(kind)),
        }
    }
    (kinds, clashes)
}

fn clash(kinds: &KindSet, crd: &Value) -> Option<String> {
    let (group, names) = (text(crd, &["spec", "group"]), &crd["spec"]["names"]);
    kinds.iter().filter(|k| k.group == group).find_map(|other| {
        if other.plural == text(names, &["plural"]) {
            Some(format!("plural name {:?} is already in use", other.plural))
        } else if other.kind == text(names, &["kind"]) {
            Some(format!("kind {:?} is already in use", other.kind))
        } else {
            None
        }
    })
}

/// One kind for each served version of a definition.
pub(crate) fn kinds_of_one(crd: &Value) -> Vec<Kind> {
    let names = &crd["spec"]["names"];
    let words = |field| list(names, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let (group, plural) = (text(crd, &["spec", "group"]), text(names, &["plural"]));
    list(crd, &["spec", "versions"])
        .iter()
        .filter(|version| flag(version, &["served"]))
        .map(|version| Kind {
            group: group.to_owned(),
            version: text(version, &["name"]).to_owned(),
            kind: text(names, &["kind"]).to_owned(),
            list_kind: text(names, &["listKind"]).to_owned(),
            plural: plural.to_owned(),
            singular: text(names, &["singular"]).to_owned(),
            short_names: words("shortNames"),
            categories: words("categories"),
            namespaced: text(crd, &["spec", "scope"]) == "Namespaced",
            status: at(version, &["subresources", "status"]).is_some(),
            scale: at(version, &["subresources", "scale"]).map(scale_paths),
            subresources: &[],
            name_rule: NameRule::Subdomain,
            generation: true,
            storage: format!("{plural}.{group}"),
            schema: Schema::Structural(Arc::new(
                at(version, &["schema", "openAPIV3Schema"]).cloned().unwrap_or_else(|| json!({"type": "object"})),
            )),
            columns: list(version, &["additionalPrinterColumns"]).iter().map(column).collect(),
            custom: true,
        })
        .collect()
}

fn scale_paths(scale: &Value) -> ScalePaths {
    let path = |field| {
        let path = text(scale, &[field]).trim_start_matches('.');
        path.split('.').map(str::to_owned).collect::<Vec<_>>()
    };
    ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        // A selector is optional; an empty path finds nothing.
        selector: Some(path("labelSelectorPath")),
    }
}

fn column(column: &Value) -> PrinterColumn {
    PrinterColumn {
        name: text(column, &["name"]).to_owned(),
        kind: text(column, &["type"]).to_owned(),
        format: text(column, &["format"]).to_owned(),
        description: text(column, &["description"]).to_owned(),
        priority: int(column, &["priority"]).unwrap_or_default(),
        path: text(column, &["jsonPath"]).to_owned(),
    }
}
