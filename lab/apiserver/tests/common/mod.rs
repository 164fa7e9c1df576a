//! A server in this process, clients for it, and a stand-in for kubelets.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kinesin_apiserver::{ApiServer, Config, PodCidrRange};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

pub struct Cluster {
    pub server: ApiServer,
    pub client: Client,
    pub url: String,
}

/// A server with all its controllers, in memory.
pub async fn cluster() -> Result<Cluster> {
    cluster_in(None).await
}

pub async fn cluster_in(data_dir: Option<PathBuf>) -> Result<Cluster> {
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
    Ok(Cluster { client: Client::try_from(config)?, server, url })
}

impl Cluster {
    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    /// A node that says it is ready, with an annotation for its kubelet where one is given.
    pub async fn node(&self, name: &str, kubelet: Option<&str>) -> Result<()> {
        let mut node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        if let Some(socket) = kubelet {
            node["metadata"]["annotations"] = json!({"lab.kinesin.io/kubelet-socket": socket});
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        Ok(())
    }

    /// Does as kubelets do, until it is dropped: assigned pods run, deleted ones go.
    pub fn kubelet(&self) -> Kubelet {
        let client = self.client.clone();
        Kubelet(tokio::spawn(async move {
            let mut next = 1_u32;
            loop {
                if let Err(error) = kubelet_pass(&client, &mut next).await {
                    eprintln!("kubelet: {error:#}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }))
    }

    /// Sends a request as it is; the answer is its code and its body.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<(u16, Value)> {
        self.raw_with(method, path, &[("content-type", content_type)], body).await
    }

    pub async fn raw_with(
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

pub struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn kubelet_pass(client: &Client, next: &mut u32) -> Result<()> {
    let all: Api<Pod> = Api::all(client.clone());
    for pod in all.list(&ListParams::default()).await? {
        let (name, namespace) = (pod.name_any(), pod.namespace().unwrap_or_default());
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let is_assigned = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        let is_running = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
        if pod.metadata.deletion_timestamp.is_some() && is_assigned {
            let _ = pods
                .delete(&name, &kube::api::DeleteParams { grace_period_seconds: Some(0), ..Default::default() })
                .await;
        } else if is_assigned && !is_running {
            *next += 1;
            let ip = format!("10.244.{}.{}", *next / 200, *next % 200 + 1);
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}],
                "containerStatuses": pod.spec.iter().flat_map(|s| &s.containers).map(|c| json!({
                    "name": c.name, "image": c.image, "imageID": "", "ready": true, "restartCount": 0, "started": true,
                    "state": {"running": {"startedAt": "2024-01-01T00:00:00Z"}}})).collect::<Vec<_>>()}});
            let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await;
        }
    }
    Ok(())
}

/// Asks again until it is so; what is asked last is in the error.
pub async fn until<T, F, Fut>(what: &str, ask: F) -> Result<T>
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
pub fn deployment(name: &str, replicas: u32, image: &str) -> k8s_openapi::api::apps::v1::Deployment {
    serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    }))
    .expect("a deployment")
}
