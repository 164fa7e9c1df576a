//! The definitions as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, ResourceExt};

use super::{CiliumEndpoint, CiliumNode, CiliumPodIPPool, PodCIDRClaims};

/// Label by which two programs agree whose definition is newer.
pub const SCHEMA_VERSION_LABEL: &str = "io.cilium.k8s.crd.schema.version";

/// Version of the schemas here; grows with each change of any of them. Cilium 1.18 has 1.31.10.
pub const SCHEMA_VERSION: &str = "1.31.11";

/// All definitions, in the order of their names.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut endpoint = CiliumEndpoint::crd();
    for version in &mut endpoint.spec.versions {
        // The status of an endpoint is its content: one write sets all of it.
        version.subresources = None;
    }
    let mut all = vec![endpoint, CiliumNode::crd(), CiliumPodIPPool::crd(), PodCIDRClaims::crd()];
    for crd in &mut all {
        crd.labels_mut().insert(SCHEMA_VERSION_LABEL.to_owned(), SCHEMA_VERSION.to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(crd: &CustomResourceDefinition) -> Vec<(String, String, i32)> {
        let columns = crd.spec.versions[0].additional_printer_columns.clone().unwrap_or_default();
        columns.into_iter().map(|column| (column.name, column.type_, column.priority.unwrap_or_default())).collect()
    }

    #[test]
    fn names_scopes_and_subresources_are_those_of_cilium() {
        let all = crds();
        let [endpoint, node, pool, claims] = all.as_slice() else { panic!("four definitions") };
        assert_eq!(endpoint.name_any(), "ciliumendpoints.cilium.io");
        assert_eq!(endpoint.spec.scope, "Namespaced");
        assert_eq!(endpoint.spec.names.short_names.as_deref(), Some(&["cep".to_owned(), "ciliumep".to_owned()][..]));
        assert!(endpoint.spec.versions[0].subresources.is_none());
        assert_eq!(node.name_any(), "ciliumnodes.cilium.io");
        assert_eq!(node.spec.scope, "Cluster");
        assert_eq!(node.spec.names.short_names.as_deref(), Some(&["cn".to_owned(), "ciliumn".to_owned()][..]));
        assert!(node.spec.versions[0].subresources.as_ref().is_some_and(|found| found.status.is_some()));
        for crd in &all {
            assert_eq!(crd.spec.names.categories.as_deref(), Some(&["cilium".to_owned()][..]));
            assert_eq!(crd.labels().get(SCHEMA_VERSION_LABEL).map(String::as_str), Some(SCHEMA_VERSION));
        }
        let versions: Vec<_> = all.iter().map(|crd| crd.spec.versions[0].name.as_str()).collect();
        assert_eq!(versions, ["v2", "v2", "v2alpha1", "v1alpha1"]);
        assert_eq!(pool.name_any(), "ciliumpodippools.cilium.io");
        assert_eq!(pool.spec.scope, "Cluster");
        assert_eq!(pool.spec.names.short_names.as_deref(), Some(&["cpip".to_owned()][..]));
        assert!(columns(pool).is_empty());
        assert_eq!(claims.name_any(), "podcidrclaims.kinesin.io");
        assert_eq!(claims.spec.scope, "Cluster");
        assert!(claims.spec.versions[0].subresources.is_none(), "one guarded write sets all of it");
    }

    #[test]
    fn columns_are_those_of_cilium() {
        let text = |name: &str, kind: &str, priority| (name.to_owned(), kind.to_owned(), priority);
        assert_eq!(
            columns(&crds()[0]),
            [
                text("Security Identity", "integer", 0),
                text("Ingress Enforcement", "string", 1),
                text("Egress Enforcement", "string", 1),
                text("Endpoint State", "string", 0),
                text("IPv4", "string", 0),
                text("IPv6", "string", 0),
            ]
        );
        assert_eq!(
            columns(&crds()[1]),
            [text("CiliumInternalIP", "string", 0), text("InternalIP", "string", 0), text("Age", "date", 0)]
        );
    }

    #[test]
    fn every_object_of_a_schema_has_a_type() {
        fn check(path: &str, schema: &serde_json::Value) {
            if let Some(properties) = schema["properties"].as_object() {
                for (name, property) in properties {
                    let path = format!("{path}.{name}");
                    assert!(property["type"].is_string(), "{path} is not structural: {property}");
                    check(&path, property);
                    check(&path, &property["items"]);
                    check(&path, &property["additionalProperties"]);
                }
            }
        }
        for crd in crds() {
            let schema = crd.spec.versions[0].schema.clone().and_then(|schema| schema.open_api_v3_schema);
            let schema = serde_json::to_value(schema.expect("a schema")).expect("JSON");
            check(&crd.name_any(), &schema);
        }
    }
}
