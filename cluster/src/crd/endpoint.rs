//! CiliumEndpoint v2: a pod as its node's agent sees it.

#![expect(clippy::duplicated_attributes, reason = "the lint takes the parts of two print columns for one")]

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Empty: everything a CiliumEndpoint says is in its status.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2",
    kind = "CiliumEndpoint",
    plural = "ciliumendpoints",
    singular = "ciliumendpoint",
    shortname = "cep",
    shortname = "ciliumep",
    category = "cilium",
    namespaced,
    no_spec,
    status = "EndpointStatus",
    derive = "PartialEq",
    selectable = ".status.networking.node",
    doc = "CiliumEndpoint is the state of one pod as the agent of its node sees it.",
    printcolumn(
        name = "Security Identity",
        type_ = "integer",
        json_path = ".status.identity.id",
        description = "Security Identity"
    ),
    printcolumn(
        name = "Ingress Enforcement",
        type_ = "string",
        json_path = ".status.policy.ingress.state",
        description = "Ingress enforcement in the endpoint",
        priority = 1
    ),
    printcolumn(
        name = "Egress Enforcement",
        type_ = "string",
        json_path = ".status.policy.egress.state",
        description = "Egress enforcement in the endpoint",
        priority = 1
    ),
    printcolumn(
        name = "Endpoint State",
        type_ = "string",
        json_path = ".status.state",
        description = "Endpoint current state"
    ),
    printcolumn(
        name = "IPv4",
        type_ = "string",
        json_path = ".status.networking.addressing[0].ipv4",
        description = "Endpoint IPv4 address"
    ),
    printcolumn(
        name = "IPv6",
        type_ = "string",
        json_path = ".status.networking.addressing[0].ipv6",
        description = "Endpoint IPv6 address"
    )
)]
#[schemars(rename = "CiliumEndpointSpec")]
pub struct EndpointSpec {}

/// The state of the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
#[schemars(rename = "CiliumEndpointStatus")]
pub struct EndpointStatus {
    /// Number of the endpoint on its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// `ready`, `waiting-for-identity`, ... (the list is in the schema).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "state")]
    pub state: Option<String>,
    /// Its security identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<EndpointIdentity>,
    /// Its addresses and its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<EndpointNetworking>,
    /// Encryption of its traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EndpointEncryption>,
    /// Its names elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_identifiers: Option<ExternalIdentifiers>,
    /// Ports that policies may call by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_ports: Option<Vec<NamedPort>>,
    /// Policy in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<EndpointPolicy>,
    /// Health by part.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub health: Option<Value>,
    /// The last changes of state.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_objects")]
    pub log: Option<Vec<Value>>,
    /// Controllers that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_objects")]
    pub controllers: Option<Vec<Value>>,
}

/// A security identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointIdentity {
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    /// Labels as `source:key=value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Addresses and node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointNetworking {
    /// Pairs of addresses, the first one in use.
    #[serde(default)]
    pub addressing: Vec<AddressPair>,
    /// Address of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// An address of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AddressPair {
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Encryption of an endpoint's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointEncryption {
    /// Index of the key; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<i64>,
}

/// Names of an endpoint elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct ExternalIdentifiers {
    /// ID of its container (the sandbox).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// `CONTAINERID:IFNAME` of its attachment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_attachment_id: Option<String>,
    /// Docker's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_endpoint_id: Option<String>,
    /// Docker's network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_network_id: Option<String>,
    /// Namespace of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_namespace: Option<String>,
    /// Name of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k8s_pod_name: Option<String>,
    /// `NAMESPACE/NAME` of its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
}

/// A port with a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NamedPort {
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// Policy in effect, by direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EndpointPolicy {
    /// To the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<DirectionPolicy>,
    /// From the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<DirectionPolicy>,
}

/// Policy of one direction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DirectionPolicy {
    /// Whether what no rule allows is dropped.
    #[serde(default)]
    pub enforcing: bool,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<IdentityRule>>,
    /// What is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Vec<IdentityRule>>,
    /// What is being added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding: Option<Vec<IdentityRule>>,
    /// What is being removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing: Option<Vec<IdentityRule>>,
}

/// One peer and port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct IdentityRule {
    /// Identity of the peer; 0 is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<i64>,
    /// Labels of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_labels: Option<std::collections::BTreeMap<String, String>>,
    /// Port; 0 is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dest_port: Option<i32>,
    /// Number of the protocol; 0 is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<i32>,
}

/// The states an endpoint may be in.
const STATES: [&str; 10] = [
    "creating",
    "waiting-for-identity",
    "not-ready",
    "waiting-to-regenerate",
    "regenerating",
    "restoring",
    "ready",
    "disconnecting",
    "disconnected",
    "invalid",
];

fn state(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": STATES})
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}

fn any_objects(generator: &mut SchemaGenerator) -> Schema {
    let item = any_object(generator);
    json_schema!({"type": "array", "nullable": true, "items": item})
}
