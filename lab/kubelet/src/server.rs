//! What the API server asks a kubelet: logs, exec and attach, over HTTP on a unix socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path as Segments, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use tokio::net::UnixListener;
use tokio_stream::wrappers::ReceiverStream;

use crate::kubelet::Node;
use crate::logs::{Options, Reader};
use crate::record::PodRecord;
use crate::remote::{self, Request, SUBPROTOCOLS, Target};
use crate::{KubeletError, files};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);

type Of = Segments<(String, String, String)>;

/// Binds the socket; one that an earlier kubelet left is replaced.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, KubeletError> {
    if let Some(dir) = path.parent() {
        files::make_dir(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(KubeletError::file("replace", path)(error));
        }
        _ => {}
    }
    UnixListener::bind(path).map_err(KubeletError::file("listen on", path))
}

/// Serves for ever.
pub(crate) async fn serve(listener: UnixListener, node: Arc<Node>) {
    let router = Router::new()
        .route("/healthz", any(|| async { "ok" }))
        .route("/containerLogs/{namespace}/{pod}/{container}", any(logs))
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
        .with_state(node);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "logs, exec and attach are not served any more");
    }
}

type Refusal = (StatusCode, String);

fn find_pod(node: &Node, namespace: &str, pod: &str) -> Result<PodRecord, Refusal> {
    node.find(namespace, pod)
        .ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{pod}_{namespace}\" does not exist on this node")))
}

fn find_target(node: &Node, (namespace, pod, container): &(String, String, String)) -> Result<Target, Refusal> {
    let record = find_pod(node, namespace, pod)?;
    Target::find(node, &record, container).ok_or_else(|| {
        (StatusCode::NOT_FOUND, format!("unable to upgrade connection: container not found ({container:?})"))
    })
}

async fn exec(
    State(node): State<Arc<Node>>,
    Segments(of): Of,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let request = Request::parse(&query.unwrap_or_default());
    if request.command.is_empty() {
        return (StatusCode::BAD_REQUEST, "you must specify at least 1 command").into_response();
    }
    match find_target(&node, &of) {
        Ok(target) => upgrade.protocols(SUBPROTOCOLS).on_upgrade(move |socket| remote::exec(socket, target, request)),
        Err(refusal) => refusal.into_response(),
    }
}

async fn attach(
    State(node): State<Arc<Node>>,
    Segments(of): Of,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let request = Request::parse(&query.unwrap_or_default());
    match find_target(&node, &of) {
        Ok(target) => upgrade.protocols(SUBPROTOCOLS).on_upgrade(move |socket| remote::attach(socket, target, request)),
        Err(refusal) => refusal.into_response(),
    }
}

async fn logs(
    State(node): State<Arc<Node>>,
    Segments((namespace, pod, container)): Of,
    RawQuery(query): RawQuery,
) -> Response {
    match open_log(&node, &namespace, &pod, &container, &query.unwrap_or_default()) {
        Ok(body) => ([(header::CONTENT_TYPE, "text/plain")], body).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

fn open_log(node: &Arc<Node>, namespace: &str, pod: &str, container: &str, query: &str) -> Result<Body, Refusal> {
    let options = Options::parse(query).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let record = find_pod(node, namespace, pod)?;
    let missing = || {
        let why = format!("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating");
        (StatusCode::BAD_REQUEST, why)
    };
    let known = record.containers.get(container).ok_or_else(missing)?;
    let attempt = if options.previous {
        let previous = format!("previous terminated container {container:?} in pod {pod:?} not found");
        known.attempt.checked_sub(1).ok_or((StatusCode::BAD_REQUEST, previous))?
    } else {
        known.attempt
    };
    let log = record.log(&node.config.log_dir, container, attempt);
    if !log.exists() {
        return Err(missing());
    }
    let (follow, container) = (options.follow && !options.previous, container.to_owned());
    let node = node.clone();
    let (to, chunks) = tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(16);
    // Files are read by blocking calls, so this has a thread of its own.
    tokio::task::spawn_blocking(move || {
        let mut reader = Reader::open(&log, options);
        loop {
            // Asked before reading: what is written before the end is then not missed.
            let goes_on = follow && !reader.is_exhausted() && runs(&node, &record, &container);
            let mut chunk = Vec::new();
            while let Some(text) = reader.next() {
                chunk.extend(text);
                if chunk.len() > 32 * 1024 && to.blocking_send(Ok(std::mem::take(&mut chunk).into())).is_err() {
                    return;
                }
            }
            if !chunk.is_empty() && to.blocking_send(Ok(chunk.into())).is_err() || to.is_closed() || !goes_on {
                return;
            }
            std::thread::sleep(LOOK);
        }
    });
    Ok(Body::from_stream(ReceiverStream::new(chunks)))
}

/// Whether this run of a container may still write.
fn runs(node: &Node, record: &PodRecord, container: &str) -> bool {
    let state = record.state(&node.config.pods_dir, container);
    state.is_some_and(|state| state.exit.is_none() && state.shim.is_alive())
}
