//! What each case does, one question a file.

pub(super) mod agents;
pub(super) mod hop_limit;
pub(super) mod many;
pub(super) mod mtu;
pub(super) mod nodes;
pub(super) mod reach;
pub(super) mod restart;
pub(super) mod sizes;
