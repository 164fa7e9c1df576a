//! Operators against an API server in this process.

use std::{
    fs,
    future::Future,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use kinesin_apiserver::{ApiServer, Config};
use kinesin_cluster::{
    CiliumEndpoint, CiliumNode, EndpointPublication, NodePublication, install_crds, publish_endpoints, publish_node,
};
use kinesin_operator::{IpamSettings, Operator, Settings, Timing};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const LEASE_DURATION: Duration = Duration::from_secs(2);

async fn server() -> (ApiServer, Client, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = ApiServer::start(Config { listeners: vec![listener], ..Config::default() }).await.expect("a server");
    let url = format!("http://{}", server.local_addrs()[0]);
    let client = client(&url).await;
    (server, client, url)
}

async fn client(url: &str) -> Client {
    kinesin_cluster::connect(None, Some(url)).await.expect("a client")
}

fn settings(identity: &str) -> Settings {
    Settings {
        namespace: "kube-system".to_owned(),
        identity: identity.to_owned(),
        timing: Timing { lease: LEASE_DURATION, renew: Duration::from_millis(1800), retry: Duration::from_millis(100) },
        nodes_interval: Some(Duration::from_millis(100)),
        endpoints_interval: Some(Duration::from_millis(100)),
        ipam: IpamSettings::default(),
        config_dir: None,
        grace: Duration::from_millis(500),
        install_crds: true,
        health_address: "127.0.0.1:0".to_owned(),
        metrics_address: Some("127.0.0.1:0".to_owned()),
    }
}

async fn start(url: &str, identity: &str) -> Operator {
    Operator::start(client(url).await, settings(identity)).await.expect("an operator")
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut look: impl FnMut() -> F) {
    let found = tokio::time::timeout(LIMIT, async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what} within {LIMIT:?}"));
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).expect("an object")).await.expect("created");
}

async fn holder(client: &Client) -> String {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = leases.get_opt("cilium-operator-resource-lock").await.ok().flatten();
    lease.and_then(|lease| lease.spec?.holder_identity).unwrap_or_default()
}

/// One GET; blocking, so it is called where that does no harm.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leftovers_are_collected_and_nothing_else() {
    let (server, client, url) = server().await;
    install_crds(&client).await.expect("definitions");
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    create(&nodes, json!({"metadata": {"name": "w1"}})).await;
    create(&pods, json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    for name in ["w1", "gone"] {
        publish_node(&client, &NodePublication { name: name.to_owned(), ..Default::default() })
            .await
            .expect("published");
    }
    let node_ip = "10.0.0.1".parse().expect("an address");
    let endpoint = |name: &str| EndpointPublication {
        namespace: "default".to_owned(),
        pod_name: name.to_owned(),
        pod_uid: String::new(),
        id: 1,
        identity: 5,
        labels: Vec::new(),
        addresses: Vec::new(),
        node_ip,
        container_id: String::new(),
        attachment_id: String::new(),
        state: "ready".to_owned(),
    };
    publish_endpoints(&client, node_ip, &[endpoint("a"), endpoint("gone")]).await.expect("published");

    let operator = start(&url, "one").await;
    let begun = Instant::now();
    let cilium_nodes: Api<CiliumNode> = Api::all(client.clone());
    let endpoints: Api<CiliumEndpoint> = Api::namespaced(client.clone(), "default");
    eventually("collection", async || {
        cilium_nodes.get_opt("gone").await.expect("an answer").is_none()
            && endpoints.get_opt("gone").await.expect("an answer").is_none()
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "the grace was not kept");
    // Those with an owner stay for as long as they have it.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert!(cilium_nodes.get_opt("w1").await.expect("an answer").is_some());
    assert!(endpoints.get_opt("a").await.expect("an answer").is_some());
    let metrics = get(operator.metrics_address().expect("a port"), "/metrics");
    assert!(metrics.contains("kinesin_operator_gc_deleted_total{kind=\"CiliumNode\"} 1\n"), "{metrics}");
    assert!(metrics.contains("kinesin_operator_gc_deleted_total{kind=\"CiliumEndpoint\"} 1\n"), "{metrics}");
    assert!(metrics.contains("kinesin_operator_leader 1\n"), "{metrics}");
    nodes.delete("w1", &DeleteParams::default()).await.expect("deleted");
    eventually("collection of w1", async || cilium_nodes.get_opt("w1").await.expect("an answer").is_none()).await;
    operator.shutdown().await;
    assert_eq!(holder(&client).await, "", "the lease is given back");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_another_takes_over_when_it_is_killed() {
    let (server, client, url) = server().await;
    let first = start(&url, "first").await;
    eventually("leader", async || first.leads()).await;
    let second = start(&url, "second").await;
    // Longer than the lease: it is renewed.
    for _ in 0..30 {
        assert!(first.leads() && !second.leads());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(holder(&client).await, "first");
    drop(first);
    let killed = Instant::now();
    eventually("successor", async || second.leads()).await;
    let took = killed.elapsed();
    assert!(took >= LEASE_DURATION - Duration::from_millis(300), "{took:?}: the claim of the dead one still held");
    assert_eq!(holder(&client).await, "second");
    // One that stops in order gives its claim back, so that nobody has to wait for its end.
    let third = start(&url, "third").await;
    second.shutdown().await;
    let holder = holder(&client).await;
    assert!(["", "third"].contains(&holder.as_str()), "{holder} still holds the lease");
    eventually("next leader", async || third.leads()).await;
    third.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_without_its_api_server_stops_leading_and_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let config =
        |listener| Config { listeners: vec![listener], data_dir: Some(dir.path().to_owned()), ..Config::default() };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    // It is away at the start. Between the end of a term and that of the lease is time enough for a busy machine.
    let mut settings = settings("one");
    settings.timing.lease = Duration::from_secs(20);
    let operator =
        Operator::start(self::client(&format!("http://{address}")).await, settings).await.expect("an operator");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!operator.leads());
    assert!(get(operator.health_address(), "/healthz").ends_with("\r\nok"), "a restart would not help");
    let listener = TcpListener::bind(address).expect("the port");
    let server = ApiServer::start(config(listener)).await.expect("a server");
    eventually("leader", async || operator.leads()).await;
    server.shutdown().await;
    let away = Instant::now();
    eventually("end of the term", async || !operator.leads()).await;
    assert!(away.elapsed() < Duration::from_secs(20), "{:?}: another may lead by now", away.elapsed());
    let listener = TcpListener::bind(address).expect("the port");
    let server = ApiServer::start(config(listener)).await.expect("a server");
    eventually("leader again", async || operator.leads()).await;
    operator.shutdown().await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_gives_the_lease_back_on_sigterm() {
    let (server, client, url) = server().await;
    let dir = tempfile::tempdir().expect("a directory");
    let kubeconfig = dir.path().join("kubeconfig");
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    });
    fs::write(&kubeconfig, content.to_string()).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_kinesin-operator"))
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .args(["--identity=binary", "--operator-api-serve-addr=127.0.0.1:0", "--operator-prometheus-serve-addr="])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    eventually("leader", async || holder(&client).await == "binary").await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    let output = tokio::task::spawn_blocking(move || {
        let status = child.wait();
        let (mut out, mut log) = (String::new(), String::new());
        let _ = child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut out));
        let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut log));
        (status, out, log)
    });
    let (status, out, log) = tokio::time::timeout(LIMIT, output).await.expect("in time").expect("no panic");
    assert!(status.expect("a status").success(), "{log}");
    assert_eq!(out, "", "logs go to stderr");
    assert!(log.contains("SIGTERM"), "{log}");
    assert_eq!(holder(&client).await, "");
    server.shutdown().await;
}

#[test]
fn binary_names_what_is_wrong_with_its_flags() {
    let run = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinesin-operator"));
        let output = command.args(flags).env_remove("KUBERNETES_SERVICE_HOST").output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (flags, expected) in [
        (&["--kubeconfig=/nonexistent/file"][..], "/nonexistent/file"),
        (&["--k8s-api-server=nonsense"], "nonsense"),
        (&["--k8s-api-server=http://127.0.0.1:1", "--operator-api-serve-addr=1.2.3.4.5:1"], "operator-api-serve-addr"),
        (&["--k8s-api-server=http://127.0.0.1:1", "--leader-election-retry-period=10s"], "retry-period"),
        (&["--gc-grace=soon"], "write it as 15s"),
        (&[], "give a kubeconfig"),
    ] {
        let (success, text) = run(flags);
        assert!(!success && text.contains(expected), "{flags:?}: {text}");
    }
}
