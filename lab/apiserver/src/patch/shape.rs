//! How lists and objects of a kind merge: as a whole, as a set, or by keys.
//!
//! Custom kinds say it in their schema (`x-kubernetes-list-type`, `x-kubernetes-map-type`).
//! For built-in kinds the marks are not in `k8s-openapi`, so the few that exist stand here.
//! Source: the `listType`, `mapType`, `patchMergeKey` and `patchStrategy` marks in
//! `k8s.io/api` (core/v1, apps/v1, discovery/v1, networking/v1) of Kubernetes 1.32.

use serde_json::Value;

use crate::kinds::Kind;

/// How a list merges in server-side apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListShape {
    /// As a whole.
    Atomic,
    /// Each scalar on its own.
    Set,
    /// Each object on its own, told apart by these fields.
    Map(Vec<String>),
}

/// A place in an object of a kind, in terms of its schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    storage: &'a str,
    schema: Option<&'a Value>,
    parent: &'a str,
    field: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn root(kind: &'a Kind) -> Self {
        Self { storage: &kind.storage, schema: kind.schema.structural(), parent: "", field: "" }
    }

    /// The place of a field of the object here.
    pub(crate) fn field(self, name: &'a str) -> Self {
        let is_metadata = self.field.is_empty() && name == "metadata";
        let schema = if is_metadata {
            None
        } else {
            self.schema.map(|schema| {
                let known = schema.get("properties").and_then(|p| p.get(name));
                known.or_else(|| schema.get("additionalProperties").filter(|a| a.is_object())).unwrap_or(&Value::Null)
            })
        };
        Self { schema, parent: self.field, field: name, ..self }
    }

    /// The place of an entry of the list here.
    pub(crate) fn item(self) -> Self {
        Self { schema: self.schema.map(|s| s.get("items").unwrap_or(&Value::Null)), ..self }
    }

    /// Whether the object here belongs to one owner as a whole.
    pub(crate) fn is_atomic_object(self) -> bool {
        if let Some(schema) = self.schema {
            return schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
        }
        match self.field {
            "selector" | "nodeSelector" | "podSelector" | "namespaceSelector" | "labelSelector" | "fieldRef"
            | "configMapKeyRef" | "secretKeyRef" | "resourceFieldRef" | "secretRef" | "roleRef" | "involvedObject"
            | "targetRef" | "claimRef" => true,
            // The schema inside a CRD: JSON to us, and too large to own field by field.
            "openAPIV3Schema" => true,
            _ => false,
        }
    }

    /// How the list here merges in server-side apply.
    pub(crate) fn list(self) -> ListShape {
        if let Some(schema) = self.schema {
            return match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListShape::Set,
                Some("map") => {
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                    ListShape::Map(keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
                }
                _ => ListShape::Atomic,
            };
        }
        let keys: &[&str] = match self.field {
            "finalizers" | "podCIDRs" => return ListShape::Set,
            "ports" if is_container_list(self.parent) => &["containerPort", "protocol"],
            "ports" if self.is_service_ports() => &["port", "protocol"],
            "topologySpreadConstraints" => &["topologyKey", "whenUnsatisfiable"],
            // Kubernetes keys a node's addresses by type alone, which loses one of two families;
            // with the address in the key both stay.
            "addresses" if self.storage == "nodes" => &["type", "address"],
            _ => match self.merge_key() {
                Some(key) => return ListShape::Map(vec![key.to_owned()]),
                None => return ListShape::Atomic,
            },
        };
        ListShape::Map(keys.iter().map(|k| (*k).to_owned()).collect())
    }

    /// The field that tells entries apart in a strategic merge patch.
    pub(crate) fn merge_key(self) -> Option<&'static str> {
        match self.field {
            list if is_container_list(list) => Some("name"),
            "env" | "volumes" | "imagePullSecrets" | "resourceClaims" | "schedulingGates" => Some("name"),
            "secrets" if self.storage == "serviceaccounts" => Some("name"),
            "volumesAttached" => Some("name"),
            "volumeMounts" => Some("mountPath"),
            "volumeDevices" => Some("devicePath"),
            "hostAliases" | "podIPs" | "hostIPs" => Some("ip"),
            "topologySpreadConstraints" => Some("topologyKey"),
            "conditions" => Some("type"),
            "ownerReferences" => Some("uid"),
            "ports" if is_container_list(self.parent) => Some("containerPort"),
            "ports" if self.is_service_ports() => Some("port"),
            _ => None,
        }
    }

    /// Whether a list of scalars is merged, not replaced, by a strategic merge patch.
    pub(crate) fn merges_scalars(self) -> bool {
        matches!(self.field, "finalizers" | "podCIDRs")
    }

    fn is_service_ports(self) -> bool {
        self.storage == "services" && self.parent == "spec"
    }
}

fn is_container_list(field: &str) -> bool {
    matches!(field, "containers" | "initContainers" | "ephemeralContainers")
}

/// The identity of a list entry by its keys, as `fieldsV1` writes it: `{"name":"x"}`.
pub(crate) fn identity(item: &Value, keys: &[String]) -> String {
    let mut sorted: Vec<&String> = keys.iter().collect();
    sorted.sort();
    let parts: Vec<String> = sorted
        .into_iter()
        .filter_map(|key| {
            let value = match item.get(key) {
                Some(value) => value.to_string(),
                // The one key with a default among the built-in kinds.
                None if key == "protocol" => "\"TCP\"".to_owned(),
                None => return None,
            };
            Some(format!("{}:{value}", Value::from(key.as_str())))
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}
