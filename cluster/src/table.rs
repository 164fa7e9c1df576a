//! A table in memory that a watch feeds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

/// Content of a [`Table`] at one moment. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot<T> {
    /// Whether the API server has answered at least once; before that, the table is empty for lack of knowledge.
    pub synced: bool,
    /// Grows with every change of the content.
    pub version: u64,
    /// `NAME` or `NAMESPACE/NAME` to what the object says.
    pub items: Arc<BTreeMap<String, T>>,
    /// Objects that could not be used, and why. They are not among `items`, even if an earlier version was.
    pub rejected: Arc<BTreeMap<String, String>>,
}

impl<T> Snapshot<T> {
    pub(crate) fn empty() -> Self {
        Self { synced: false, version: 0, items: Arc::default(), rejected: Arc::default() }
    }
}

/// Whether a table is kept up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchHealth {
    /// What is watched, such as `cilium.io/v2 CiliumNode`.
    pub what: String,
    /// Whether the API server answers now. The content stays when it does not.
    pub connected: bool,
    /// Since when it answers, or does not.
    pub since: SystemTime,
    /// The last failure with its reason; kept after it is over.
    pub last_error: Option<String>,
}

/// Objects of one kind, kept up to date for as long as a clone of this exists.
///
/// Level-triggered: changes that come faster than a reader takes them are seen as one.
#[derive(Debug)]
pub struct Table<T> {
    content: watch::Receiver<Snapshot<T>>,
    health: Arc<Mutex<WatchHealth>>,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { content: self.content.clone(), health: Arc::clone(&self.health) }
    }
}

impl<T> Table<T> {
    /// The content now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot<T> {
        let content = self.content.borrow();
        // Not derived: that would ask T to be Clone for copying two pointers.
        Snapshot {
            synced: content.synced,
            version: content.version,
            items: Arc::clone(&content.items),
            rejected: Arc::clone(&content.rejected),
        }
    }

    /// Waits until the content is another than when this was last awaited. Safe to drop while it waits.
    pub async fn changed(&mut self) {
        if self.content.changed().await.is_err() {
            // The watch ends with its runtime only; nothing will ever change again.
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the API server has answered once, and answers the content.
    pub async fn synced(&mut self) -> Snapshot<T> {
        loop {
            let content = self.snapshot();
            if content.synced {
                return content;
            }
            self.changed().await;
        }
    }

    /// Whether the content is kept up to date.
    #[must_use]
    pub fn health(&self) -> WatchHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writing end of a [`Table`].
#[derive(Debug)]
pub(crate) struct Feed<T> {
    content: watch::Sender<Snapshot<T>>,
    health: Arc<Mutex<WatchHealth>>,
}

/// One object as a watch reports it.
#[derive(Debug)]
pub(crate) enum Change<T> {
    /// It is there and usable.
    Set(String, T),
    /// It is there and not usable.
    Reject(String, String),
    /// It is gone.
    Remove(String),
}

/// An empty table and its writing end.
pub(crate) fn table<T>(what: &str) -> (Feed<T>, Table<T>) {
    let (sender, content) = watch::channel(Snapshot::empty());
    let health = Arc::new(Mutex::new(WatchHealth {
        what: what.to_owned(),
        connected: false,
        since: SystemTime::now(),
        last_error: None,
    }));
    (Feed { content: sender, health: Arc::clone(&health) }, Table { content, health })
}

impl<T: Clone + PartialEq> Feed<T> {
    /// Ends when the last reader is gone.
    pub(crate) async fn unread(&self) {
        self.content.closed().await;
    }

    /// Puts a complete list in place of the content.
    pub(crate) fn replace(&self, items: BTreeMap<String, T>, rejected: BTreeMap<String, String>) {
        self.content.send_if_modified(|content| {
            if content.synced && *content.items == items && *content.rejected == rejected {
                return false;
            }
            *content = Snapshot {
                synced: true,
                version: content.version + 1,
                items: Arc::new(items),
                rejected: Arc::new(rejected),
            };
            true
        });
    }

    /// Applies changes in order. Readers wake once, and only if something is different afterwards.
    pub(crate) fn apply(&self, changes: Vec<Change<T>>) {
        self.content.send_if_modified(|content| {
            let mut modified = false;
            for change in changes {
                modified |= apply_one(content, change);
            }
            content.version += u64::from(modified);
            modified
        });
    }

    /// Notes that the API server answers; says whether that is news.
    pub(crate) fn connected(&self) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let news = !health.connected;
        if news {
            health.connected = true;
            health.since = SystemTime::now();
        }
        news
    }

    /// Notes a failure; says whether it is another than the last.
    pub(crate) fn failed(&self, reason: String) -> bool {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let news = health.connected || health.last_error.as_deref() != Some(&reason);
        if health.connected {
            health.connected = false;
            health.since = SystemTime::now();
        }
        health.last_error = Some(reason);
        news
    }
}

fn apply_one<T: Clone + PartialEq>(content: &mut Snapshot<T>, change: Change<T>) -> bool {
    match change {
        Change::Set(key, item) => {
            let mut modified = remove(&mut content.rejected, &key);
            if content.items.get(&key) != Some(&item) {
                Arc::make_mut(&mut content.items).insert(key, item);
                modified = true;
            }
            modified
        }
        Change::Reject(key, reason) => {
            let mut modified = remove(&mut content.items, &key);
            if content.rejected.get(&key) != Some(&reason) {
                Arc::make_mut(&mut content.rejected).insert(key, reason);
                modified = true;
            }
            modified
        }
        Change::Remove(key) => {
            let rejected = remove(&mut content.rejected, &key);
            remove(&mut content.items, &key) || rejected
        }
    }
}

/// Looks before it asks for a map of its own: a reader may hold this one, and then it would be copied.
fn remove<V: Clone>(map: &mut Arc<BTreeMap<String, V>>, key: &str) -> bool {
    map.contains_key(key) && Arc::make_mut(map).remove(key).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn woken<T>(table: &mut Table<T>) -> bool {
        let woken = table.content.has_changed().expect("a feed");
        table.content.mark_unchanged();
        woken
    }

    #[test]
    fn same_content_wakes_nobody() {
        let (feed, mut table) = table::<u8>("test");
        feed.replace(BTreeMap::new(), BTreeMap::new());
        assert!(woken(&mut table), "an empty list is news: it is known now");
        feed.replace(BTreeMap::new(), BTreeMap::new());
        feed.apply(vec![Change::Remove("a".to_owned())]);
        assert!(!woken(&mut table));
        feed.apply(vec![Change::Set("a".to_owned(), 1)]);
        assert!(woken(&mut table));
        feed.apply(vec![Change::Set("a".to_owned(), 1)]);
        assert!(!woken(&mut table));
        assert_eq!(table.snapshot().version, 2);
    }

    #[test]
    fn object_is_usable_or_rejected_never_both() {
        let (feed, table) = table::<u8>("test");
        feed.apply(vec![Change::Set("a".to_owned(), 1), Change::Set("b".to_owned(), 2)]);
        let before = table.snapshot();
        feed.apply(vec![Change::Reject("a".to_owned(), "why".to_owned())]);
        let after = table.snapshot();
        assert_eq!(after.items.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(after.rejected.get("a").map(String::as_str), Some("why"));
        assert_eq!(before.items.len(), 2, "a snapshot does not change");
        feed.apply(vec![Change::Set("a".to_owned(), 1), Change::Remove("b".to_owned())]);
        assert_eq!(table.snapshot().items.keys().collect::<Vec<_>>(), ["a"]);
        assert!(table.snapshot().rejected.is_empty());
    }

    #[test]
    fn health_tells_news_from_repetition() {
        let (feed, table) = table::<u8>("test");
        assert!(feed.failed("refused".to_owned()));
        assert!(!feed.failed("refused".to_owned()));
        assert!(feed.connected());
        assert!(!feed.connected());
        let health = table.health();
        assert!(health.connected);
        assert_eq!(health.last_error.as_deref(), Some("refused"));
        assert!(feed.failed("refused".to_owned()), "again, after it was well");
    }
}
