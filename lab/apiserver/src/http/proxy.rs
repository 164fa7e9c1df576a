//! Exec, attach and logs: passed on to the kubelet of the pod's node.
//!
//! The node says where its kubelet listens: annotation [`SOCKET`], the absolute path of a unix
//! socket with HTTP on it. Exec speaks the remote command subprotocols over WebSocket; the bytes of
//! the upgraded connection pass through untouched.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::request::Call;
use super::response::Body;
use super::{Server, stopped};
use crate::error::ApiError;
use crate::object;

/// The annotation of a Node that names its kubelet's socket.
const SOCKET: &str = "lab.kinesin.io/kubelet-socket";

/// How long after a refusal a second attempt of the same client is expected.
const REFUSAL_KEPT: Duration = Duration::from_secs(2);

type Sender = http1::SendRequest<Empty<Bytes>>;

/// `pods/NAME/log`.
pub(super) async fn log(server: &Server, call: &Call, namespace: &str, name: &str) -> Result<Response<Body>, ApiError> {
    let target = Target::find(server, call, namespace, name)?;
    let path = target.path("containerLogs", namespace, name, call);
    let mut sender = target.connect().await?;
    let request = Request::get(path)
        .header(HOST, "kubelet")
        .body(Empty::new())
        .map_err(|error| ApiError::bad_request(format!("the log request cannot be passed on: {error}")))?;
    let answer = sender.send_request(request).await.map_err(|error| target.broken(&error))?;
    if !answer.status().is_success() {
        return Err(target.refusal(answer).await);
    }
    let (head, body) = answer.into_parts();
    let mut response = Response::new(body_without_errors(body));
    if let Some(kind) = head.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    Ok(response)
}

/// `pods/NAME/exec` and `pods/NAME/attach`.
pub(super) async fn tunnel(
    server: &Server,
    request: &mut Request<Incoming>,
    call: &Call,
    namespace: &str,
    name: &str,
    verb: &str,
) -> Result<Response<Body>, ApiError> {
    let target = Target::find(server, call, namespace, name)?;
    let upgrade = request.headers().get(UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    match upgrade.as_str() {
        "websocket" => {}
        "" => return Err(ApiError::bad_request("Upgrade request required: exec and attach need a WebSocket")),
        other if other.starts_with("spdy") => {
            // kubectl tries SPDY after any refusal of its WebSocket; it should see the reason then.
            if let Some(error) = server.refusals.recent(namespace, name) {
                return Err(error);
            }
            return Err(ApiError::bad_request(
                "SPDY is not spoken here; use a client that speaks WebSocket, such as kubectl 1.30 or newer (and do not set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false)",
            ));
        }
        other => {
            return Err(ApiError::bad_request(format!(
                "cannot upgrade to {other:?}; exec and attach need a WebSocket"
            )));
        }
    }
    let mut passed = Request::new(Empty::new());
    *passed.method_mut() = Method::GET;
    *passed.uri_mut() = target
        .path(verb, namespace, name, call)
        .parse()
        .map_err(|error| ApiError::bad_request(format!("the request cannot be passed on: {error}")))?;
    for (header, value) in request.headers() {
        if header == CONNECTION || header == UPGRADE || header.as_str().starts_with("sec-websocket") {
            passed.headers_mut().append(header, value.clone());
        }
    }
    passed.headers_mut().insert(HOST, http::HeaderValue::from_static("kubelet"));

    let mut answer = match target.upgrade(passed).await {
        Ok(answer) => answer,
        Err(error) => {
            server.refusals.note(namespace, name, &error);
            return Err(error);
        }
    };
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    let client = hyper::upgrade::on(&mut *request);
    let kubelet = hyper::upgrade::on(&mut answer);
    let mut stopping = server.stopping.clone();
    tokio::spawn(async move {
        let (client, kubelet) = match tokio::try_join!(client, kubelet) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a tunnel was given up before it stood"),
        };
        let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
        tokio::select! {
            // Either end closing ends the tunnel; how it went is said inside the channel.
            _ = tokio::io::copy_bidirectional(&mut client, &mut kubelet) => {}
            () = stopped(&mut stopping) => {}
        }
    });
    Ok(response)
}

/// The last refusal of each pod's kubelet, for as long as a client may come back over it.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    last: Mutex<HashMap<(String, String), (Instant, ApiError)>>,
}

impl Refusals {
    fn note(&self, namespace: &str, pod: &str, error: &ApiError) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, (at, _)| at.elapsed() < REFUSAL_KEPT);
        last.insert((namespace.to_owned(), pod.to_owned()), (Instant::now(), error.clone()));
    }

    fn recent(&self, namespace: &str, pod: &str) -> Option<ApiError> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, error) = last.get(&(namespace.to_owned(), pod.to_owned()))?;
        (at.elapsed() < REFUSAL_KEPT).then(|| error.clone())
    }
}

/// The container a request is about, and the way to its kubelet.
struct Target {
    node: String,
    socket: String,
    container: String,
}

impl Target {
    fn find(server: &Server, call: &Call, namespace: &str, name: &str) -> Result<Self, ApiError> {
        let api = &server.api;
        let pod = api.get(&api.builtin("", "pods"), namespace, name)?;
        let container = pick_container(&pod, call.param("container"), name)?;
        let node = object::text(&pod, &["spec", "nodeName"]).to_owned();
        if node.is_empty() {
            return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
        }
        let on = api.get(&api.builtin("", "nodes"), "", &node)?;
        let socket = object::text(&on, &["metadata", "annotations", SOCKET]).to_owned();
        if socket.is_empty() {
            return Err(ApiError::unavailable(format!(
                "node {node} does not say where its kubelet listens; annotate it with {SOCKET}=<path of a unix socket>"
            )));
        }
        Ok(Self { node, socket, container })
    }

    fn path(&self, verb: &str, namespace: &str, pod: &str, call: &Call) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(call.query.iter().filter(|(key, _)| key != "container"));
        format!("/{verb}/{namespace}/{pod}/{}?{}", self.container, query.finish())
    }

    async fn connect(&self) -> Result<Sender, ApiError> {
        let fail = |error: &dyn std::fmt::Display| {
            ApiError::unavailable(format!("cannot reach the kubelet of node {} at {}: {error}", self.node, self.socket))
        };
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| fail(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| fail(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a kubelet ended");
            }
        });
        Ok(sender)
    }

    /// Sends a request for an upgrade; anything but the switch is a refusal.
    async fn upgrade(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, ApiError> {
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => Ok(answer),
            _ => Err(self.refusal(answer).await),
        }
    }

    fn broken(&self, error: &hyper::Error) -> ApiError {
        ApiError::internal(format!("the kubelet of node {} broke off: {error}", self.node))
    }

    /// What the kubelet said instead of doing it.
    async fn refusal(&self, answer: Response<Incoming>) -> ApiError {
        let status = answer.status();
        let text = match answer.into_body().collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let mut error = match status.as_u16() {
            404 => ApiError::no_such_path(&self.container),
            400..500 => ApiError::bad_request(""),
            _ => ApiError::internal(""),
        };
        error.message =
            if text.is_empty() { format!("the kubelet of node {} answered {status}", self.node) } else { text };
        error
    }
}

fn pick_container(pod: &Value, asked: &str, name: &str) -> Result<String, ApiError> {
    let names = |list| object::list(pod, &["spec", list]).iter().map(|c| object::text(c, &["name"]));
    let all: Vec<&str> = names("containers").collect();
    if !asked.is_empty() {
        let is_there = all.contains(&asked) || names("initContainers").any(|c| c == asked);
        return if is_there {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match all.as_slice() {
        [only] => Ok((*only).to_owned()),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// A body whose stream ends where the kubelet breaks off: the status has been sent by then.
fn body_without_errors(mut body: Incoming) -> Body {
    let (out, frames) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = body.frame() => next,
                () = out.closed() => return,
            };
            match next {
                Some(Ok(frame)) => {
                    if out.send(Ok::<_, Infallible>(frame)).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => return tracing::debug!(%error, "a log broke off"),
                None => return,
            }
        }
    });
    http_body_util::StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames)).boxed()
}
