//! One request with a limit: a connection that died silently must not hold its caller for ever.

use std::{future::Future, time::Duration};

use crate::error::{ApiFailure, ClusterError};

/// How long one answer may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Awaits `answer`, at most [`LIMIT`], and names `action` in the error.
pub(crate) async fn within<T>(
    action: &str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(answered) => answered
            .map_err(|error| ClusterError::Request { action: action.to_owned(), source: ApiFailure::from(error) }),
        Err(_) => Err(ClusterError::TimedOut { action: action.to_owned(), limit: LIMIT }),
    }
}
