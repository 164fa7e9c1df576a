//! The binary where there is no agent: it asks the Kubernetes API by kubeconfig.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Output},
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::ConfigMap,
};
use kinesin_apiserver::{ApiServer, Config};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Cluster {
    server: ApiServer,
    client: Client,
    dir: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let config = Config { listeners: vec![listener], controllers: false, ..Config::default() };
        let server = ApiServer::start(config).await.expect("an API server");
        let url = format!("http://{}", server.local_addrs()[0]);
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        });
        fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).expect("a file");
        let client = Client::try_from(kube::Config::new(url.parse().expect("a URL"))).expect("a client");
        Self { server, client, dir }
    }

    async fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinesin"));
        command
            .args(line.split(' '))
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .env("CILIUM_SOCK", self.dir.path().join("none.sock"));
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
    }

    async fn workloads(&self, ready: i32) {
        let selector = json!({"matchLabels": {"k8s-app": "cilium"}});
        let template = json!({
            "metadata": {"labels": {"k8s-app": "cilium"}},
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        });
        let spec = json!({"selector": selector, "template": template});
        let sets: Api<DaemonSet> = Api::namespaced(self.client.clone(), "kube-system");
        create(&sets, json!({"metadata": {"name": "cilium"}, "spec": spec})).await;
        let counts = json!({
            "desiredNumberScheduled": 3, "currentNumberScheduled": 3, "numberMisscheduled": 0,
            "numberReady": ready, "numberAvailable": ready,
        });
        set_status(&sets, "cilium", counts).await;
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "kube-system");
        create(&deployments, json!({"metadata": {"name": "cilium-operator"}, "spec": spec})).await;
        set_status(&deployments, "cilium-operator", json!({"readyReplicas": 1, "availableReplicas": 1})).await;
    }
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("created");
}

async fn set_status<K>(api: &Api<K>, name: &str, status: Value)
where
    K: kube::Resource + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &patch).await.expect("patched");
}

fn stdout(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[tokio::test]
async fn config_view_prints_the_config_map_sorted() {
    let cluster = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-system");
    let data = json!({"routing-mode": "native", "ipam": "kubernetes", "enable-ipv4": "true"});
    create(&maps, json!({"metadata": {"name": "cilium-config"}, "data": data})).await;
    let expected = "enable-ipv4     true\nipam            kubernetes\nrouting-mode    native\n";
    assert_eq!(stdout(&cluster.run("config view").await), expected);
    let json: Value = serde_json::from_str(&stdout(&cluster.run("config view -o json").await)).expect("JSON");
    assert_eq!(json, data);
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn status_counts_the_workloads() {
    let cluster = Cluster::start().await;
    cluster.workloads(3).await;
    let output = cluster.run("status").await;
    let expected = "\
DaemonSet       cilium            Desired: 3, Ready: 3/3, Available: 3/3
Deployment      cilium-operator   Desired: 1, Ready: 1/1, Available: 1/1
Cluster Pods:                     0/0 have an address
";
    assert_eq!(stdout(&output), expected);
    assert!(output.status.success());
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn status_of_a_starting_cluster_exits_with_one() {
    let cluster = Cluster::start().await;
    let output = cluster.run("status").await;
    assert!(stdout(&output).starts_with("DaemonSet       cilium            not installed\n"), "{}", stdout(&output));
    assert_eq!(output.status.code(), Some(1));
    cluster.workloads(2).await;
    let output = cluster.run("status --brief").await;
    assert_eq!(stdout(&output), "error in cluster: not everything is ready\n");
    assert_eq!(output.status.code(), Some(1));
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn missing_config_map_is_named() {
    let cluster = Cluster::start().await;
    let output = cluster.run("config view").await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("Error: cannot get ConfigMap kube-system/cilium-config: "), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
    cluster.server.shutdown().await;
}
