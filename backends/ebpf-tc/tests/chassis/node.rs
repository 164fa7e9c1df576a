//! A node: a thread in a network and a mount namespace of its own, with a bpffs, an uplink and a chassis.
//!
//! Both namespaces end with the thread, and with them every device, pin and program, also when a test fails.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{IpAddr, UdpSocket},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use kinesin_core::{
    chassis::{Chassis, ChassisDesired, ChassisError, ChassisReport, Counter, EndpointSpec, NodeSpec},
    config::Section,
    registry::{BuildContext, Registry},
    routing::Path,
    values::{EndpointId, Families},
};
use kinesin_netlink::{NetNs, Netlink, VethSpec};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::pod::Pod;

type Job = Box<dyn FnOnce(&Runtime) + Send>;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// How the chassis attaches its programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ways {
    /// The node's devices by links, endpoints by filters.
    Default,
    Links,
    Filters,
}

impl Ways {
    pub(crate) const ALL: [Self; 3] = [Self::Default, Self::Links, Self::Filters];

    fn endpoint_attach(self) -> &'static str {
        if self == Self::Links { "link" } else { "filter" }
    }

    /// What the chassis says of it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Default => "TCX, endpoints by Legacy TC",
            Self::Links => "TCX",
            Self::Filters => "Legacy TC",
        }
    }

    /// Number of links on a node with one uplink and two pods.
    pub(crate) fn links(self) -> usize {
        match self {
            Self::Default => 2,
            Self::Links => 6,
            Self::Filters => 0,
        }
    }
}

/// A node with its chassis.
pub(crate) struct Node {
    jobs: mpsc::Sender<Job>,
    pub(crate) netns: NetNs,
    directory: TempDir,
    /// What the uplink leads to; it would be gone with its namespace.
    pub(crate) outside: Option<NetNs>,
    pub(crate) number: u8,
    pub(crate) spec: NodeSpec,
    pub(crate) paths: Vec<Path>,
    pub(crate) endpoints: BTreeMap<EndpointId, EndpointSpec>,
    pub(crate) ways: Ways,
    /// `tunnelPath` of the chassis; `auto` at first.
    pub(crate) tunnel_path: &'static str,
    pub(crate) slots: BTreeMap<String, PathBuf>,
    pub(crate) chassis: Arc<dyn Chassis>,
}

impl Node {
    /// Node `number`, whose uplink `eth0` is still to be connected.
    pub(crate) fn new(number: u8, ways: Ways) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        for name in ["bpf", "state"] {
            std::fs::create_dir(directory.path().join(name)).expect("directory");
        }
        let bpffs = directory.path().join("bpf");
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root may make namespaces");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("private mounts");
            mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), none).expect("bpffs");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            ready.send(NetNs::current().expect("namespace")).expect("the test waits");
            for job in inbox {
                job(&runtime);
            }
        });
        let netns = is_ready.recv().expect("the node starts");
        let spec = NodeSpec {
            name: format!("node{number}"),
            families: Families::DUAL,
            addresses: vec![ip(&format!("192.168.10.{}", 100 + number)), ip(&format!("fd00:192:168:10::{number}"))],
            peer_addresses: Vec::new(),
            narrow_peers: BTreeMap::new(),
            router: vec![ip(&format!("10.244.{number}.1")), ip(&format!("fd00:10:244:{number}::1"))],
            pod_cidrs: [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")]
                .map(|cidr| cidr.parse().expect("a network"))
                .to_vec(),
            uplinks: vec!["eth0".to_owned()],
            device_mtu_bytes: 1500,
            route_mtu_bytes: 1500,
            tunnel_ports: vec![8472, 6081],
            underlay: Vec::new(),
            tunnels: Vec::new(),
        };
        let tunnel_path = "auto";
        let chassis = build(&directory, ways, tunnel_path, &BTreeMap::new());
        let (paths, endpoints, slots) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            jobs,
            netns,
            directory,
            outside: None,
            number,
            spec,
            paths,
            endpoints,
            ways,
            tunnel_path,
            slots,
            chassis,
        }
    }

    /// A node whose uplink leads to an empty namespace, with its chassis applied.
    pub(crate) fn alone(ways: Ways) -> Self {
        let node = Self::unapplied(ways);
        node.apply().expect("apply");
        node
    }

    /// The same before the first apply.
    pub(crate) fn unapplied(ways: Ways) -> Self {
        let outside = NetNs::anonymous().expect("namespace");
        let mut node = Self::new(1, ways);
        node.connect(&outside, 1500);
        node.outside = Some(outside);
        node
    }

    /// Gives the node its uplink, whose other end is `eth0` in `outside`.
    pub(crate) fn connect(&self, outside: &NetNs, mtu: u32) {
        let outside = NetNs::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(outside))).expect("open");
        let addresses = self.spec.addresses.clone();
        self.block(move || async move {
            let netlink = Netlink::new().expect("socket");
            if netlink.find_link("eth0").await.expect("list").is_none() {
                let (name, peer_name) = ("eth0", "eth0");
                let pair =
                    VethSpec { name, mac: None, peer_name, peer_mac: None, peer_netns: Some(&outside), mtu: Some(mtu) };
                netlink.add_veth(&pair).await.expect("uplink");
            }
            for name in ["lo", "eth0"] {
                netlink.set_up(netlink.link(name).await.expect("device").index).await.expect("up");
            }
            let index = netlink.link("eth0").await.expect("device").index;
            for address in addresses {
                let length = if address.is_ipv4() { 24 } else { 64 };
                netlink.add_address(index, ipnet::IpNet::new(address, length).expect("length")).await.expect("address");
            }
        });
    }

    /// Runs `work` on the node.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce(&Runtime) -> T + Send + 'static) -> T {
        let (answer, answered) = mpsc::channel();
        let job: Job = Box::new(move |runtime| drop(answer.send(work(runtime))));
        self.jobs.send(job).expect("the node lives");
        answered.recv().expect("the work on the node does not panic")
    }

    /// Runs asynchronous `work` on the node.
    pub(crate) fn block<T, F, W>(&self, work: W) -> T
    where
        T: Send + 'static,
        F: Future<Output = T>,
        W: FnOnce() -> F + Send + 'static,
    {
        self.run(move |runtime| runtime.block_on(work()))
    }

    pub(crate) fn bpffs(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.bpffs().join(format!("kinesin/v{}", kinesin_abi::LAYOUT))
    }

    pub(crate) fn desired(&self) -> ChassisDesired {
        ChassisDesired { node: self.spec.clone(), endpoints: self.endpoints.clone(), paths: self.paths.clone() }
    }

    /// Applies the state, as the agent does: again and again while the kernel was not ready for all of it.
    pub(crate) fn apply(&self) -> Result<ChassisReport, ChassisError> {
        let mut changes = 0;
        for _ in 0..200 {
            let (chassis, desired) = (Arc::clone(&self.chassis), self.desired());
            let mut report = self.block(move || async move { chassis.apply(&desired).await })?;
            changes += report.changes;
            if report.pending.is_empty() {
                report.changes = changes;
                return Ok(report);
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("node {} was not ready within ten seconds", self.number);
    }

    /// Waits until the node may use its addresses: the kernel looks first whether somebody else has one, which takes as long
    /// as the machine is busy.
    pub(crate) fn settle(&self) {
        for address in self.spec.addresses.clone() {
            let is_usable = || self.netns.run(|| UdpSocket::bind((address, 0)).is_ok()).expect("namespace");
            let mut looks = 0..1000;
            while !is_usable() {
                assert!(looks.next().is_some(), "node {} may not use {address}", self.number);
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    pub(crate) fn attach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        let (chassis, endpoint) = (Arc::clone(&self.chassis), endpoint.clone());
        self.block(move || async move { chassis.attach(&endpoint).await })
    }

    pub(crate) fn detach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        let (chassis, endpoint) = (Arc::clone(&self.chassis), endpoint.clone());
        self.block(move || async move { chassis.detach(&endpoint).await })
    }

    pub(crate) fn retire(&self) -> Result<(), ChassisError> {
        let chassis = Arc::clone(&self.chassis);
        self.block(move || async move { chassis.retire().await })
    }

    /// The agent ends and starts again, perhaps with other options; the state is applied by the caller.
    pub(crate) fn restart(&mut self) {
        // Nothing of the old one is touched before the new one's first `apply`, so it holds the lock until it is dropped here.
        self.chassis = build(&self.directory, self.ways, self.tunnel_path, &self.slots);
    }

    /// A second agent on this node.
    pub(crate) fn rival(&self) -> Arc<dyn Chassis> {
        build(&self.directory, self.ways, self.tunnel_path, &self.slots)
    }

    pub(crate) fn counters(&self) -> Vec<Counter> {
        let chassis = Arc::clone(&self.chassis);
        self.block(move || async move { chassis.counters().await }).expect("counters")
    }

    /// Counters of what was dropped.
    pub(crate) fn drops(&self) -> Vec<Counter> {
        self.counters().into_iter().filter(Counter::is_drop).collect()
    }

    /// Packets counted under a reason, both directions together.
    pub(crate) fn counted(&self, reason: u8) -> u64 {
        self.counters().iter().filter(|counter| counter.reason == reason).map(|counter| counter.packets).sum()
    }

    /// A pod with address `number`, attached and up.
    pub(crate) fn pod(&mut self, number: u8) -> Pod {
        let pod = Pod::new(self, number);
        self.attach(&pod.endpoint).expect("attach");
        self.endpoints.insert(pod.endpoint.id, pod.endpoint.clone());
        pod.raise(self);
        pod
    }
}

/// The chassis as the agent gets it: from the registry, by name.
fn build(directory: &TempDir, ways: Ways, tunnel_path: &str, slots: &BTreeMap<String, PathBuf>) -> Arc<dyn Chassis> {
    // The registration exists because the crate is linked.
    assert!(!kinesin_ebpf_tc::OBJECT.is_empty(), "the tests need the kernel programs: ./x build");
    let section = serde_json::json!({
        "slots": slots, "endpointAttach": ways.endpoint_attach(), "tunnelPath": tunnel_path,
    });
    let serde_json::Value::Object(section) = section else { unreachable!("an object was written") };
    let context = BuildContext {
        node_name: "node".to_owned(),
        families: Families::DUAL,
        state_dir: directory.path().join("state"),
        bpffs: directory.path().join("bpf"),
        enable_tcx: ways != Ways::Filters,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new("ebpf", section),
    };
    let registry = Registry::collect().expect("registry");
    (registry.chassis("ebpf").expect("registered").build)(&context).expect("valid options")
}
