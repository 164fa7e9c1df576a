//! Tables: objects as the rows that `kubectl get` prints.
//!
//! Columns and their order: `pkg/printers/internalversion/printers.go` of Kubernetes 1.32.

mod age;
mod apps;
mod core;
mod custom;
mod nodes;
mod others;
mod pods;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::http::metadata_only;
use crate::kinds::Kind;

/// What of each object a row carries along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// A column: name, and whether it shows only in wide tables.
type Columns = &'static [(&'static str, bool)];
type Cells = fn(&Value) -> Vec<Value>;

const AGE: (&str, bool) = ("Age", false);
const NAME: (&str, bool) = ("Name", false);

/// The columns of a built-in kind, and how its cells are made.
fn layout(storage: &str) -> (Columns, Cells) {
    match storage {
        "pods" => pods::LAYOUT,
        "nodes" => nodes::LAYOUT,
        "namespaces" => core::NAMESPACES,
        "services" => core::SERVICES,
        "endpoints" => core::ENDPOINTS,
        "configmaps" => core::CONFIG_MAPS,
        "secrets" => core::SECRETS,
        "serviceaccounts" => core::SERVICE_ACCOUNTS,
        "events" => core::EVENTS,
        "deployments.apps" => apps::DEPLOYMENTS,
        "replicasets.apps" => apps::REPLICA_SETS,
        "daemonsets.apps" => apps::DAEMON_SETS,
        "controllerrevisions.apps" => apps::CONTROLLER_REVISIONS,
        "leases.coordination.k8s.io" => others::LEASES,
        "endpointslices.discovery.k8s.io" => others::ENDPOINT_SLICES,
        "networkpolicies.networking.k8s.io" => others::NETWORK_POLICIES,
        "ingresses.networking.k8s.io" => others::INGRESSES,
        "ingressclasses.networking.k8s.io" => others::INGRESS_CLASSES,
        "customresourcedefinitions.apiextensions.k8s.io"
        | "roles.rbac.authorization.k8s.io"
        | "clusterroles.rbac.authorization.k8s.io" => others::CREATED_AT,
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => others::BINDINGS,
        "poddisruptionbudgets.policy" => others::BUDGETS,
        _ => core::PLAIN,
    }
}

/// The cells of an object.
type RowOf<'a> = Box<dyn Fn(&Value) -> Vec<Value> + 'a>;

/// A `Table` object; its `metadata` is the caller's to fill.
pub(crate) fn render(kind: &Kind, objects: &[Arc<Value>], include: Include, with_columns: bool) -> Value {
    let (columns, cells): (Vec<Value>, RowOf<'_>) = if kind.custom {
        (custom::columns(kind), Box::new(|object| custom::cells(kind, object)))
    } else {
        let (columns, cells) = layout(&kind.storage);
        let columns = columns
            .iter()
            .map(|(name, is_wide)| {
                json!({"name": name, "type": "string", "format": if *name == "Name" { "name" } else { "" },
                    "description": "", "priority": i32::from(*is_wide)})
            })
            .collect();
        // The group view of an event has other field names; the columns read the core ones.
        (columns, Box::new(cells))
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({"cells": cells(object)});
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = metadata_only(object),
                Include::Object => row["object"] = object.as_ref().clone(),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": if with_columns { columns } else { Vec::new() }, "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds_builtin::BUILTINS;

    #[test]
    fn every_builtin_kind_has_as_many_cells_as_columns_even_for_an_empty_object() {
        for builtin in BUILTINS {
            let kind = builtin.kind();
            let table = render(&kind, &[Arc::new(json!({}))], Include::Metadata, true);
            let columns = table["columnDefinitions"].as_array().unwrap().len();
            assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{}", kind.kind);
        }
    }
}
