//! PodCIDRClaims of `kinesin.io/v1alpha1`: which node has which block of a range.

#![expect(clippy::duplicated_attributes, reason = "the lint takes the parts of two print columns for one")]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Claims of the blocks of one range, or of 4096 blocks of it. The operator is the only one who writes it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kinesin.io",
    version = "v1alpha1",
    kind = "PodCIDRClaims",
    plural = "podcidrclaims",
    singular = "podcidrclaims",
    category = "cilium",
    derive = "PartialEq",
    doc = "PodCIDRClaims says which node has which block of one range of pod addresses. It is the operator's book: a \
           block is claimed here before it appears on a CiliumNode. Do not edit it.",
    printcolumn(name = "Range", type_ = "string", json_path = ".spec.range", description = "Range of the blocks"),
    printcolumn(
        name = "Claimed",
        type_ = "integer",
        json_path = ".spec.claimedBlocks",
        description = "Blocks that nodes have"
    ),
    printcolumn(
        name = "Released",
        type_ = "integer",
        json_path = ".spec.releasedBlocks",
        description = "Blocks that were given back, and by whom is remembered"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since creation"
    )
)]
#[serde(default, rename_all = "camelCase")]
#[schemars(rename = "PodCIDRClaimsSpec")]
pub struct ClaimsSpec {
    /// The range.
    pub range: String,
    /// Number of the last write.
    pub sequence: i64,
    /// How many blocks are claimed.
    pub claimed_blocks: i64,
    /// How many blocks are remembered as released.
    pub released_blocks: i64,
    /// Blocks by node, mode and pool.
    pub claims: Vec<NodeClaims>,
    /// Blocks that were given back and not taken since.
    pub released: Vec<ReleasedBlock>,
}

/// Blocks that a node has for one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeClaims {
    /// The node.
    pub node: String,
    /// `cluster-pool` or `multi-pool`.
    pub mode: String,
    /// The pool; empty in cluster-pool.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// The blocks.
    pub cidrs: Vec<String>,
}

/// A block that was given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReleasedBlock {
    /// The block.
    pub cidr: String,
    /// The node that had it.
    pub node: String,
    /// `cluster-pool` or `multi-pool`.
    pub mode: String,
    /// The pool; empty in cluster-pool.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// When, RFC 3339. For people: nothing is decided by it.
    pub at: String,
    /// Number of the write that released it.
    pub sequence: i64,
}
