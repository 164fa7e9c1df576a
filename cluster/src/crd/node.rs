//! CiliumNode v2: what a node says about itself to all others.

#![expect(clippy::duplicated_attributes, reason = "the lint takes the parts of two print columns for one")]

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::condition::Condition;

/// Type of the addresses by which a node is reached.
pub const INTERNAL_IP: &str = "InternalIP";

/// Type of the addresses of `cilium_host`.
pub const CILIUM_INTERNAL_IP: &str = "CiliumInternalIP";

/// What the node says.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2",
    kind = "CiliumNode",
    plural = "ciliumnodes",
    singular = "ciliumnode",
    shortname = "cn",
    shortname = "ciliumn",
    category = "cilium",
    status = "NodeStatus",
    derive = "PartialEq",
    doc = "CiliumNode is what one node of the cluster says about itself to all others.",
    printcolumn(
        name = "CiliumInternalIP",
        type_ = "string",
        json_path = ".spec.addresses[?(@.type==\"CiliumInternalIP\")].ip",
        description = "Cilium internal IP for this node"
    ),
    printcolumn(
        name = "InternalIP",
        type_ = "string",
        json_path = ".spec.addresses[?(@.type==\"InternalIP\")].ip",
        description = "IP of the node"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time duration since creation of Ciliumnode"
    )
)]
#[serde(default, rename_all = "kebab-case")]
#[schemars(rename = "CiliumNodeSpec")]
pub struct NodeSpec {
    /// Addresses of the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<NodeAddress>>,
    /// Addresses of the health endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<FamilyAddresses>,
    /// Addresses of the Ingress listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<FamilyAddresses>,
    /// Encryption of the node's traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptionSpec>,
    /// Addresses of pods: ranges and pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamSpec>,
    /// Boot ID of the machine; another one after each restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootid: Option<String>,
    /// Numeric identity of the node, of the time before nodes had remote-node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodeidentity: Option<u64>,
    /// Identifier of the machine at its cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// Settings of AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub eni: Option<Value>,
    /// Settings of Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub azure: Option<Value>,
    /// Settings of Alibaba Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub alibaba_cloud: Option<Value>,
}

/// One address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `CiliumInternalIP` or `Hostname`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    /// The address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
}

/// An address of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FamilyAddresses {
    /// IPv4 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<String>,
    /// IPv6 address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<String>,
}

/// Encryption of the node's traffic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EncryptionSpec {
    /// Index of the key; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub key: Option<i64>,
}

/// Addresses of pods, as they were given to the node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct IpamSpec {
    /// Ranges of the node's pods.
    #[serde(rename = "podCIDRs", skip_serializing_if = "Option::is_none")]
    pub pod_cidrs: Option<Vec<String>>,
    /// IPv4 addresses that the node may give out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<BTreeMap<String, PoolEntry>>,
    /// IPv6 addresses that the node may give out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_pool: Option<BTreeMap<String, PoolEntry>>,
    /// What the node asks of pools and what it got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pools: Option<Pools>,
    /// Addresses the node has at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_allocate: Option<i64>,
    /// Addresses the node has at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_allocate: Option<i64>,
    /// Free addresses that are kept at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub pre_allocate: Option<i64>,
    /// Addresses beyond those at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_above_watermark: Option<i64>,
    /// Tags of addresses at the cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_ip_tags: Option<BTreeMap<String, String>>,
}

/// Who has an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PoolEntry {
    /// `NAMESPACE/NAME` of the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where the address comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
}

/// What the node asks of pools and what it got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pools {
    /// What the node needs of each pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<Vec<PoolRequest>>,
    /// Ranges that the operator gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<Vec<PoolAllocation>>,
}

/// What the node needs of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolRequest {
    /// Name of the pool.
    #[schemars(length(min = 1))]
    pub pool: String,
    /// How many addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<PoolNeeds>,
}

/// How many addresses of each family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct PoolNeeds {
    /// IPv4 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_addrs: Option<i64>,
    /// IPv6 addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_addrs: Option<i64>,
}

/// Ranges of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolAllocation {
    /// Name of the pool.
    #[schemars(length(min = 1))]
    pub pool: String,
    /// The ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidrs: Option<Vec<String>>,
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
#[schemars(rename = "CiliumNodeStatus")]
pub struct NodeStatus {
    /// Addresses of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamStatus>,
    /// `PodAddresses` by the operator, `AddressesAvailable` by the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
    /// State of AWS.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub eni: Option<Value>,
    /// State of Azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub azure: Option<Value>,
    /// State of Alibaba Cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub alibaba_cloud: Option<Value>,
}

/// State of the node's addresses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case")]
pub struct IpamStatus {
    /// IPv4 addresses in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<BTreeMap<String, PoolEntry>>,
    /// IPv6 addresses in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_used: Option<BTreeMap<String, PoolEntry>>,
    /// State of each range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_cidrs: Option<BTreeMap<String, PodCidrStatus>>,
    /// What the operator could not do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_status: Option<OperatorStatus>,
    /// Handshake by which IPv4 addresses are given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_ips: Option<BTreeMap<String, String>>,
    /// Handshake by which IPv6 addresses are given back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_ipv6s: Option<BTreeMap<String, String>>,
    /// Address that the cloud gave to the node for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned_static_ip: Option<String>,
}

/// State of one range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PodCidrStatus {
    /// `released`, `depleted` or `in-use`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What the operator could not do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OperatorStatus {
    /// The reason; empty when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An object whose fields are kept as they are: those of clouds belong to whoever manages the cloud.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true})
}
