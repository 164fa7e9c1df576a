//! Reserved security identities. Source: reference, section 4.

use crate::record::numbers;

numbers! {
    /// Not known; in policy keys "any".
    pub const IDENTITY_UNKNOWN: u32 = 0;
    /// This node.
    pub const IDENTITY_HOST: u32 = 1;
    /// Outside the cluster.
    pub const IDENTITY_WORLD: u32 = 2;
    /// A node's health endpoint.
    pub const IDENTITY_HEALTH: u32 = 4;
    /// An endpoint whose identity is not allocated yet.
    pub const IDENTITY_INIT: u32 = 5;
    /// Another node; also how this node appears on the wire.
    pub const IDENTITY_REMOTE_NODE: u32 = 6;
    /// Outside the cluster, IPv4, where the cluster has two families.
    pub const IDENTITY_WORLD_V4: u32 = 9;
    /// Outside the cluster, IPv6, where the cluster has two families.
    pub const IDENTITY_WORLD_V6: u32 = 10;
}
