//! `ipam plan` and `ipam migrate` against an API server in this process, with the real operator. Agents are played: one
//! that starts says the mode of the ConfigMap, unless it is told not to understand it.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Node, Pod},
};
use kinesin_apiserver::{ApiServer, Config};
use kinesin_cluster::CiliumNode;
use kinesin_operator::{Args, Operator};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const NODES: [&str; 3] = ["w1", "w2", "w3"];
const MODE: &str = "ipam.kinesin.io/mode";
const RANGE: &str = "--set cluster-pool-ipv4-cidr=10.9.0.0/24 --set cluster-pool-ipv4-mask-size=28";
const POOL: &str = "--set auto-create-cilium-pod-ip-pools=default=ipv4-cidrs:10.10.0.0/24;ipv4-mask-size:28";

/// Nodes whose agents come back in the mode that they were in.
type Stubborn = Arc<Mutex<BTreeSet<String>>>;

struct Cluster {
    server: ApiServer,
    client: Client,
    dir: TempDir,
    operator: Operator,
    player: JoinHandle<()>,
    stubborn: Stubborn,
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + serde::de::DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &from(object)).await.expect("created");
}

impl Cluster {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let config = Config { listeners: vec![listener], controllers: true, ..Config::default() };
        let server = ApiServer::start(config).await.expect("an API server");
        let url = format!("http://{}", server.local_addrs()[0]);
        let client = kinesin_cluster::connect(None, Some(&url)).await.expect("a client");
        let dir = tempfile::tempdir().expect("a directory");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        });
        fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).expect("a file");
        kinesin_cluster::install_crds(&client).await.expect("definitions");
        fill(&client).await;
        let mount = dir.path().join("config");
        fs::create_dir(&mount).expect("a directory");
        fs::write(mount.join("ipam"), "kubernetes").expect("a key");
        let stubborn = Stubborn::default();
        let player = tokio::spawn(play(client.clone(), mount.clone(), Arc::clone(&stubborn)));
        let flag = format!("--config-dir={}", mount.display());
        let words =
            ["kinesin-operator", "--operator-api-serve-addr=127.0.0.1:0", "--operator-prometheus-serve-addr=", &flag];
        let args: Args = clap::Parser::try_parse_from(words).expect("flags");
        let own = kinesin_cluster::connect(None, Some(&url)).await.expect("a client");
        let operator = Operator::start(own, args.settings().expect("settings")).await.expect("an operator");
        let cluster = Self { server, client, dir, operator, player, stubborn };
        cluster.eventually("agents of the first mode", async || cluster.modes().await == ["kubernetes"; 3]).await;
        cluster
    }

    async fn end(self) {
        self.player.abort();
        self.operator.shutdown().await;
        self.server.shutdown().await;
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kinesin"));
        command
            .args(line.split(' '))
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .env("CILIUM_SOCK", self.dir.path().join("none.sock"));
        command
    }

    async fn run(&self, line: &str) -> Output {
        let mut command = self.command(line);
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it runs")
    }

    async fn well(&self, line: &str) -> String {
        let output = self.run(line).await;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {told}{}", text(&output));
        text(&output)
    }

    /// What is said, of a command that ends by 1.
    async fn refused(&self, line: &str) -> String {
        let output = self.run(line).await;
        assert_eq!(output.status.code(), Some(1), "{line}: {}", text(&output));
        format!("{}{}", text(&output), String::from_utf8_lossy(&output.stderr))
    }

    async fn nodes(&self) -> Vec<CiliumNode> {
        let api: Api<CiliumNode> = Api::all(self.client.clone());
        api.list(&ListParams::default()).await.expect("nodes").items
    }

    async fn modes(&self) -> Vec<String> {
        let nodes = self.nodes().await;
        nodes.iter().map(|node| node.annotations().get(MODE).cloned().unwrap_or_default()).collect()
    }

    async fn config(&self) -> Value {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        json!(maps.get("cilium-config").await.expect("a ConfigMap").data)
    }

    async fn agents(&self) -> BTreeSet<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "kube-system");
        let found = pods.list(&ListParams::default().labels("k8s-app=cilium")).await.expect("pods");
        found.items.iter().filter_map(ResourceExt::uid).collect()
    }

    async fn eventually(&self, what: &str, mut look: impl AsyncFnMut() -> bool) {
        let found = tokio::time::timeout(Duration::from_secs(30), async {
            while !look().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("no {what}"));
    }

    fn stubborn(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.stubborn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Three Nodes with a pod CIDR and two pods each, agents, an operator's Deployment, and the configuration.
async fn fill(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    let cilium: Api<CiliumNode> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    for (name, number) in NODES.into_iter().zip(0..) {
        let cidr = format!("10.244.{number}.0/24");
        create(&nodes, json!({"metadata": {"name": name}, "spec": {"podCIDRs": [cidr], "podCIDR": cidr}})).await;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": null, "lastTransitionTime": null}],
        }});
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
        let object = json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name},
            "spec": {"addresses": [{"type": "CiliumInternalIP", "ip": format!("10.244.{number}.7")}]},
        });
        create(&cilium, object).await;
        for pod in 0..2 {
            let name = format!("{name}-{pod}");
            let containers = json!([{"name": "a", "image": "a"}]);
            let spec = json!({"nodeName": &name[..2], "containers": containers, "terminationGracePeriodSeconds": 0});
            create(&pods, json!({"metadata": {"name": name}, "spec": spec})).await;
            let ip = format!("10.244.{number}.{}", 10 + pod);
            let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.expect("patched");
        }
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    create(&maps, json!({"metadata": {"name": "cilium-config"}, "data": {"ipam": "kubernetes"}})).await;
    let workload = |name: &str, label: &str| {
        let labels = json!({"k8s-app": label});
        json!({
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {"hostNetwork": true, "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 0, "containers": [{"name": "a", "image": "a"}]},
            }},
        })
    };
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), "kube-system");
    create(&sets, workload("cilium", "cilium")).await;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    create(&deployments, workload("cilium-operator", "operator")).await;
}

/// Kubelets and agents: pods run at once and end at once, and an agent says its mode when it starts.
async fn play(client: Client, mount: std::path::PathBuf, stubborn: Stubborn) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let mut started: BTreeSet<String> = BTreeSet::new();
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let (Ok(map), Ok(list)) = (maps.get("cilium-config").await, pods.list(&ListParams::default()).await) else {
            continue;
        };
        let data = map.data.unwrap_or_default();
        mounted(&mount, &data);
        for pod in list.items {
            let name = pod.name_any();
            if pod.metadata.deletion_timestamp.is_some() {
                let _ = pods.delete(&name, &DeleteParams::default().grace_period(0)).await;
                continue;
            }
            let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { continue };
            if !started.insert(pod.uid().unwrap_or_default()) {
                continue;
            }
            let mode = data.get("ipam").cloned().unwrap_or_default();
            let is_stubborn = stubborn.lock().unwrap_or_else(PoisonError::into_inner).contains(&node);
            if pod.labels().get("k8s-app").is_some_and(|label| label == "cilium") && !is_stubborn {
                says(&client, &node, &mode).await;
            }
            let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
            let _ = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        }
    }
}

fn mounted(mount: &Path, data: &std::collections::BTreeMap<String, String>) {
    for (key, value) in data {
        let path = mount.join(key);
        if fs::read_to_string(&path).ok().as_ref() != Some(value) {
            fs::write(&path, value).expect("a key");
        }
    }
}

/// What an agent that starts writes: its mode, its Node's range in `kubernetes`, what it needs in `multi-pool`.
async fn says(client: &Client, name: &str, mode: &str) {
    let nodes: Api<CiliumNode> = Api::all(client.clone());
    let node = nodes.get(name).await.expect("a CiliumNode");
    let ipam = node.spec.ipam.unwrap_or_default();
    let mut cidrs = ipam.pod_cidrs.unwrap_or_default();
    let own = format!("10.244.{}.0/24", NODES.iter().position(|node| *node == name).expect("a node"));
    if mode == "kubernetes" && !cidrs.contains(&own) {
        cidrs.push(own);
    }
    let requested =
        if mode == "multi-pool" { json!([{"pool": "default", "needed": {"ipv4-addrs": 8}}]) } else { json!([]) };
    let patch = json!({
        "metadata": {"annotations": {MODE: mode}},
        "spec": {"ipam": {"podCIDRs": cidrs, "pools": {"requested": requested}}},
    });
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patched");
}

#[tokio::test]
async fn plan_says_what_happens_and_changes_nothing() {
    let cluster = Cluster::start().await;
    let (config, agents) = (cluster.config().await, cluster.agents().await);
    let told = cluster.well(&format!("ipam plan --to cluster-pool {RANGE}")).await;
    for line in [
        "  ipam                          kubernetes -> cluster-pool",
        "w2: kubernetes -> cluster-pool, its agent is restarted, 2 pods keep their addresses",
        "  10.244.1.0/24   kubernetes     drains, 3 addresses in use",
        "  10.9.0.16/28    cluster-pool   new, if it changed now",
        "A change to cluster-pool is possible: 3 nodes to change, 3 in all.",
    ] {
        assert!(told.lines().any(|found| found == line), "{line:?} is not in\n{told}");
    }
    let told = cluster.well(&format!("ipam plan -o json --to multi-pool {POOL}")).await;
    let json: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(
        (&json["possible"], &json["from"], &json["to"]),
        (&json!(true), &json!("kubernetes"), &json!("multi-pool"))
    );
    let node = &json["nodes"][0];
    assert_eq!((&node["name"], &node["step"], &node["pods"]), (&json!("w1"), &json!("restart-agent"), &json!(2)));
    assert_eq!(node["gets"][0], json!({"cidr": "10.10.0.0/28", "mode": "multi-pool", "pool": "default", "in-use": 0}));
    let told = cluster.well("ipam plan --to kubernetes").await;
    assert!(told.ends_with("Every node is in kubernetes; there is nothing to do.\n"), "{told}");
    assert_eq!((cluster.config().await, cluster.agents().await), (config, agents));
    cluster.end().await;
}

#[tokio::test]
async fn what_is_impossible_is_told_with_what_to_change_and_nothing_is_done() {
    let cluster = Cluster::start().await;
    let (config, agents) = (cluster.config().await, cluster.agents().await);
    for (line, words) in [
        (
            "--to cluster-pool --set cluster-pool-ipv4-cidr=10.9.0.0/27 --set cluster-pool-ipv4-mask-size=28",
            "range is full",
        ),
        (
            "--to cluster-pool --set cluster-pool-ipv4-cidr=10.9.0.0/29 --set cluster-pool-ipv4-mask-size=31",
            "no room on w",
        ),
        ("--to cluster-pool --set cluster-pool-ipv4-cidr=192.0.2.0/24", "overlaps 192.0.2.0/32 (node w1)"),
        ("--to multi-pool", "does not exist"),
        ("--to cluster-pool --set cluster-pool-ipv4-cdir=10.9.0.0/16", "did you mean \"cluster-pool-ipv4-cidr\""),
        ("--to cluster-pool --set cluster-pool-ipv4-cidr=10.9.0.0/16,10.9.1.0/24", "overlap"),
        ("--to multi-pool --set auto-create-cilium-pod-ip-pools=default=x:1", "position 9"),
        ("--to multi-pool --set ipam-multi-pool-pre-allocation=x", "preAllocation"),
    ] {
        for what in ["plan", "migrate"] {
            let told = cluster.refused(&format!("ipam {what} {line}")).await;
            assert!(told.contains(words), "{line} does not say {words:?}:\n{told}");
            assert!(told.contains("is impossible"), "{told}");
        }
    }
    let output = cluster.run("ipam plan --to eni").await;
    assert_eq!(output.status.code(), Some(2));
    let allowed = "ipam plan --allow-shortage --to cluster-pool --set cluster-pool-ipv4-cidr=10.9.0.0/29 \
                   --set cluster-pool-ipv4-mask-size=31";
    assert!(cluster.well(allowed).await.contains("note: there is no room on w"));
    assert_eq!((cluster.config().await, cluster.agents().await), (config, agents));
    cluster.end().await;
}

#[tokio::test]
async fn migration_goes_there_and_back_and_does_nothing_twice() {
    let cluster = Cluster::start().await;
    let before = cluster.agents().await;
    let told = cluster.well(&format!("ipam migrate --to cluster-pool {RANGE}")).await;
    assert!(told.contains("[1/3] w1: cluster-pool after ") && told.contains("[3/3] w3: "), "{told}");
    assert!(told.contains("Every node is in cluster-pool.") && told.contains("ipam.mode: cluster-pool"), "{told}");
    assert!(
        told.lines().any(|line| line == "  w1   10.244.0.0/24   kubernetes   drains, 3 addresses in use"),
        "{told}"
    );
    assert_eq!(cluster.modes().await, ["cluster-pool"; 3]);
    assert!(cluster.agents().await.is_disjoint(&before));

    let agents = cluster.agents().await;
    let told = cluster.well("ipam migrate --to cluster-pool").await;
    assert!(!told.contains("[1/") && cluster.agents().await == agents, "{told}");

    let told = cluster.well(&format!("ipam migrate -o json --at-once 2 --to multi-pool {POOL}")).await;
    let report: Value = serde_json::from_str(&told).expect("only the report on stdout");
    assert_eq!((&report["to"], &report["nodes"][2]["mode"]), (&json!("multi-pool"), &json!("multi-pool")));
    let config = cluster.config().await;
    assert_eq!(config["cluster-pool-ipv4-cidr"], "10.9.0.0/24", "what nodes may drain still is served");
    cluster.well("ipam migrate --to kubernetes").await;
    assert_eq!(cluster.modes().await, ["kubernetes"; 3]);
    cluster.end().await;
}

#[tokio::test]
async fn broken_off_migration_is_continued_or_taken_back() {
    let cluster = Cluster::start().await;
    let break_off = async |line: &str, to: &str| {
        let mut child = cluster.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
        cluster.eventually("first node", async || cluster.modes().await.iter().any(|mode| mode == to)).await;
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert!(cluster.modes().await.iter().any(|mode| mode != to), "it was too quick");
    };
    let line = format!("ipam migrate --to cluster-pool {RANGE}");
    // The second one never changes, so that it is broken off in the middle for certain.
    cluster.stubborn().insert("w2".to_owned());
    break_off(&line, "cluster-pool").await;
    let told = cluster.well("ipam migrate --to kubernetes").await;
    assert!(told.contains("w1: kubernetes after "), "{told}");
    assert_eq!(cluster.modes().await, ["kubernetes"; 3]);

    break_off(&line, "cluster-pool").await;
    cluster.stubborn().clear();
    let told = cluster.well(&line).await;
    assert!(told.contains("[2/2] ") && told.contains("w1: is in cluster-pool, 2 pods"), "{told}");
    assert_eq!(cluster.modes().await, ["cluster-pool"; 3]);
    cluster.end().await;
}

#[tokio::test]
async fn agent_that_does_not_change_stops_the_migration_and_is_named() {
    let cluster = Cluster::start().await;
    cluster.stubborn().insert("w2".to_owned());
    let line = format!("ipam migrate --node-timeout 2 --to cluster-pool {RANGE}");
    let told = cluster.refused(&line).await;
    assert!(told.contains("node w2 is not in cluster-pool after 2 s: its agent cilium-"), "{told}");
    assert!(told.contains("run this again") && told.contains("or with the old mode to go back"), "{told}");
    assert_eq!(cluster.modes().await, ["cluster-pool", "kubernetes", "kubernetes"], "the third was left alone");
    cluster.stubborn().clear();
    cluster.well(&line).await;
    cluster.end().await;
}
