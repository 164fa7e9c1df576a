//! A server in this process, and a client for it.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kinesin_apiserver::{ApiServer, Config, PodCidrRange};
use kube::Client;
use serde_json::{Value, json};

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

/// A server with all its controllers, in memory.
pub(crate) async fn cluster() -> Result<Cluster> {
    cluster_in(None).await
}

pub(crate) async fn cluster_in(data_dir: Option<PathBuf>) -> Result<Cluster> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = ApiServer::start(Config {
        listeners: vec![listener],
        data_dir,
        pod_cidrs: vec![
            PodCidrRange { cidr: "10.244.0.0/16".parse()?, node_prefix: 24 },
            PodCidrRange { cidr: "fd00:10:244::/48".parse()?, node_prefix: 64 },
        ],
        controllers: true,
    })
    .await?;
    let url = format!("http://{}", server.local_addrs()[0]);
    let mut config = kube::Config::new(url.parse()?);
    // Refusals are what these tests look at.
    config.default_retry = false;
    config.default_namespace = "default".to_owned();
    Ok(Cluster { client: Client::try_from(config)?, server })
}

impl Cluster {
    /// Sends a request as it is; the answer is its code and its body.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<(u16, Value)> {
        self.raw_with(method, path, &[("content-type", content_type)], body).await
    }

    pub(crate) async fn raw_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<(u16, Value)> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.client.send(request.body(body.into().into())?).await?;
        let code = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

/// Asks again until it is so; what is asked last is in the error.
pub(crate) async fn until<T, F, Fut>(what: &str, ask: F) -> Result<T>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await.with_context(|| what.to_owned())? {
            return Ok(answer);
        }
        if start.elapsed() > Duration::from_secs(15) {
            bail!("not within 15 s: {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A deployment of a name with so many replicas of an image.
pub(crate) fn deployment(name: &str, replicas: u32, image: &str) -> k8s_openapi::api::apps::v1::Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    }))
    .expect("a deployment")
}
