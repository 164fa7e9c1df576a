//! CiliumPodIPPool v2alpha1: a named pool of pod addresses.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::condition::Condition;

/// The ranges of each family.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cilium.io",
    version = "v2alpha1",
    kind = "CiliumPodIPPool",
    plural = "ciliumpodippools",
    singular = "ciliumpodippool",
    shortname = "cpip",
    category = "cilium",
    status = "PoolStatus",
    derive = "PartialEq",
    doc = "CiliumPodIPPool is a pool of addresses that nodes get blocks of in the IPAM mode multi-pool."
)]
#[serde(default)]
#[schemars(rename = "CiliumPodIPPoolSpec")]
pub struct PoolSpec {
    /// Ranges of IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Ranges>,
    /// Ranges of IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Ranges>,
}

/// Ranges of IPv4 and the size of the blocks that nodes get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipv4Ranges {
    /// The ranges; blocks are taken of the first that has one free.
    #[schemars(schema_with = "cidrs")]
    pub cidrs: Vec<String>,
    /// Prefix length of a block.
    #[schemars(range(min = 1, max = 32))]
    pub mask_size: u8,
}

/// Ranges of IPv6 and the size of the blocks that nodes get.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ipv6Ranges {
    /// The ranges; blocks are taken of the first that has one free.
    #[schemars(schema_with = "cidrs")]
    pub cidrs: Vec<String>,
    /// Prefix length of a block.
    #[schemars(range(min = 1, max = 128))]
    pub mask_size: u8,
}

/// What became of the pool. Cilium's has no status; whoever knows only that sees no difference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "CiliumPodIPPoolStatus")]
pub struct PoolStatus {
    /// `Accepted`: whether all ranges are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<Condition>>,
}

fn cidrs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "minItems": 1, "items": {"type": "string", "format": "cidr"}})
}
