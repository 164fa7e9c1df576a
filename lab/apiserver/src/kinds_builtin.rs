//! The table of built-in kinds.
//!
//! Names, short names and categories: `kubectl api-resources` of Kubernetes 1.32.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use schemars::SchemaGenerator;

use crate::kinds::{Kind, NameRule, ScalePaths, qualified};
use crate::schema::Schema;

/// One built-in kind.
pub(crate) struct Builtin {
    group: &'static str,
    version: &'static str,
    pub(crate) kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    status: bool,
    scale: bool,
    subresources: &'static [&'static str],
    names: NameRule,
    generation: bool,
    /// The resource whose objects this one shows, when not its own.
    shares: Option<&'static str>,
    pub(crate) schema: fn(&mut SchemaGenerator) -> schemars::Schema,
}

impl Builtin {
    pub(crate) fn kind(&self) -> Kind {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        Kind {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_owned(),
            singular: self.singular.to_owned(),
            short_names: owned(self.short),
            categories: owned(self.categories),
            namespaced: self.namespaced,
            status: self.status,
            scale: self.scale.then(|| ScalePaths {
                spec_replicas: path("spec.replicas"),
                status_replicas: path("status.replicas"),
                selector: None,
            }),
            subresources: self.subresources,
            name_rule: self.names,
            generation: self.generation,
            storage: self.shares.map_or_else(|| qualified(self.plural, self.group), str::to_owned),
            schema: Schema::Builtin(self.kind, self.group),
            columns: Vec::new(),
            custom: false,
        }
    }

    pub(crate) fn group(&self) -> &'static str {
        self.group
    }
}

const fn plain(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    schema: fn(&mut SchemaGenerator) -> schemars::Schema,
) -> Builtin {
    Builtin {
        group,
        version,
        kind,
        plural,
        singular,
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        scale: false,
        subresources: &[],
        names: NameRule::Subdomain,
        generation: false,
        shares: None,
        schema,
    }
}

/// Every built-in kind.
pub(crate) static BUILTINS: &[Builtin] = &[
    Builtin {
        short: &["ns"],
        namespaced: false,
        status: true,
        subresources: &["finalize"],
        names: NameRule::Label,
        ..plain("", "v1", "Namespace", "namespaces", "namespace", SchemaGenerator::subschema_for::<core::Namespace>)
    },
    Builtin {
        short: &["no"],
        namespaced: false,
        status: true,
        ..plain("", "v1", "Node", "nodes", "node", SchemaGenerator::subschema_for::<core::Node>)
    },
    Builtin {
        short: &["po"],
        categories: &["all"],
        status: true,
        subresources: &["binding", "eviction", "exec", "attach", "log"],
        ..plain("", "v1", "Pod", "pods", "pod", SchemaGenerator::subschema_for::<core::Pod>)
    },
    Builtin {
        short: &["svc"],
        categories: &["all"],
        status: true,
        names: NameRule::Label1035,
        ..plain("", "v1", "Service", "services", "service", SchemaGenerator::subschema_for::<core::Service>)
    },
    Builtin {
        short: &["ep"],
        ..plain("", "v1", "Endpoints", "endpoints", "endpoints", SchemaGenerator::subschema_for::<core::Endpoints>)
    },
    Builtin {
        short: &["cm"],
        ..plain("", "v1", "ConfigMap", "configmaps", "configmap", SchemaGenerator::subschema_for::<core::ConfigMap>)
    },
    plain("", "v1", "Secret", "secrets", "secret", SchemaGenerator::subschema_for::<core::Secret>),
    Builtin {
        short: &["sa"],
        ..plain(
            "",
            "v1",
            "ServiceAccount",
            "serviceaccounts",
            "serviceaccount",
            SchemaGenerator::subschema_for::<core::ServiceAccount>,
        )
    },
    Builtin {
        short: &["ev"],
        ..plain("", "v1", "Event", "events", "event", SchemaGenerator::subschema_for::<core::Event>)
    },
    Builtin {
        short: &["ev"],
        shares: Some("events"),
        ..plain("events.k8s.io", "v1", "Event", "events", "event", SchemaGenerator::subschema_for::<events::Event>)
    },
    Builtin {
        short: &["deploy"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        ..plain(
            "apps",
            "v1",
            "Deployment",
            "deployments",
            "deployment",
            SchemaGenerator::subschema_for::<apps::Deployment>,
        )
    },
    Builtin {
        short: &["rs"],
        categories: &["all"],
        status: true,
        scale: true,
        generation: true,
        ..plain(
            "apps",
            "v1",
            "ReplicaSet",
            "replicasets",
            "replicaset",
            SchemaGenerator::subschema_for::<apps::ReplicaSet>,
        )
    },
    Builtin {
        short: &["ds"],
        categories: &["all"],
        status: true,
        generation: true,
        ..plain("apps", "v1", "DaemonSet", "daemonsets", "daemonset", SchemaGenerator::subschema_for::<apps::DaemonSet>)
    },
    plain(
        "apps",
        "v1",
        "ControllerRevision",
        "controllerrevisions",
        "controllerrevision",
        SchemaGenerator::subschema_for::<apps::ControllerRevision>,
    ),
    plain(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
        SchemaGenerator::subschema_for::<discovery::EndpointSlice>,
    ),
    plain(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "lease",
        SchemaGenerator::subschema_for::<coordination::Lease>,
    ),
    Builtin {
        short: &["netpol"],
        generation: true,
        ..plain(
            "networking.k8s.io",
            "v1",
            "NetworkPolicy",
            "networkpolicies",
            "networkpolicy",
            SchemaGenerator::subschema_for::<networking::NetworkPolicy>,
        )
    },
    Builtin {
        short: &["ing"],
        status: true,
        generation: true,
        ..plain(
            "networking.k8s.io",
            "v1",
            "Ingress",
            "ingresses",
            "ingress",
            SchemaGenerator::subschema_for::<networking::Ingress>,
        )
    },
    Builtin {
        namespaced: false,
        generation: true,
        ..plain(
            "networking.k8s.io",
            "v1",
            "IngressClass",
            "ingressclasses",
            "ingressclass",
            SchemaGenerator::subschema_for::<networking::IngressClass>,
        )
    },
    Builtin {
        names: NameRule::PathSegment,
        ..plain(
            "rbac.authorization.k8s.io",
            "v1",
            "Role",
            "roles",
            "role",
            SchemaGenerator::subschema_for::<rbac::Role>,
        )
    },
    Builtin {
        names: NameRule::PathSegment,
        ..plain(
            "rbac.authorization.k8s.io",
            "v1",
            "RoleBinding",
            "rolebindings",
            "rolebinding",
            SchemaGenerator::subschema_for::<rbac::RoleBinding>,
        )
    },
    Builtin {
        namespaced: false,
        names: NameRule::PathSegment,
        ..plain(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRole",
            "clusterroles",
            "clusterrole",
            SchemaGenerator::subschema_for::<rbac::ClusterRole>,
        )
    },
    Builtin {
        namespaced: false,
        names: NameRule::PathSegment,
        ..plain(
            "rbac.authorization.k8s.io",
            "v1",
            "ClusterRoleBinding",
            "clusterrolebindings",
            "clusterrolebinding",
            SchemaGenerator::subschema_for::<rbac::ClusterRoleBinding>,
        )
    },
    Builtin {
        short: &["pdb"],
        status: true,
        generation: true,
        ..plain(
            "policy",
            "v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "poddisruptionbudget",
            SchemaGenerator::subschema_for::<policy::PodDisruptionBudget>,
        )
    },
    Builtin {
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        generation: true,
        ..plain(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "customresourcedefinition",
            SchemaGenerator::subschema_for::<extensions::CustomResourceDefinition>,
        )
    },
];
