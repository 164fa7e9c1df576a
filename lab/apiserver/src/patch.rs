//! The four patch languages, and the book of who owns which field.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod managed;
pub(crate) mod merge;
pub(crate) mod shape;
pub(crate) mod strategic;
