//! The versioned store: objects by resource, a window of past changes, and waking of who watches.
//!
//! One revision counter serves all resources, as etcd's does; each resource keeps its own bounded
//! window of changes, so that a busy resource does not push a quiet one's history out. What an
//! object means is not known here.

mod disk;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

pub(crate) use disk::Disk;

use crate::object;

/// Changes kept per resource. A watch that is further behind is answered with 410.
pub(crate) const WINDOW: usize = 4096;

/// Namespace ("" for cluster scope) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object after the change; `None` when it was removed.
    pub(crate) after: Option<Arc<Value>>,
    /// The object before the change; `None` when it was created. When removed, it carries the
    /// revision of the removal, as watchers expect.
    pub(crate) before: Option<Arc<Value>>,
}

/// Why a write was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// An object of this name exists.
    Exists,
    /// No object of this name exists.
    Missing,
    /// The object has another revision than the writer read.
    Stale,
}

/// The asked revision lies before the window of kept changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The oldest revision from which changes are known.
    pub(crate) oldest: u64,
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: VecDeque<Arc<Change>>,
    /// The revision of the newest change that is no longer kept.
    compacted: u64,
    news: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    /// The revision found at start: what happened before it is not in any window.
    born: u64,
    window: usize,
    tables: HashMap<String, Table>,
    disk: Option<Disk>,
}

/// See the module's description. All calls are short and never wait for input or output other
/// than the append to the log.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

impl Store {
    /// An empty store without a disk.
    pub(crate) fn in_memory(window: usize) -> Self {
        Self::new(window, None, 1, Vec::new())
    }

    /// The store as the disk has it.
    pub(crate) fn on_disk(window: usize, disk: Disk, revision: u64, objects: Vec<(String, Key, Value)>) -> Self {
        Self::new(window, Some(disk), revision, objects)
    }

    fn new(window: usize, disk: Option<Disk>, revision: u64, objects: Vec<(String, Key, Value)>) -> Self {
        let mut inner = Inner { revision, born: revision, window, tables: HashMap::new(), disk };
        for (resource, key, value) in objects {
            inner.table(&resource).objects.insert(key, Arc::new(value));
        }
        Self { inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic inside a call cannot leave a half-done write: every write is one insertion.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision of the newest write.
    pub(crate) fn revision(&self) -> u64 {
        self.lock().revision
    }

    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.lock().tables.get(resource)?.objects.get(&Key::new(namespace, name)).cloned()
    }

    /// All objects of a resource, or those of one namespace, with the revision they show.
    pub(crate) fn list(&self, resource: &str, namespace: Option<&str>) -> (Vec<Arc<Value>>, u64) {
        let inner = self.lock();
        let Some(table) = inner.tables.get(resource) else { return (Vec::new(), inner.revision) };
        (select(&table.objects, namespace), inner.revision)
    }

    /// As [`Store::list`], at a past revision: kept changes are undone, newest first.
    pub(crate) fn list_at(
        &self,
        resource: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<Vec<Arc<Value>>, Compacted> {
        let mut inner = self.lock();
        let born = inner.born;
        let table = inner.table(resource);
        let oldest = table.compacted.max(born);
        if revision < oldest {
            return Err(Compacted { oldest });
        }
        let mut objects = table.objects.clone();
        for change in table.changes.iter().rev().take_while(|c| c.revision > revision) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), before.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(select(&objects, namespace))
    }

    /// Adds an object; the stored one carries its revision.
    pub(crate) fn insert(&self, resource: &str, key: Key, value: Value) -> Result<Arc<Value>, Refused> {
        let mut inner = self.lock();
        if inner.table(resource).objects.contains_key(&key) {
            return Err(Refused::Exists);
        }
        Ok(inner.write(resource, key, value, None))
    }

    /// Replaces an object that still has the revision the writer read.
    pub(crate) fn replace(&self, resource: &str, key: Key, read: u64, value: Value) -> Result<Arc<Value>, Refused> {
        let mut inner = self.lock();
        let before = inner.expect(resource, &key, read)?;
        Ok(inner.write(resource, key, value, Some(before)))
    }

    /// Removes an object that still has the revision the writer read; the answer is its last state.
    pub(crate) fn remove(&self, resource: &str, key: Key, read: u64, last: Value) -> Result<Arc<Value>, Refused> {
        let mut inner = self.lock();
        inner.expect(resource, &key, read)?;
        Ok(inner.erase(resource, key, last))
    }

    /// The changes of a resource after a revision, and the revision they lead to.
    pub(crate) fn since(&self, resource: &str, revision: u64) -> Result<(Vec<Arc<Change>>, u64), Compacted> {
        let mut inner = self.lock();
        let (now, born) = (inner.revision, inner.born);
        let table = inner.table(resource);
        let oldest = table.compacted.max(born);
        if revision < oldest {
            return Err(Compacted { oldest });
        }
        let start = table.changes.partition_point(|c| c.revision <= revision);
        Ok((table.changes.range(start..).cloned().collect(), now.max(revision)))
    }

    /// Wakes at every change of a resource.
    pub(crate) fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        self.lock().table(resource).news.subscribe()
    }

    /// The resources that hold at least one object.
    pub(crate) fn resources(&self) -> Vec<String> {
        let inner = self.lock();
        inner.tables.iter().filter(|(_, t)| !t.objects.is_empty()).map(|(name, _)| name.clone()).collect()
    }
}

impl Inner {
    fn table(&mut self, resource: &str) -> &mut Table {
        if !self.tables.contains_key(resource) {
            let table = Table {
                objects: BTreeMap::new(),
                changes: VecDeque::new(),
                compacted: 0,
                news: watch::Sender::new(self.revision),
            };
            self.tables.insert(resource.to_owned(), table);
        }
        #[expect(clippy::expect_used, reason = "inserted above when absent")]
        self.tables.get_mut(resource).expect("table exists")
    }

    fn expect(&mut self, resource: &str, key: &Key, read: u64) -> Result<Arc<Value>, Refused> {
        let object = self.table(resource).objects.get(key).ok_or(Refused::Missing)?;
        if object::revision(object) == read { Ok(object.clone()) } else { Err(Refused::Stale) }
    }

    fn write(&mut self, resource: &str, key: Key, mut value: Value, before: Option<Arc<Value>>) -> Arc<Value> {
        self.revision += 1;
        object::set(&mut value, &["metadata", "resourceVersion"], self.revision.to_string());
        let value = Arc::new(value);
        if let Some(disk) = &mut self.disk {
            disk.append(self.revision, resource, &key, Some(&value));
        }
        self.table(resource).objects.insert(key.clone(), value.clone());
        self.tell(resource, Change { revision: self.revision, key, after: Some(value.clone()), before });
        value
    }

    fn erase(&mut self, resource: &str, key: Key, mut last: Value) -> Arc<Value> {
        self.revision += 1;
        object::set(&mut last, &["metadata", "resourceVersion"], self.revision.to_string());
        let last = Arc::new(last);
        if let Some(disk) = &mut self.disk {
            disk.append(self.revision, resource, &key, None);
        }
        self.table(resource).objects.remove(&key);
        self.tell(resource, Change { revision: self.revision, key, after: None, before: Some(last.clone()) });
        last
    }

    fn tell(&mut self, resource: &str, change: Change) {
        let (revision, window) = (change.revision, self.window);
        let table = self.table(resource);
        table.changes.push_back(Arc::new(change));
        while table.changes.len() > window {
            if let Some(old) = table.changes.pop_front() {
                table.compacted = old.revision;
            }
        }
        table.news.send_replace(revision);
        if self.disk.as_ref().is_some_and(Disk::is_long) {
            self.compact_disk();
        }
    }

    fn compact_disk(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        let objects = self.tables.iter().flat_map(|(resource, table)| {
            table.objects.iter().map(move |(key, value)| (resource.as_str(), key, value.as_ref()))
        });
        disk.snapshot(self.revision, objects);
    }
}

fn select(objects: &BTreeMap<Key, Arc<Value>>, namespace: Option<&str>) -> Vec<Arc<Value>> {
    match namespace {
        None => objects.values().cloned().collect(),
        Some(namespace) => objects
            .range(Key::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, value)| value.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(store: &Store, name: &str, n: u64) -> Arc<Value> {
        let key = Key::new("ns", name);
        match store.get("things", "ns", name) {
            None => store.insert("things", key, json!({"metadata": {"name": name}, "n": n})).unwrap(),
            Some(old) => {
                let read = object::revision(&old);
                store.replace("things", key, read, json!({"metadata": {"name": name}, "n": n})).unwrap()
            }
        }
    }

    #[test]
    fn a_write_with_an_old_revision_is_refused() {
        let store = Store::in_memory(8);
        let first = put(&store, "a", 1);
        put(&store, "a", 2);
        let stale = store.replace("things", Key::new("ns", "a"), object::revision(&first), json!({}));
        assert_eq!(stale, Err(Refused::Stale));
        assert_eq!(store.insert("things", Key::new("ns", "a"), json!({})), Err(Refused::Exists));
    }

    #[test]
    fn a_past_list_shows_the_objects_of_that_revision() {
        let store = Store::in_memory(8);
        put(&store, "a", 1);
        let then = object::revision(&put(&store, "b", 1));
        put(&store, "a", 2);
        let b = store.get("things", "ns", "b").unwrap();
        store.remove("things", Key::new("ns", "b"), object::revision(&b), b.as_ref().clone()).unwrap();
        put(&store, "c", 1);
        let past = store.list_at("things", Some("ns"), then).unwrap();
        assert_eq!(
            past.iter().map(|o| (object::name(o), o["n"].as_u64().unwrap())).collect::<Vec<_>>(),
            [("a", 1), ("b", 1)]
        );
    }

    #[test]
    fn changes_beyond_the_window_are_compacted() {
        let store = Store::in_memory(4);
        let first = object::revision(&put(&store, "a", 0));
        assert!(store.since("things", first).is_ok());
        for n in 1..=4 {
            put(&store, "a", n);
        }
        assert_eq!(store.since("things", first).unwrap().0.len(), 4);
        put(&store, "a", 5);
        assert_eq!(store.since("things", first).unwrap_err(), Compacted { oldest: first + 1 });
        assert_eq!(store.list_at("things", None, first).unwrap_err(), Compacted { oldest: first + 1 });
    }

    #[test]
    fn a_namespace_list_takes_no_other_namespace() {
        let store = Store::in_memory(8);
        for namespace in ["a", "ab", "b"] {
            store.insert("things", Key::new(namespace, "x"), json!({"metadata": {"namespace": namespace}})).unwrap();
        }
        let (found, _) = store.list("things", Some("a"));
        assert_eq!(found.len(), 1);
        assert_eq!(object::namespace(&found[0]), "a");
    }
}
