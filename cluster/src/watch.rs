//! Lists and watches one kind of object and feeds a table with it.
//!
//! Not `kube::runtime::watcher`: that one does not say when a watch is established again after a failure, so the
//! health of a quiet table would stay "disconnected", and one object that does not parse fails its whole list. Objects
//! are taken untyped here and read one by one.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use kinesin_core::causes::with_causes;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams},
    runtime::{utils::Backoff, watcher::DefaultBackoff},
};
use tokio::time::Instant;

use crate::{
    error::ClusterError,
    request::within,
    table::{Change, Feed, Table, table},
};

/// Objects a page of a list has at most.
const PAGE: u32 = 500;
/// After this the server ends a watch.
const WATCH_SECONDS: u32 = 290;
/// After this the client ends a watch that the server should have ended: the connection is dead.
const WATCH_LIMIT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);
/// A watch that lived this long was in order; the next one may be opened at once.
const HEALTHY_WATCH: Duration = Duration::from_secs(5);
/// No pause between two tries is longer. The default's 30 s would be added to every start before the definitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Changes that are applied at once, at most.
const BATCH: usize = 512;

/// What is watched.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) api: Api<DynamicObject>,
    /// Group, version and kind, as a person writes them.
    pub(crate) what: String,
    pub(crate) fields: Option<String>,
}

impl Source {
    /// All objects of a kind in the whole cluster, narrowed by a field selector.
    pub(crate) fn new(client: kube::Client, resource: &ApiResource, fields: Option<String>) -> Self {
        let what = format!("{} {}", resource.api_version, resource.kind);
        Self { api: Api::all_with(client, resource), what, fields }
    }
}

/// Watches all objects of a kind in the whole cluster, each as `read` has it; what it refuses is among the rejected.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn watch_all<K, T, F>(client: kube::Client, read: F) -> Table<T>
where
    K: kube::Resource<DynamicType = ()>,
    T: Clone + PartialEq + Send + Sync + 'static,
    F: Fn(&DynamicObject) -> Result<T, String> + Send + Sync + 'static,
{
    watch(Source::new(client, &ApiResource::erase::<K>(&()), None), read)
}

/// Starts a task that keeps the returned table up to date and ends with its last clone.
pub(crate) fn watch<T, F>(source: Source, read: F) -> Table<T>
where
    T: Clone + PartialEq + Send + Sync + 'static,
    F: Fn(&DynamicObject) -> Result<T, String> + Send + Sync + 'static,
{
    let (feed, table) = table(&source.what);
    tokio::spawn(async move {
        let work = run(&source, &feed, &read);
        tokio::select! {
            () = feed.unread() => tracing::debug!(what = source.what, "nobody reads the table any more"),
            () = work => {}
        }
    });
    table
}

/// Why a watch ended.
enum End {
    /// The server or its time limit ended it; it goes on from this resource version.
    Resume(String),
    /// The resource version is too old, or the stream is not usable: the list is asked again.
    Relist,
    Failed(String),
}

async fn run<T, F>(source: &Source, feed: &Feed<T>, read: &F)
where
    T: Clone + PartialEq,
    F: Fn(&DynamicObject) -> Result<T, String>,
{
    let mut backoff = DefaultBackoff::default();
    let mut resume: Option<String> = None;
    loop {
        let from = match resume.take() {
            Some(version) => Ok(version),
            None => list(source, feed, read).await,
        };
        let started = Instant::now();
        let end = match from {
            Ok(version) => follow(source, feed, read, &version).await.unwrap_or_else(|(version, error)| {
                resume = Some(version);
                End::Failed(explain(source, &error))
            }),
            Err(error) => End::Failed(explain(source, &error)),
        };
        let lived = started.elapsed();
        if lived >= HEALTHY_WATCH {
            backoff.reset();
        }
        match end {
            End::Resume(version) => {
                resume = Some(version);
                if lived >= HEALTHY_WATCH {
                    continue;
                }
            }
            End::Relist => {}
            End::Failed(reason) => {
                if feed.failed(reason.clone()) {
                    tracing::warn!(what = source.what, reason, "cannot watch; the last content stays");
                }
            }
        }
        tokio::time::sleep(backoff.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)).await;
    }
}

/// Asks for all objects and answers the resource version of the list.
async fn list<T, F>(source: &Source, feed: &Feed<T>, read: &F) -> Result<String, ClusterError>
where
    T: Clone + PartialEq,
    F: Fn(&DynamicObject) -> Result<T, String>,
{
    let action = format!("list {}", source.what);
    let (mut items, mut rejected) = (BTreeMap::new(), BTreeMap::new());
    let mut params = ListParams { field_selector: source.fields.clone(), limit: Some(PAGE), ..ListParams::default() };
    loop {
        let page = within(&action, source.api.list(&params)).await?;
        for object in page.items {
            match change(&object, read) {
                Change::Set(key, item) => drop(items.insert(key, item)),
                Change::Reject(key, reason) => drop(rejected.insert(key, reason)),
                Change::Remove(_) => {}
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                note_rejected(source, rejected.iter());
                feed.replace(items, rejected);
                connected(source, feed);
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Watches from a resource version until something ends it. An error carries the version to go on from.
async fn follow<T, F>(source: &Source, feed: &Feed<T>, read: &F, version: &str) -> Result<End, (String, ClusterError)>
where
    T: Clone + PartialEq,
    F: Fn(&DynamicObject) -> Result<T, String>,
{
    let params = WatchParams {
        field_selector: source.fields.clone(),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        ..WatchParams::default()
    };
    let mut version = version.to_owned();
    let action = format!("watch {}", source.what);
    let stream = match within(&action, source.api.watch(&params, &version)).await {
        Ok(stream) => stream,
        Err(error) if code(&error) == Some(410) => return Ok(End::Relist),
        Err(error) => return Err((version, error)),
    };
    connected(source, feed);
    let batches = stream.into_stream().ready_chunks(BATCH);
    let mut batches = pin!(batches);
    let deadline = Instant::now() + WATCH_LIMIT;
    while let Some(batch) = next_before(&mut batches, deadline).await {
        let mut changes = Vec::with_capacity(batch.len());
        let mut end = None;
        for event in batch {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    take_version(&mut version, &object);
                    changes.push(change(&object, read));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    take_version(&mut version, &object);
                    changes.push(Change::Remove(key(&object)));
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                Ok(WatchEvent::Error(status)) if status.code == 410 => end = Some(Ok(End::Relist)),
                Ok(WatchEvent::Error(status)) => end = Some(Err(kube::Error::Api(status))),
                Err(kube::Error::SerdeError(error)) => {
                    // Going on from here would meet the same line again.
                    let reason = format!("the API server sent an event that cannot be read: {error}");
                    end = Some(Ok(End::Failed(reason)));
                }
                Err(error) => end = Some(Err(error)),
            }
            if end.is_some() {
                break;
            }
        }
        note_rejected(
            source,
            changes.iter().filter_map(|change| match change {
                Change::Reject(key, reason) => Some((key, reason)),
                _ => None,
            }),
        );
        feed.apply(changes);
        match end {
            None => {}
            Some(Ok(end)) => return Ok(end),
            Some(Err(error)) => {
                let source = error.into();
                return Err((version, ClusterError::Request { action, source }));
            }
        }
    }
    Ok(End::Resume(version))
}

/// The next item; nothing when the stream has ended or the deadline has passed.
async fn next_before<S: Stream + Unpin>(stream: &mut S, deadline: Instant) -> Option<S::Item> {
    tokio::time::timeout_at(deadline, stream.next()).await.ok().flatten()
}

fn connected<T: Clone + PartialEq>(source: &Source, feed: &Feed<T>) {
    if feed.connected() {
        tracing::info!(what = source.what, "watching");
    }
}

fn note_rejected<'a>(source: &Source, rejected: impl Iterator<Item = (&'a String, &'a String)>) {
    for (object, reason) in rejected {
        tracing::warn!(what = source.what, object, reason, "an object cannot be used");
    }
}

fn change<T>(object: &DynamicObject, read: &impl Fn(&DynamicObject) -> Result<T, String>) -> Change<T> {
    match read(object) {
        Ok(item) => Change::Set(key(object), item),
        Err(reason) => Change::Reject(key(object), reason),
    }
}

fn key(object: &DynamicObject) -> String {
    let name = object.name_any();
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    }
}

fn take_version(version: &mut String, object: &DynamicObject) {
    if let Some(newer) = object.resource_version() {
        *version = newer;
    }
}

fn code(error: &ClusterError) -> Option<u16> {
    match error {
        ClusterError::Request { source, .. } => source.code(),
        _ => None,
    }
}

/// The reason with what to do about it where that is known.
fn explain(source: &Source, error: &ClusterError) -> String {
    let reason = with_causes(error);
    match code(error) {
        Some(404) => format!("{reason}; the API server does not serve {} yet, its definition is missing", source.what),
        Some(401 | 403) => format!("{reason}; check the service account and its ClusterRole"),
        Some(429) => format!("{reason}; the API server is busy or still installing the definition"),
        _ => reason,
    }
}
