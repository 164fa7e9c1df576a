//! Watches: a stream of changes, from a revision on, with bookmarks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::request::Call;
use super::response::{Body, View};
use super::{Server, stopped};
use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;
use crate::ops::ListOptions;
use crate::store::Change;

/// How often a client that asked for bookmarks gets one while nothing happens.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How long a watch lasts whose client names no time.
const LASTS: Duration = Duration::from_secs(30 * 60);
/// Events that may wait for a slow client; the watch waits with the rest.
const QUEUE: usize = 64;

struct Watch {
    server: Server,
    kind: Arc<Kind>,
    namespace: Option<String>,
    options: ListOptions,
    view: View,
    out: mpsc::Sender<Bytes>,
    has_sent_columns: bool,
}

/// The client went away.
struct Gone;

pub(super) fn serve(
    server: &Server,
    call: &Call,
    kind: &Arc<Kind>,
    namespace: Option<String>,
    options: ListOptions,
    view: View,
) -> Result<Response<Body>, ApiError> {
    let revision = call.revision()?;
    let wants_bookmarks = call.flag("allowWatchBookmarks");
    let wants_initial = call.flag("sendInitialEvents");
    if wants_initial && call.param("resourceVersionMatch") != "NotOlderThan" {
        return Err(ApiError::bad_request("sendInitialEvents needs resourceVersionMatch=NotOlderThan"));
    }
    let lasts = call.number("timeoutSeconds")?.filter(|s: &u64| *s > 0).map_or(LASTS, Duration::from_secs);
    let (out, events) = mpsc::channel(QUEUE);
    let watch =
        Watch { server: server.clone(), kind: kind.clone(), namespace, options, view, out, has_sent_columns: false };
    tokio::spawn(async move {
        // An error here says that the client has gone, which ends the watch as it should.
        let _ = watch.run(revision, wants_initial, wants_bookmarks, Instant::now() + lasts).await;
    });
    let frames = ReceiverStream::new(events).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let mut response = Response::new(StreamBody::new(frames).boxed());
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

impl Watch {
    async fn run(mut self, from: Option<u64>, initial: bool, bookmarks: bool, until: Instant) -> Result<(), Gone> {
        let store = self.server.api.clone();
        let mut news = store.store.subscribe(&self.kind.storage);
        let mut stopping = self.server.stopping.clone();
        let mut at = match from {
            Some(revision) if revision > 0 && !initial => revision,
            // "Any state" and "the newest state" are the same here: both start with what there is.
            _ => self.send_present(initial && bookmarks).await?,
        };
        let current = store.store.revision();
        if at > current {
            // Only a server that lost its state can meet this; the client must list anew.
            return self.send_error(&ApiError::expired(at, current)).await;
        }
        let mut told = at;
        let mut next_bookmark = Instant::now() + BOOKMARK_EVERY;
        loop {
            news.mark_unchanged();
            match store.store.since(&self.kind.storage, at) {
                Ok((changes, revision)) => {
                    for change in changes {
                        self.send_change(&change).await?;
                    }
                    at = revision;
                }
                Err(compacted) => return self.send_error(&ApiError::expired(at, compacted.oldest)).await,
            }
            tokio::select! {
                changed = news.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = sleep_until(next_bookmark), if bookmarks => {
                    next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    if at != told {
                        self.send_bookmark(at, false).await?;
                        told = at;
                    }
                }
                () = sleep_until(until) => {
                    if bookmarks {
                        self.send_bookmark(at, false).await?;
                    }
                    return Ok(());
                }
                () = stopped(&mut stopping) => return Ok(()),
                () = self.out.closed() => return Err(Gone),
            }
        }
    }

    /// What there is, as additions; the answer is its revision.
    async fn send_present(&mut self, with_end: bool) -> Result<u64, Gone> {
        let (objects, revision) = self.server.api.store.list(&self.kind.storage, self.namespace.as_deref());
        for object in &objects {
            if !self.options.selects(object) {
                continue;
            }
            self.send("ADDED", object).await?;
        }
        if with_end {
            self.send_bookmark(revision, true).await?;
        }
        Ok(revision)
    }

    /// A change as this watch sees it: an object that comes to be selected is added, one that no
    /// longer is, is deleted.
    async fn send_change(&mut self, change: &Change) -> Result<(), Gone> {
        if self.namespace.as_ref().is_some_and(|n| *n != change.key.namespace) {
            return Ok(());
        }
        let selected = |object: &Option<Arc<Value>>| object.as_ref().filter(|o| self.options.selects(o)).cloned();
        let (before, after) = (selected(&change.before), selected(&change.after));
        match (before, after) {
            (None, None) => Ok(()),
            (None, Some(after)) => self.send("ADDED", &after).await,
            (Some(_), Some(after)) => self.send("MODIFIED", &after).await,
            (Some(before), None) => {
                let mut last = before.as_ref().clone();
                object::set(&mut last, &["metadata", "resourceVersion"], change.revision.to_string());
                self.send("DELETED", &Arc::new(last)).await
            }
        }
    }

    async fn send(&mut self, event: &str, object: &Arc<Value>) -> Result<(), Gone> {
        let shown = self.server.api.present(&self.kind, object);
        let body = self.view.object(&self.kind, &shown, !self.has_sent_columns);
        self.has_sent_columns = true;
        self.send_event(event, &body).await
    }

    async fn send_bookmark(&mut self, revision: u64, is_end_of_initial: bool) -> Result<(), Gone> {
        let mut object = json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind,
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        if is_end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let body = match self.view {
            View::Full => object,
            View::Metadata => super::response::metadata_only(&object),
            View::Table(_) => json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {
                "resourceVersion": revision.to_string()}, "columnDefinitions": [], "rows": [{"cells": [],
                "object": super::response::metadata_only(&object)}]}),
        };
        self.send_event("BOOKMARK", &body).await
    }

    async fn send_error(&mut self, error: &ApiError) -> Result<(), Gone> {
        self.send_event("ERROR", &error.to_status()).await
    }

    async fn send_event(&mut self, event: &str, object: &Value) -> Result<(), Gone> {
        let line = format!("{{\"type\":\"{event}\",\"object\":{object}}}\n");
        self.out.send(line.into()).await.map_err(|_| Gone)
    }
}
