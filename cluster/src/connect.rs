//! The way to the API server.

use std::{path::Path, time::Duration};

use http::Uri;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::error::{ApiFailure, ClusterError};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client by `kubeconfig`, else by the service account of the Pod; `api_server` replaces the URL of either.
///
/// Without both, `api_server` alone is asked without credentials. A Pod's token is not sent over plain HTTP.
/// Reads files and speaks to nobody: an API server that is away is found by the first request.
///
/// # Errors
/// `Kubeconfig`, `NotInCluster`, `Url` or `Client`, none of which goes away by waiting.
pub async fn connect(kubeconfig: Option<&Path>, api_server: Option<&str>) -> Result<Client, ClusterError> {
    let url = api_server.map(parse_url).transpose()?;
    let mut config = match (kubeconfig, url) {
        (Some(path), url) => {
            let mut config = read_kubeconfig(path).await?;
            if let Some(url) = url {
                config.cluster_url = url;
            }
            config
        }
        (None, Some(url)) if url.scheme() == Some(&http::uri::Scheme::HTTP) => Config::new(url),
        (None, Some(url)) => match Config::incluster() {
            Ok(mut config) => {
                config.cluster_url = url;
                config
            }
            Err(_) => Config::new(url),
        },
        (None, None) => Config::incluster().map_err(|error| ClusterError::NotInCluster { source: Box::new(error) })?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Whoever asks retries with a backoff of its own and reports each failure.
    config.default_retry = false;
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ClusterError::Client { url, source: ApiFailure::from(error) })
}

async fn read_kubeconfig(path: &Path) -> Result<Config, ClusterError> {
    let wrong = |source| ClusterError::Kubeconfig { path: path.to_owned(), source };
    let read = Kubeconfig::read_from(path).map_err(|error| wrong(Box::new(error)))?;
    Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(|error| wrong(Box::new(error)))
}

fn parse_url(text: &str) -> Result<Uri, ClusterError> {
    let wrong = || ClusterError::Url { url: text.to_owned() };
    let url: Uri = text.trim().parse().map_err(|_| wrong())?;
    let usable = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty());
    if usable { Ok(url) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_needs_scheme_and_host() {
        for text in ["", "10.0.0.1", "10.0.0.1:6443", "ftp://a", "http://", "https:///x", "http://a b"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
        for text in ["http://10.0.0.1:8080", "https://[fd00::1]:6443", " https://api/ "] {
            assert!(parse_url(text).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn kubeconfig_that_is_missing_or_garbage_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("kubeconfig");
        let error = connect(Some(&path), None).await.err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("kubeconfig")), "{error:?}");
        for text in ["", "{", "[]", "apiVersion: v1\nkind: Config\n"] {
            std::fs::write(&path, text).expect("a file");
            let Err(error) = connect(Some(&path), None).await else { panic!("{text:?} was accepted") };
            assert!(matches!(error, ClusterError::Kubeconfig { .. }) && !error.retryable(), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn url_alone_is_enough() {
        connect(None, Some("http://127.0.0.1:1")).await.expect("a client, although nobody listens");
        assert!(matches!(connect(None, Some("nonsense")).await, Err(ClusterError::Url { .. })));
    }
}
