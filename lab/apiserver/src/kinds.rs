//! The kinds of objects the server knows: the built-in ones, and those that CRDs add.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds_builtin::BUILTINS;
use crate::schema::Schema;

/// How a name of a kind may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// RFC 1123 subdomain: up to 253 characters, dots allowed.
    Subdomain,
    /// RFC 1123 label: up to 63 characters, no dots.
    Label,
    /// RFC 1035 label: as above, and starting with a letter.
    Label1035,
    /// Anything that may stand in a path, as RBAC names (`system:node`).
    PathSegment,
}

/// Where the three numbers of the scale subresource lie in an object.
#[derive(Debug, Clone)]
pub(crate) struct ScalePaths {
    pub(crate) spec_replicas: Vec<String>,
    pub(crate) status_replicas: Vec<String>,
    pub(crate) selector: Option<Vec<String>>,
}

/// A column that a CRD adds to its tables.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// One kind in one served version.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether `status` is a subresource.
    pub(crate) status: bool,
    pub(crate) scale: Option<ScalePaths>,
    /// Subresources beyond `status` and `scale`.
    pub(crate) subresources: &'static [&'static str],
    pub(crate) name_rule: NameRule,
    /// Whether `metadata.generation` counts the changes of the specification.
    pub(crate) generation: bool,
    /// The table of the store that holds the objects: shared by all versions of a kind.
    pub(crate) storage: String,
    pub(crate) schema: Schema,
    pub(crate) columns: Vec<PrinterColumn>,
    /// Whether a CRD made this kind.
    pub(crate) custom: bool,
}

impl Kind {
    /// `plural` or `plural.group`, as messages and the store name a resource.
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `version` or `group/version`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The `details` of a `Status` about an object of this kind.
    pub(crate) fn details(&self, name: &str) -> Value {
        if self.group.is_empty() {
            json!({"name": name, "kind": self.plural})
        } else {
            json!({"name": name, "group": self.group, "kind": self.plural})
        }
    }

    pub(crate) fn is(&self, storage: &str) -> bool {
        self.storage == storage
    }
}

/// `plural` or `plural.group`.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Every kind served now. Replaced as a whole when a CRD comes or goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct KindSet {
    /// By group, version and plural name.
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl KindSet {
    /// The built-in kinds alone.
    pub(crate) fn builtin() -> Self {
        let mut set = Self::default();
        for builtin in BUILTINS {
            set.insert(builtin.kind());
        }
        set
    }

    pub(crate) fn insert(&mut self, kind: Kind) {
        self.kinds.insert((kind.group.clone(), kind.version.clone(), kind.plural.clone()), Arc::new(kind));
    }

    pub(crate) fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The first served version of a stored resource.
    pub(crate) fn by_storage(&self, storage: &str) -> Option<&Arc<Kind>> {
        self.kinds.values().find(|k| k.storage == storage)
    }

    /// All kinds, in the order of group, version and plural name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }

    /// The kinds of one group and version.
    pub(crate) fn of_version<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Arc<Kind>> {
        self.kinds.values().filter(move |k| k.group == group && k.version == version)
    }

    /// Groups with their versions, the preferred one first; the core group is "".
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for kind in self.kinds.values() {
            let versions = groups.entry(kind.group.clone()).or_default();
            if !versions.contains(&kind.version) {
                versions.push(kind.version.clone());
            }
        }
        for versions in groups.values_mut() {
            versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        }
        groups.into_iter().collect()
    }
}

/// Orders versions as Kubernetes does: stable before beta before alpha, then by number.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (Ok(major), tail) = (rest[..digits].parse::<u32>(), &rest[digits..]) else { return (0, 0, 0) };
    if tail.is_empty() {
        return (3, major, 0);
    }
    for (rank, word) in [(2, "beta"), (1, "alpha")] {
        if let Some(minor) = tail.strip_prefix(word).and_then(|m| m.parse().ok()) {
            return (rank, major, minor);
        }
    }
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_beta_and_alpha() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "v10", "foo"];
        versions.sort_by_key(|v| std::cmp::Reverse(version_rank(v)));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1alpha1", "foo"]);
    }

    #[test]
    fn every_builtin_kind_is_found_by_its_name() {
        let set = KindSet::builtin();
        for builtin in BUILTINS {
            let kind = builtin.kind();
            assert_eq!(set.get(&kind.group, &kind.version, &kind.plural).unwrap().kind, kind.kind);
        }
    }
}
