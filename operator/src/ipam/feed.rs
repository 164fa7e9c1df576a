//! What is different in a table since it was last looked at.

use std::collections::BTreeMap;

use kinesin_cluster::Snapshot;

/// The content of a table as it was last seen.
#[derive(Debug)]
pub(super) struct Seen<T> {
    items: BTreeMap<String, T>,
    version: Option<u64>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), version: None }
    }
}

impl<T: Clone + PartialEq> Seen<T> {
    /// The objects as last seen.
    pub(super) fn items(&self) -> &BTreeMap<String, T> {
        &self.items
    }

    /// Objects that are new or others, and names of those that are gone. An object that cannot be read is gone.
    ///
    /// A copy is kept instead of the snapshot: the table could not change its content in place otherwise.
    pub(super) fn changes(&mut self, snapshot: &Snapshot<T>) -> Vec<(String, Option<T>)> {
        if self.version == Some(snapshot.version) {
            return Vec::new();
        }
        self.version = Some(snapshot.version);
        let gone = self.items.keys().filter(|name| !snapshot.items.contains_key(*name));
        let mut changes: Vec<(String, Option<T>)> = gone.map(|name| (name.clone(), None)).collect();
        for (name, item) in snapshot.items.iter() {
            if self.items.get(name) != Some(item) {
                changes.push((name.clone(), Some(item.clone())));
            }
        }
        for (name, item) in &changes {
            match item {
                Some(item) => drop(self.items.insert(name.clone(), item.clone())),
                None => drop(self.items.remove(name)),
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_is_different_is_told() {
        let snapshot = |version, items: &[(&str, u8)]| Snapshot {
            synced: true,
            version,
            items: Arc::new(items.iter().map(|(name, item)| ((*name).to_owned(), *item)).collect()),
            rejected: Arc::default(),
        };
        let mut seen = Seen::default();
        let item = |name: &str, item: Option<u8>| (name.to_owned(), item);
        assert_eq!(seen.changes(&snapshot(1, &[("a", 1), ("b", 2)])), [item("a", Some(1)), item("b", Some(2))]);
        assert_eq!(
            seen.changes(&snapshot(2, &[("b", 3), ("c", 4)])),
            [item("a", None), item("b", Some(3)), item("c", Some(4))]
        );
        assert_eq!(seen.changes(&snapshot(3, &[("b", 3), ("c", 4)])), []);
        assert_eq!(seen.items().len(), 2);
    }
}
