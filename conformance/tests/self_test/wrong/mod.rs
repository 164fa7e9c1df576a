//! The references, each with one deliberate fault.

pub(crate) mod ipam;
pub(crate) mod routing;
