//! What can go wrong between a program and the API server.

use std::{error::Error, fmt, path::PathBuf, time::Duration};

/// Why the cluster could not be asked or told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The kubeconfig cannot be read or used.
    #[error("cannot use the kubeconfig {path:?}; give a readable file with a current context")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Neither a kubeconfig nor a Pod's service account.
    #[error("no way to the cluster is known; give a kubeconfig or the URL of the API server, or run in a Pod")]
    NotInCluster {
        /// What a Pod would have and is missing.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The URL of the API server is none.
    #[error("{url:?} is no URL of an API server; write it as https://HOST:PORT")]
    Url {
        /// As it was given.
        url: String,
    },
    /// The client cannot be made of a configuration that was read.
    #[error("cannot make a client of the configuration for {url}; check its certificates and credentials")]
    Client {
        /// API server.
        url: String,
        /// What is wrong with it.
        #[source]
        source: ApiFailure,
    },
    /// The API server refused, or it could not be reached.
    #[error("cannot {action}")]
    Request {
        /// What was tried, such as `apply CiliumNode w1`.
        action: String,
        /// The answer.
        #[source]
        source: ApiFailure,
    },
    /// The API server did not answer in time.
    #[error("cannot {action}: the API server did not answer within {}", seconds(.limit))]
    TimedOut {
        /// What was tried.
        action: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Some objects could not be written; all others were.
    #[error("{} objects could not be written: {}", .failed.len(), .failed.join("; "))]
    Partial {
        /// How many objects were changed all the same.
        changed: usize,
        /// Each failure with its reason.
        failed: Vec<String>,
        /// Whether any of them may go away by itself.
        retryable: bool,
    },
    /// A definition was written, and the API server does not serve it.
    #[error("definition {name} is not served after {}: {reason}", seconds(.limit))]
    NotEstablished {
        /// Name of the definition.
        name: String,
        /// What its conditions say.
        reason: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl ClusterError {
    /// The message and its causes in one line, as a log or a status shows it.
    #[must_use]
    pub fn line(&self) -> String {
        kinesin_core::causes::with_causes(self)
    }

    /// Whether the same call may succeed later without anybody changing a configuration.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Kubeconfig { .. } | Self::NotInCluster { .. } | Self::Url { .. } | Self::Client { .. } => false,
            Self::Request { source, .. } => source.retryable(),
            Self::Partial { retryable, .. } => *retryable,
            Self::TimedOut { .. } | Self::NotEstablished { .. } => true,
        }
    }
}

/// What the API server, or the way to it, answered: one line for people.
pub struct ApiFailure(Box<kube::Error>);

impl ApiFailure {
    /// HTTP status, if there was an answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.0.as_ref() {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether asking again may help: everything but a request that is wrong in itself.
    #[must_use]
    pub fn retryable(&self) -> bool {
        // 401 and 403 are for as long as RBAC is being installed, 404 while a definition is not there yet.
        !matches!(self.code(), Some(400 | 405 | 413 | 415 | 422))
    }
}

impl From<kube::Error> for ApiFailure {
    fn from(error: kube::Error) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for ApiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ApiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_ref() {
            kube::Error::Api(status) if status.message.is_empty() => write!(f, "HTTP status {}", status.code),
            kube::Error::Api(status) => write!(f, "{} ({})", status.message, status.code),
            error => f.write_str(&innermost(error)),
        }
    }
}

// The display is the whole story in one line, so there is no source below it.
impl Error for ApiFailure {}

/// The last two of the chain: kube and hyper wrap "connection refused" in several that say less.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(source) = next {
        texts.push(source.to_string());
        next = source.source();
    }
    texts.dedup();
    let from = texts.len().saturating_sub(2);
    let mut line = texts.swap_remove(from);
    for text in texts.drain(from..) {
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
    }
    line
}

fn seconds(limit: &Duration) -> String {
    format!("{} s", limit.as_secs_f32())
}
