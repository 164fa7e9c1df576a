//! What each case does, one question a file.

pub(super) mod agents;
pub(super) mod black_hole;
pub(super) mod burst;
pub(super) mod carrier;
pub(super) mod cluster_pool;
pub(super) mod hop_limit;
pub(super) mod host_scope;
pub(super) mod many;
pub(super) mod migration;
pub(super) mod mtu;
pub(super) mod multi_pool;
pub(super) mod nodes;
pub(super) mod reach;
pub(super) mod restart;
pub(super) mod segments;
pub(super) mod sizes;
pub(super) mod storms;
pub(super) mod uplink;

mod addresses;
