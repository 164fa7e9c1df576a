//! A node for one test: its namespace, its directory, its agent, and the plugin run in it.

use std::{
    io::Write,
    net::{IpAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{Command, Stdio, id},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use kinesin_netlink::{Link, NetNs, Netlink, Route, RouteScope};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fake_agent::FakeAgent;

/// Container id that tests use unless they need two.
pub(crate) const CONTAINER: &str = "d0146b59d6be4c9e7fdd3e2d1fbba7b999d4c8bddf99f9248168bea00062d0d8";

/// One node.
pub(crate) struct Node {
    pub(crate) netns: Arc<NetNs>,
    pub(crate) agent: Option<FakeAgent>,
    pub(crate) directory: TempDir,
    runtime: Runtime,
}

/// What the plugin answered.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The answer, which must be one JSON value and nothing else.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Demands success and returns the result; null when there is none.
    pub(crate) fn ok(&self) -> Value {
        assert!(self.success, "{self:?}");
        if self.stdout.is_empty() { Value::Null } else { self.json() }
    }

    /// Demands an error answer of this code and returns message and details.
    pub(crate) fn error(&self, code: u32) -> String {
        assert!(!self.success, "{self:?}");
        let answer = self.json();
        assert_eq!(answer["code"], code, "{answer}");
        assert!(answer["cniVersion"].is_string(), "{answer}");
        format!("{}; {}", answer["msg"].as_str().expect("msg"), answer["details"].as_str().unwrap_or_default())
    }
}

impl Node {
    /// A node with an agent.
    pub(crate) fn new() -> Self {
        let mut node = Self::without_agent();
        node.start_agent();
        node
    }

    /// A node whose agent does not run.
    pub(crate) fn without_agent() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let netns = Arc::new(NetNs::anonymous().expect("root may make namespaces"));
        Self { netns, agent: None, directory: tempfile::tempdir().expect("directory"), runtime }
    }

    pub(crate) fn start_agent(&mut self) {
        self.agent = Some(FakeAgent::start(&self.socket(), Arc::clone(&self.netns)));
    }

    /// The agent dies; its socket's file stays, as after a kill.
    pub(crate) fn stop_agent(&mut self) {
        self.agent = None;
    }

    pub(crate) fn agent(&self) -> &FakeAgent {
        self.agent.as_ref().expect("the agent runs")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("cilium.sock")
    }

    /// Files that wait in the delete queue.
    pub(crate) fn queued(&self) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.directory.path().join("deleteQueue")) else { return Vec::new() };
        let paths = entries.map(|entry| entry.expect("entry").path());
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "delete")).collect()
    }

    /// Runs the plugin in the node's namespace with exactly this environment and stdin.
    pub(crate) fn run(&self, env: &[(&str, &str)], stdin: &[u8]) -> Outcome {
        self.run_program(env!("CARGO_BIN_EXE_kinesin-cni").as_ref(), env, stdin)
    }

    pub(crate) fn run_program(&self, program: &std::path::Path, env: &[(&str, &str)], stdin: &[u8]) -> Outcome {
        let run = || {
            let mut command = Command::new(program);
            command.env_clear().env("CILIUM_SOCK", self.socket()).envs(env.iter().copied());
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("the plugin starts");
            // A plugin that refuses early may close its end before everything is written.
            let _ = child.stdin.take().expect("piped").write_all(stdin);
            child.wait_with_output().expect("output")
        };
        let output = self.netns.run(run).expect("enter the node");
        Outcome {
            success: output.status.code() == Some(0),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// Runs a command for `eth0` of [`CONTAINER`] in `pod`, with a configuration of 1.1.0 and `extra` keys.
    pub(crate) fn command(&self, command: &str, pod: &str, extra: Value) -> Outcome {
        let args = format!(
            "K8S_POD_INFRA_CONTAINER_ID={CONTAINER};K8S_POD_UID=u-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"
        );
        let env = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", CONTAINER),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", pod),
            ("CNI_ARGS", &args),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        self.run(&env, &config(extra))
    }

    pub(crate) fn links(&self, netns: &NetNs) -> Vec<Link> {
        self.runtime.block_on(async { Netlink::in_netns(netns).expect("socket").links().await.expect("links") })
    }

    /// Names of the host ends on the node.
    pub(crate) fn host_ends(&self) -> Vec<String> {
        self.links(&self.netns).into_iter().map(|link| link.name).filter(|name| name.starts_with("lxc")).collect()
    }

    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Makes the node answer for the gateways, and opens a connection from the pod to each.
    pub(crate) fn connect_from(&self, pod: &NetNs, result: &Value) -> usize {
        let ips = result["ips"].as_array().expect("ips");
        let host = result["interfaces"][0]["name"].as_str().expect("name");
        for ip in ips {
            let address: IpNet = ip["address"].as_str().expect("address").parse().expect("address");
            let gateway: IpAddr = ip["gateway"].as_str().expect("gateway").parse().expect("gateway");
            self.block_on(async {
                let node = Netlink::in_netns(&self.netns).expect("socket");
                node.set_up(1).await.expect("lo");
                let link = node.link(host).await.expect("host end");
                node.add_address(link.index, IpNet::from(gateway)).await.expect("gateway");
                let route = Route { scope: RouteScope::Link, ..Route::new(address, link.index, 4) };
                node.replace_route(&route).await.expect("route");
            });
            let listener = self.netns.run(|| TcpListener::bind((gateway, 0)).expect("listen")).expect("enter");
            let server = listener.local_addr().expect("address");
            let stream = pod.run(|| TcpStream::connect_timeout(&server, Duration::from_secs(5))).expect("enter");
            let stream = stream.unwrap_or_else(|error| panic!("{address} to {gateway}: {error}"));
            assert_eq!(stream.local_addr().expect("address").ip(), address.addr());
        }
        ips.len()
    }
}

/// A pod's namespace and the path under which the plugin finds it.
pub(crate) fn pod() -> (NetNs, String) {
    let netns = NetNs::anonymous().expect("root may make namespaces");
    let path = format!("/proc/{}/fd/{}", id(), netns.as_raw_fd());
    (netns, path)
}

/// A configuration of 1.1.0 with `extra` keys over it.
pub(crate) fn config(extra: Value) -> Vec<u8> {
    let mut config = json!({"cniVersion": "1.1.0", "name": "cilium", "type": "cilium-cni"});
    for (key, value) in extra.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config.to_string().into_bytes()
}
