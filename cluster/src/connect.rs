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
    if is_without_tls(&config) {
        // Otherwise the system's certificates are read, and a system without any is refused, for connections that are never
        // made.
        config.root_cert = Some(Vec::new());
    }
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|error| ClusterError::Client { url, source: ApiFailure::from(error) })
}

/// Whether no connection will use TLS, and no certificate was named for one.
fn is_without_tls(config: &Config) -> bool {
    let is_https = |url: &Uri| url.scheme() == Some(&http::uri::Scheme::HTTPS);
    let names_none = config.root_cert.is_none() && config.root_cert_file.is_none();
    names_none && !is_https(&config.cluster_url) && !config.proxy_url.as_ref().is_some_and(is_https)
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

    /// Set in a run of this test within itself, to the URL that it connects to.
    const INNER: &str = "KINESIN_TEST_URL_WITHOUT_CERTIFICATES";

    #[tokio::test]
    async fn plain_http_needs_no_certificates_of_the_system() {
        if let Ok(url) = std::env::var(INNER) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("kubeconfig");
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
                 clusters: [{{name: a, cluster: {{server: \"{url}\"}}}}]\nusers: [{{name: a, user: {{}}}}]\n"
            );
            std::fs::write(&path, text).expect("a file");
            connect(None, Some(&url)).await.expect("by the URL");
            connect(Some(&path), None).await.expect("by a kubeconfig");
            return;
        }
        // Another process, since the environment of this one is that of the other tests too.
        let connects = |url: &str| {
            let mut inner = std::process::Command::new(std::env::current_exe().expect("this program"));
            inner.args(["--exact", "connect::tests::plain_http_needs_no_certificates_of_the_system"]).env(INNER, url);
            // Where the system's certificates are looked for.
            inner.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
            inner.output().expect("it runs")
        };
        let plain = connects("http://127.0.0.1:1");
        assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stdout));
        // The environment does take them away.
        let tls = connects("https://127.0.0.1:1");
        assert!(!tls.status.success() && String::from_utf8_lossy(&tls.stdout).contains("ertificate"), "{tls:?}");
    }

    #[tokio::test]
    async fn url_alone_is_enough() {
        connect(None, Some("http://127.0.0.1:1")).await.expect("a client, although nobody listens");
        assert!(matches!(connect(None, Some("nonsense")).await, Err(ClusterError::Url { .. })));
    }
}
