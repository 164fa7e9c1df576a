//! A client for the agent's unix socket: one connection per request, HTTP/1.1.

use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::types::{BASE_PATH, ErrorBody, ErrorKind};

/// Where the agent listens unless [`SOCKET_ENV`] says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/cilium/cilium.sock";
/// Environment variable that overrides [`DEFAULT_SOCKET`].
pub const SOCKET_ENV: &str = "CILIUM_SOCK";

/// No answer of the agent is larger: 10,000 endpoints take about 8 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Talks to one agent.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

/// Why a request to the agent failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens: the agent is not running, or starts.
    #[error("unable to connect to the agent at {socket:?}; is kinesin-agent running on this node?")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The agent took too long.
    #[error("the agent did not answer {method} {path} within {seconds} s")]
    Timeout {
        /// HTTP method.
        method: Method,
        /// Path.
        path: String,
        /// The limit.
        seconds: u64,
    },
    /// The connection broke or spoke no HTTP.
    #[error("the agent's answer to {method} {path} could not be read: {reason}")]
    Protocol {
        /// HTTP method.
        method: Method,
        /// Path.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// The agent refused.
    #[error("[{method} {path}][{status}] {}", body.message)]
    Refused {
        /// HTTP method.
        method: Method,
        /// Path.
        path: String,
        /// HTTP status.
        status: u16,
        /// The agent's words.
        body: ErrorBody,
    },
}

impl ClientError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Protocol { .. } => true,
            Self::Refused { body, .. } => matches!(body.kind, ErrorKind::Unavailable | ErrorKind::Exhausted),
        }
    }

    /// The agent's kind of refusal, if it answered.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused { body, .. } => Some(body.kind),
            _ => None,
        }
    }
}

impl Client {
    /// A client for the socket that `CILIUM_SOCK` or the default names; requests end after 30 s.
    #[must_use]
    pub fn from_env() -> Self {
        let socket = env::var_os(SOCKET_ENV).map_or_else(|| PathBuf::from(DEFAULT_SOCKET), PathBuf::from);
        Self::new(socket)
    }

    /// A client for `socket`; requests end after 30 s.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: Duration::from_secs(30) }
    }

    /// The same client with another limit per request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket it talks to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET /v1{path}`.
    ///
    /// # Errors
    /// Every variant of [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request(Method::GET, path, &()).await
    }

    /// `PUT /v1{path}` with `body`.
    ///
    /// # Errors
    /// Every variant of [`ClientError`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.request(Method::PUT, path, body).await
    }

    /// `POST /v1{path}` with `body`.
    ///
    /// # Errors
    /// Every variant of [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.request(Method::POST, path, body).await
    }

    /// `DELETE /v1{path}` with `body`.
    ///
    /// # Errors
    /// Every variant of [`ClientError`].
    pub async fn delete<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.request(Method::DELETE, path, body).await
    }

    async fn request<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method.clone(), path, body);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { method, path: path.to_owned(), seconds: self.timeout.as_secs() }),
        }
    }

    async fn exchange<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let broken = |reason: String| ClientError::Protocol { method: method.clone(), path: path.to_owned(), reason };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.to_string()))?;
        // The connection ends with the sender; its error also reaches `send_request`.
        tokio::spawn(connection);

        let payload = if method == Method::GET {
            Vec::new()
        } else {
            serde_json::to_vec(body).map_err(|error| broken(error.to_string()))?
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{BASE_PATH}{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(payload)))
            .map_err(|error| broken(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;

        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| broken(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            return Err(refusal(method, path, status, &bytes));
        }
        // An empty answer stands for JSON's null, so that `T = ()` fits.
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| broken(error.to_string()))
    }
}

fn refusal(method: Method, path: &str, status: StatusCode, bytes: &[u8]) -> ClientError {
    let body = serde_json::from_slice(bytes).unwrap_or_else(|_| ErrorBody {
        kind: if status == StatusCode::NOT_FOUND { ErrorKind::NotFound } else { ErrorKind::Internal },
        message: String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).into_owned(),
    });
    ClientError::Refused { method, path: path.to_owned(), status: status.as_u16(), body }
}
