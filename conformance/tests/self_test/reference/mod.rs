//! Implementations as plain as the contracts allow.

pub(crate) mod ipam;
pub(crate) mod routing;
