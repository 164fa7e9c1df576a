//! Schemas of kinds: checking, pruning and defaulting of objects.
//!
//! Built-in kinds take theirs from `k8s-openapi`, custom ones from their CRD; one walker serves
//! both. CEL rules (`x-kubernetes-validations`) are not evaluated.

mod builtin;
mod formats;
mod walk;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use builtin::{definition_name, definitions};
pub(crate) use formats::compile_pattern;
pub(crate) use walk::{Dialect, Walker};

use crate::error::Cause;

/// Where a kind's schema comes from.
#[derive(Debug, Clone)]
pub(crate) enum Schema {
    /// The schema of a built-in kind and group.
    Builtin(&'static str, &'static str),
    /// The structural schema of a CRD's version.
    Structural(Arc<Value>),
}

/// What the walk over an object found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Paths of fields that the schema does not know; they were taken out.
    pub(crate) unknown: Vec<String>,
    /// Broken rules.
    pub(crate) causes: Vec<Cause>,
}

impl Schema {
    /// Prunes unknown fields, sets defaults and checks types and values.
    pub(crate) fn walk(&self, object: &mut Value) -> Findings {
        self.walk_by(object, false)
    }

    /// As [`Schema::walk`] for a part of an object: no defaults, and nothing is required.
    pub(crate) fn walk_part(&self, object: &mut Value) -> Findings {
        self.walk_by(object, true)
    }

    fn walk_by(&self, object: &mut Value, is_part: bool) -> Findings {
        match self {
            Self::Builtin(kind, group) => {
                let definitions = definitions();
                let Some(schema) = definitions.get(&definition_name(kind, group)) else { return Findings::default() };
                Walker::new(Dialect::Builtin(definitions), is_part).run(schema, object)
            }
            Self::Structural(schema) => Walker::new(Dialect::Structural, is_part).run(schema, object),
        }
    }

    /// The structural schema of a custom kind.
    pub(crate) fn structural(&self) -> Option<&Value> {
        match self {
            Self::Builtin(..) => None,
            Self::Structural(schema) => Some(schema),
        }
    }
}

#[cfg(test)]
mod tests;
