//! The one table of keys: names in the ConfigMap, in the values file and in the environment; type, default, class.
//!
//! Names and defaults of Cilium's keys are those of its chart, 1.17 and 1.18. Three classes: [`Class::Ours`] and
//! [`Class::Backend`] have an effect; [`Class::NotBuilt`] is known and accepted only where it asks for nothing;
//! whatever is in no table is refused.

mod cilium;
mod kind;
mod names;
mod ours;
mod removed;

pub use kind::{Kind, parse_duration};
pub(super) use kind::{parse_bool, words};
pub use names::env_name;
pub(super) use names::{SECTION_PREFIX, did_you_mean, key_of_env, nearest, nearest_env, nearest_helm, squeeze};

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name in the ConfigMap, and of the flag.
    pub key: &'static str,
    /// Path in the values file, dots between its parts; empty if the chart has none (then `extraConfig` carries it).
    pub helm: &'static str,
    /// Type of the value.
    pub kind: Kind,
    /// Default; empty if unset.
    pub default: &'static str,
    /// What it does; for [`Class::NotBuilt`] the name of the feature.
    pub doc: &'static str,
    /// What becomes of it.
    pub class: Class,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Has an effect here.
    Ours,
    /// Belongs to the backend of this registry name. Accepted whatever is chosen: while nodes change from one IPAM mode to
    /// another, the settings of both count.
    Backend(&'static str),
    /// A key of Cilium for what is not built: accepted at its default and at these values, else refused.
    NotBuilt(&'static [&'static str]),
}

impl Key {
    const fn new(
        key: &'static str,
        helm: &'static str,
        kind: Kind,
        default: &'static str,
        doc: &'static str,
        class: Class,
    ) -> Self {
        Self { key, helm, kind, default, doc, class }
    }

    /// Values that are accepted for a key whose feature is not built: its default, and whatever switches it off.
    #[must_use]
    pub fn accepts_unbuilt(&self, value: &str) -> bool {
        let also: &[&str] = match self.class {
            Class::NotBuilt(also) => also,
            _ => &[],
        };
        let off = self.kind == Kind::Bool && self.kind.same(value, "false") && self.off_is_harmless();
        (!self.default.is_empty() && self.kind.same(value, self.default))
            || off
            || also.iter().any(|accepted| self.kind.same(value, accepted))
    }

    /// Whether only the chart knows it, so that no ConfigMap carries it.
    #[must_use]
    pub fn is_chart_only(&self) -> bool {
        matches!(self.class, Class::NotBuilt(_))
            && self.key.contains(|letter: char| letter == '.' || letter.is_ascii_uppercase())
    }

    /// What to set in place of a value that is not accepted.
    #[must_use]
    pub fn remedy(&self) -> String {
        let name = if self.helm.is_empty() { self.key } else { self.helm };
        let also: &[&str] = match self.class {
            Class::NotBuilt(also) => also,
            _ => &[],
        };
        let off = self.kind == Kind::Bool && self.accepts_unbuilt("false");
        match (off, self.default, also) {
            (true, ..) => format!("set {name} to false"),
            (false, "", []) => format!("remove {name}"),
            (false, "", [accepted, ..]) => format!("set {name} to {accepted} or remove it"),
            (false, accepted, _) => format!("set {name} to {accepted} or remove it"),
        }
    }

    /// `disable-...` and the like ask for something when they are false; such keys have `false` as their default.
    fn off_is_harmless(&self) -> bool {
        !self.key.contains("disable")
    }
}

/// What a ConfigMap key is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lookup {
    /// In the table.
    Known,
    /// `backend.<name>.<key>`; the backend knows its keys.
    Section,
    /// Was there once; the text says what to write now.
    Removed(&'static str),
    /// Nothing of the kind.
    Unknown,
}

/// Every key, ours first.
pub fn all() -> impl Iterator<Item = &'static Key> {
    ours::KEYS.iter().chain(cilium::KEYS)
}

/// The key of this ConfigMap name.
#[must_use]
pub fn find(key: &str) -> Option<&'static Key> {
    all().find(|found| found.key == key)
}

/// The key of this path in the values file.
#[must_use]
pub fn find_helm(path: &str) -> Option<&'static Key> {
    all().find(|found| !found.helm.is_empty() && found.helm == path)
}

/// Keys that are options of a backend: key, backend, and the option in its section.
pub(super) fn options() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    ours::OPTIONS.iter().copied()
}

/// What a ConfigMap key is.
pub(super) fn lookup(key: &str) -> Lookup {
    if find(key).is_some_and(|found| !found.is_chart_only()) {
        return Lookup::Known;
    }
    let section = key.strip_prefix(SECTION_PREFIX).and_then(|rest| rest.split_once('.'));
    if section.is_some_and(|(name, rest)| !name.is_empty() && !rest.is_empty()) {
        return Lookup::Section;
    }
    match removed::KEYS.iter().find(|(name, _)| *name == key) {
        Some((_, replacement)) => Lookup::Removed(replacement),
        None => Lookup::Unknown,
    }
}

/// What to write in place of a path that the values file once had.
pub(super) fn removed_helm(path: &str) -> Option<&'static str> {
    removed::HELM.iter().find(|(name, _)| *name == path).map(|(_, replacement)| *replacement)
}

/// Whether the chart uses this path for manifests only, so that the agent never sees it.
pub(super) fn is_chart_only(path: &str) -> bool {
    cilium::CHART_ONLY
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// Every path that the chart uses for manifests only.
pub(super) fn chart_only_paths() -> impl Iterator<Item = &'static str> {
    cilium::CHART_ONLY.iter().copied()
}

/// Every path that the values file once had, with what to write in its place.
pub(super) fn removed_helm_paths() -> impl Iterator<Item = (&'static str, &'static str)> {
    removed::HELM.iter().copied()
}

/// Whether anything below this prefix (a dot at its end) is used for manifests only.
pub(super) fn leads_to_chart_only(below: &str) -> bool {
    cilium::CHART_ONLY.iter().any(|path| path.starts_with(below))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_stands_for_one_key() {
        let mut names = HashSet::new();
        let mut paths = HashSet::new();
        let mut variables = HashSet::new();
        for key in all() {
            assert!(names.insert(key.key), "{} is in the table twice", key.key);
            assert!(key.helm.is_empty() || paths.insert(key.helm), "{} is in the table twice", key.helm);
            assert!(variables.insert(env_name(key)), "{} is in the table twice", env_name(key));
            assert!(find(key.key).is_some_and(|found| found.key == key.key));
        }
        for (name, _) in removed::KEYS {
            assert!(!names.contains(name), "{name} is both a key and removed");
        }
        for (path, _) in removed::HELM {
            assert!(!paths.contains(path), "{path} is both a path and removed");
        }
    }

    #[test]
    fn every_default_is_a_valid_value() {
        for key in all().filter(|key| !key.default.is_empty()) {
            let checked = key.kind.check(key.default);
            assert_eq!(checked.as_deref(), Ok(key.default), "default of {}", key.key);
        }
    }

    #[test]
    fn every_key_has_a_line_of_documentation() {
        for key in all() {
            assert!(!key.doc.is_empty() && !key.doc.ends_with('.'), "{}: {:?}", key.key, key.doc);
        }
    }
}
