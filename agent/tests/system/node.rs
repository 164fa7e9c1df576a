//! A node for one test: its namespaces, its directories, its agent.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_agent_api::{
    Client, ClientError,
    types::{State, StatusResponse},
};
use kinesin_netlink::{Link, NetNs, Netlink, Route, VethSpec};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Name of the node in Kubernetes.
pub(crate) const NAME: &str = "n1";
/// Where the API server is, seen from the node.
pub(crate) const API: &str = "127.0.0.1:6443";
/// The node's addresses on its uplink.
pub(crate) const ADDRESSES: [&str; 2] = ["192.168.10.100", "fd00:192:168:10::100"];
/// Far more than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What makes a namespace of mounts a node's: the holder keeps it, and ends by itself should the test be killed.
const HOLD: &str = "set -e
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /var/run/cilium
echo ready
exec sleep 600";

/// A program of the same build as this test or example.
pub(crate) fn built(name: &str) -> PathBuf {
    let own = env::current_exe().expect("procfs");
    // Tests lie in `deps/`, examples in `examples/`; both directories are beside the programs.
    let path = own.parent().and_then(Path::parent).expect("a build directory").join(name);
    assert!(path.exists(), "{path:?} is missing: build it first with `./x build` or `cargo build -p {name}`");
    path
}

/// One node.
pub(crate) struct Node {
    pub(crate) netns: Arc<NetNs>,
    pub(crate) directory: TempDir,
    pub(crate) runtime: Runtime,
    holder: Child,
    agent: Option<Child>,
    /// What is at the other end of the uplink.
    pub(crate) world: NetNs,
}

impl Node {
    /// A node without an agent yet.
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("runtime");
        let netns = NetNs::anonymous().expect("root may make namespaces");
        let world = NetNs::anonymous().expect("root may make namespaces");
        runtime.block_on(connect(&netns, &world));
        let mut hold = Command::new("unshare");
        hold.args(["--mount", "--propagation", "private", "sh", "-c", HOLD]).stdout(Stdio::piped());
        let mut holder = netns.run(|| hold.spawn()).expect("enter").expect("unshare (util-linux) is installed");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("the holder speaks");
        assert_eq!(line, "ready\n", "the mounts of the node are not made");
        let directory = tempfile::tempdir().expect("directory");
        Self { netns: Arc::new(netns), directory, runtime, holder, agent: None, world }
    }

    /// A program on the node.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let namespaces = format!("/proc/{}/ns", self.holder.id());
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount={namespaces}/mnt")).arg(format!("--net={namespaces}/net")).arg("--");
        command.arg(program.as_ref()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs a line of shell on the node.
    pub(crate) fn shell(&self, line: &str) {
        let output = self.command("sh").args(["-ec", line]).output().expect("run");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A file of the node as the test can open it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        // An absolute link, which /var/run is on most machines, would lead out of the node.
        let inside = inside.replacen("/var/run", "/run", 1);
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.id()))
    }

    /// The agent with the usual flags and `extra` ones.
    pub(crate) fn agent_command(&self, extra: &[&str]) -> Command {
        let cni = self.directory.path().join("net.d/05-cilium.conflist");
        let mut command = self.command(built("kinesin-agent"));
        command
            .arg(format!("--k8s-node-name={NAME}"))
            .arg(format!("--k8s-api-server=http://{API}"))
            .arg(format!("--write-cni-conf-when-ready={}", cni.display()))
            .arg("--enable-ipv6=true")
            .args(extra);
        command
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("agent.log")
    }

    /// Everything that agents have said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts the agent, and takes this for the moment of its start.
    pub(crate) fn start(&mut self) -> Instant {
        self.start_with(self.agent_command(&[]))
    }

    /// Starts an agent of other flags.
    pub(crate) fn start_with(&mut self, mut command: Command) -> Instant {
        assert!(self.agent.is_none(), "an agent runs already");
        let log: File = OpenOptions::new().create(true).append(true).open(self.log()).expect("log");
        let started = Instant::now();
        self.agent = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("nsenter"));
        started
    }

    /// Runs an agent that is expected to refuse; the answer is what it said.
    pub(crate) fn refused(&self, mut command: Command) -> String {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("nsenter");
        let ended = wait(&mut child, PATIENCE);
        if ended.is_none() {
            let _ = child.kill();
        }
        let output = child.wait_with_output().expect("output");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(ended.is_some_and(|status| status.code() == Some(1)), "{ended:?}: {said}");
        said
    }

    /// Number of the agent's process.
    pub(crate) fn pid(&self) -> u32 {
        // `nsenter` becomes the program that it starts.
        self.agent.as_ref().expect("an agent runs").id()
    }

    /// Ends the agent as nobody can prepare for.
    pub(crate) fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Ends the agent as Kubernetes does; the answer is how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().expect("an agent runs");
        kill(Pid::from_raw(i32::try_from(agent.id()).expect("a pid")), Signal::SIGTERM).expect("asked");
        wait(&mut agent, PATIENCE).unwrap_or_else(|| {
            let _ = agent.kill();
            let _ = agent.wait();
            panic!("the agent does not end")
        })
    }

    /// Whether the agent still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| agent.try_wait().expect("wait").is_none())
    }

    /// The agent's socket.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.path("/var/run/cilium/cilium.sock")).with_timeout(Duration::from_secs(10))
    }

    /// `GET /v1{path}`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        self.runtime.block_on(self.client().get(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What `status` says, if the agent answers.
    pub(crate) fn asked(&self) -> Result<StatusResponse, ClientError> {
        self.runtime.block_on(self.client().get("/healthz"))
    }

    /// What `status` says, once the agent answers and `wanted` holds of it.
    pub(crate) fn status_when(&mut self, what: &str, wanted: impl Fn(&StatusResponse) -> bool) -> StatusResponse {
        let until = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < until {
            assert!(self.runs(), "the agent has ended while it should become {what}");
            match self.asked() {
                Ok(status) if wanted(&status) => return status,
                Ok(status) => last = format!("{status:?}"),
                Err(error) => last = error.to_string(),
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the agent does not become {what}: {last}");
    }

    /// Waits until the agent serves ADD.
    pub(crate) fn ready(&mut self) -> StatusResponse {
        self.status_when("ready", |status| status.cilium.state == State::Ok)
    }

    /// The node's devices.
    pub(crate) fn links(&self) -> Vec<Link> {
        self.links_of(&self.netns)
    }

    /// The devices of a pod.
    pub(crate) fn links_of(&self, netns: &NetNs) -> Vec<Link> {
        self.runtime.block_on(async { Netlink::in_netns(netns).expect("socket").links().await.expect("links") })
    }

    /// Names of files in a directory of the node; none if it does not exist.
    pub(crate) fn files(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        if thread::panicking() {
            let said = self.said();
            let lines: Vec<_> = said.lines().collect();
            eprintln!("--- the agent said last:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Waits for `child` at most this long.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `done` holds.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gives the node an uplink, which ends in `world`.
async fn connect(netns: &NetNs, world: &NetNs) {
    let node = Netlink::in_netns(netns).expect("socket");
    let spec =
        VethSpec { name: "eth0", mac: None, peer_name: "eth0", peer_mac: None, peer_netns: Some(world), mtu: None };
    node.add_veth(&spec).await.expect("uplink");
    let other = Netlink::in_netns(world).expect("socket");
    other.set_up(other.link("eth0").await.expect("its end").index).await.expect("up");
    node.set_up(node.link("lo").await.expect("lo").index).await.expect("up");
    let uplink = node.link("eth0").await.expect("uplink").index;
    node.set_up(uplink).await.expect("up");
    for (address, everything, gateway) in
        [("192.168.10.100/24", "0.0.0.0/0", "192.168.10.1"), ("fd00:192:168:10::100/64", "::/0", "fd00:192:168:10::1")]
    {
        node.add_address(uplink, address.parse().expect("an address")).await.expect("address");
        let everything: IpNet = everything.parse().expect("a network");
        let via = Some(gateway.parse().expect("an address"));
        node.replace_route(&Route { via, ..Route::new(everything, uplink, 4) }).await.expect("route");
    }
}
