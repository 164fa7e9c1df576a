//! A lab as a target: it can do everything, but for what depends on its settings.

mod inside;

use std::{
    fmt, fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_agent_api::types::StatusResponse;
use kinesin_core::{causes::with_causes, values::Families};
use kinesin_lab::{Lab, LabError, Process, Silent, Spec, UPLINK};
use kinesin_netlink::{NetNs, Netlink, NetlinkError, Route, RouteScope};
use kube::{Client, api::DeleteParams};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use super::{
    Inside, NodeInfo, PodInfo, Target, TargetCapability,
    agents::{self, PATIENCE},
};
use crate::cluster::{
    Stop,
    combination::lay_over,
    worker::{Hands, LocalHands},
};

const LOOK: Duration = Duration::from_millis(20);
/// How long an agent may take to say how it is.
const ANSWER: Duration = Duration::from_secs(1);
/// `RTPROT_STATIC`: set by whoever runs the network.
const STATIC: u8 = 4;
/// Where a lab's agents are.
const SYSTEM: &str = "kube-system";

/// A lab that is up, with its runtime.
pub struct LabTarget {
    spec: Spec,
    lab: Lab,
    client: Client,
    runtime: Runtime,
    also: Vec<TargetCapability>,
}

impl LabTarget {
    /// Brings the lab up, or heals it; `also` is what it can do because of its settings.
    ///
    /// # Errors
    /// The lab's.
    pub fn up(spec: Spec, also: &[TargetCapability]) -> Result<Self, LabError> {
        let runtime = runtime()?;
        let lab = runtime.block_on(Lab::up(&spec, &Silent))?;
        Self::with(spec, lab, runtime, also)
    }

    /// Takes a lab that is up, without a look at it.
    ///
    /// # Errors
    /// The lab's.
    pub fn open(spec: Spec, also: &[TargetCapability]) -> Result<Self, LabError> {
        let lab = Lab::open(&spec.base, &spec.name)?;
        Self::with(spec, lab, runtime()?, also)
    }

    fn with(spec: Spec, lab: Lab, runtime: Runtime, also: &[TargetCapability]) -> Result<Self, LabError> {
        // The client's tasks belong to the runtime in which it is made.
        let client = runtime.block_on(async { lab.client() })?;
        Ok(Self { spec, lab, client, runtime, also: also.to_vec() })
    }

    fn node(&self, name: &str) -> Result<kinesin_lab::Node, Stop> {
        // Read again, since a restarted node has another holder.
        let lab = Lab::open(&self.spec.base, &self.spec.name).map_err(|error| Stop::target(&error))?;
        lab.node(name).map_err(|error| Stop::target(&error))
    }

    /// Every agent's process.
    fn agents(&self) -> Result<Vec<Process>, Stop> {
        let mut agents = Vec::new();
        for node in self.nodes() {
            let processes = self.node(&node.name)?.processes().map_err(|error| Stop::target(&error))?;
            let is_agent = |line: &str| line.split(' ').next().is_some_and(|word| word.ends_with("kinesin-agent"));
            agents.extend(processes.into_iter().filter(|(_, line)| is_agent(line)).map(|(process, _)| process));
        }
        Ok(agents)
    }

    /// Until every agent is another than those before and has the ways to all other nodes.
    fn settle(&self, before: &[Process]) -> Result<(), Stop> {
        let nodes = self.nodes();
        let until = Instant::now() + PATIENCE;
        loop {
            let agents = self.agents()?;
            let old = agents.iter().filter(|agent| before.contains(agent)).count();
            let working = nodes.iter().filter(|node| self.works(&node.name, nodes.len() - 1)).count();
            // Whoever deletes a pod whose container is just being started may see two for a moment.
            if old == 0 && agents.len() == nodes.len() && working == nodes.len() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Stop::broken(format!(
                    "{} s later {} agents run on {} nodes, {old} of them the old ones, and {working} know every node",
                    PATIENCE.as_secs(),
                    agents.len(),
                    nodes.len(),
                )));
            }
            thread::sleep(LOOK);
        }
    }

    fn works(&self, node: &str, peers: usize) -> bool {
        let Ok(socket) =
            self.node(node).and_then(|node| node.path("/run/cilium/cilium.sock").map_err(|error| Stop::target(&error)))
        else {
            return false;
        };
        let agent = kinesin_agent_api::Client::new(socket).with_timeout(ANSWER);
        let status = self.runtime.block_on(agent.get::<StatusResponse>("/healthz"));
        status.is_ok_and(|status| {
            status.routing.peers == peers && status.controllers.iter().all(|found| found.consecutive_errors == 0)
        })
    }

    fn heal(&self) -> Result<(), Stop> {
        let up = self.runtime.block_on(Lab::up(&self.spec, &Silent));
        up.map(drop).map_err(|error| Stop::broken(with_causes(&error)))
    }

    /// The network namespace on the pod's node that has the pod's addresses.
    fn netns_of(&self, pod: &PodInfo) -> Result<NetNs, String> {
        let dir = self.node(&pod.node).map_err(|stop| stop.to_string())?.path("/run/netns");
        let dir = dir.map_err(|error| with_causes(&error))?;
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            // One that is just being removed is nobody's any more.
            let Ok(netns) = NetNs::open(entry.path()) else { continue };
            let addresses = self.runtime.block_on(async { Netlink::in_netns(&netns)?.addresses().await });
            let has = |addresses: &[(u32, ipnet::IpNet)]| {
                pod.ips.iter().all(|ip| addresses.iter().any(|(_, net)| net.addr() == *ip))
            };
            if !pod.ips.is_empty() && addresses.is_ok_and(|addresses| has(&addresses)) {
                return Ok(netns);
            }
        }
        Err(format!("no network namespace on {} has the addresses {:?} of {}", pod.node, pod.ips, pod.name))
    }
}

/// One values file over another.
fn laid_over(base: &str, over: &str) -> Result<String, Stop> {
    let parse = |text: &str| serde_yaml_ng::from_str::<Value>(text).map_err(|error| Stop::target(&error));
    let mut values = parse(base)?;
    lay_over(&mut values, &parse(over)?);
    Ok(values.to_string())
}

fn runtime() -> Result<Runtime, LabError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|source| LabError::Io { action: "start the runtime of a target".to_owned(), source })
}

impl fmt::Debug for LabTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lab {}", self.spec.name)
    }
}

impl Target for LabTarget {
    fn kind(&self) -> &'static str {
        "lab"
    }

    fn can(&self, what: TargetCapability) -> bool {
        match what {
            TargetCapability::TwoNodes => self.spec.nodes > 1,
            TargetCapability::SmallPodRanges
            | TargetCapability::NodePodCidrs
            | TargetCapability::GivenPodCidrs
            | TargetCapability::OwnLab => self.also.contains(&what),
            TargetCapability::RestartAgent
            | TargetCapability::KillAgent
            | TargetCapability::ReachInside
            | TargetCapability::RestartNode
            | TargetCapability::ChangeMtu => true,
        }
    }

    fn families(&self) -> Families {
        Families { v4: self.spec.families.ipv4(), v6: self.spec.families.ipv6() }
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        let info = |node: kinesin_lab::Node| NodeInfo { name: node.name().to_owned(), ips: node.addresses().to_vec() };
        // Read again, since a node may have moved.
        let nodes = Lab::open(&self.spec.base, &self.spec.name).map_or_else(|_| self.lab.nodes(), |lab| lab.nodes());
        nodes.into_iter().map(info).collect()
    }

    fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    /// It only has to be there: the sockets are opened from outside.
    fn container(&self) -> Value {
        json!({"image": "nicolaka/netshoot", "command": ["sleep", "infinity"]})
    }

    fn pod_hands(&self, pod: &PodInfo) -> Result<Box<dyn Hands>, String> {
        Ok(Box::new(LocalHands::new(self.netns_of(pod)?, self.runtime.handle().clone())))
    }

    fn node_hands(&self, node: &str) -> Result<Option<Box<dyn Hands>>, String> {
        let netns = self.node(node).map_err(|stop| stop.to_string())?.netns().map_err(|error| with_causes(&error))?;
        Ok(Some(Box::new(LocalHands::new(netns, self.runtime.handle().clone()))))
    }

    fn ask_agent(&self, node: &str, words: &[&str]) -> Result<String, Stop> {
        agents::ask(self.runtime.handle(), &self.client, SYSTEM, node, words)
    }

    fn configure(&self, values: &str) -> Result<(), Stop> {
        let spec = Spec { values: laid_over(&self.spec.values, values)?, ..self.spec.clone() };
        let up = self.runtime.block_on(Lab::up(&spec, &Silent));
        up.map(drop).map_err(|error| Stop::broken(with_causes(&error)))
    }

    fn program(&self) -> Result<std::process::Command, Stop> {
        let mut command = std::process::Command::new(self.spec.bin_dir.join("kinesin"));
        command.arg("--kubeconfig").arg(self.lab.layout().kubeconfig());
        Ok(command)
    }

    fn inside(&self) -> Option<&dyn Inside> {
        Some(self)
    }

    fn restart_agents(&self) -> Result<(), Stop> {
        let before = self.agents()?;
        agents::restart(self.runtime.handle(), &self.client, SYSTEM)?;
        self.settle(&before)
    }

    /// A kubelet starts a container again at once the first time and lets it wait the next; so the pod of an agent that
    /// was killed before is deleted as well, and another one takes its place.
    fn kill_agents(&self) -> Result<(), Stop> {
        let before = self.agents()?;
        let pods = agents::list(self.runtime.handle(), &self.client, SYSTEM)?;
        for agent in &before {
            agent.kill().map_err(|error| Stop::target(&error))?;
        }
        for pod in pods {
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let restarts: i32 = containers.map(|container| container.restart_count).sum();
            let (true, Some(name)) = (restarts > 0, pod.metadata.name) else { continue };
            let now = DeleteParams::default().grace_period(0);
            let deleted = self.runtime.block_on(agents::api(&self.client, SYSTEM).delete(&name, &now));
            deleted.map_err(|error| Stop::target(&error))?;
        }
        self.settle(&before)
    }

    fn restart_node(&self, node: &str) -> Result<(), Stop> {
        let lost = self.end_node(node)?;
        self.heal()?;
        self.settle(&lost)
    }

    fn move_node(&self, node: &str, meanwhile: &dyn Fn() -> Result<(), Stop>) -> Result<(), Stop> {
        let lost = self.end_node(node)?;
        let moved = Lab::open(&self.spec.base, &self.spec.name).and_then(|mut lab| lab.move_node(node));
        moved.map_err(|error| Stop::target(&error))?;
        // Whatever it says, the node is needed by whoever comes next.
        let done = meanwhile();
        self.heal()?;
        self.settle(&lost)?;
        done
    }

    fn set_network_routes(&self, routes: &[(IpNet, Option<IpAddr>)]) -> Result<(), Stop> {
        let router = self.lab.underlay_netns().map_err(|error| Stop::target(&error))?;
        self.runtime.block_on(set_routes(&router, routes)).map_err(|error| Stop::target(&error))
    }

    fn set_way_mtu(&self, nodes: &[IpAddr], mtu_bytes: Option<u32>) -> Result<(), Stop> {
        let router = self.lab.underlay_netns().map_err(|error| Stop::target(&error))?;
        self.runtime.block_on(set_ways(&router, nodes, mtu_bytes)).map_err(|error| Stop::target(&error))
    }

    fn set_mtu(&self, node: &str, mtu_bytes: u32) -> Result<u32, Stop> {
        let netns = self.node(node)?.netns().map_err(|error| Stop::target(&error))?;
        self.runtime.block_on(set_mtu(&netns, UPLINK, mtu_bytes)).map_err(|error| Stop::target(&error))
    }

    fn set_carried(&self, node: &str, bytes: u32) -> Result<u32, Stop> {
        let underlay = self.lab.underlay_netns().map_err(|error| Stop::target(&error))?;
        self.runtime.block_on(set_mtu(&underlay, node, bytes)).map_err(|error| Stop::target(&error))
    }
}

impl LabTarget {
    /// Ends a node as a loss of power does; the answer are its processes.
    fn end_node(&self, node: &str) -> Result<Vec<Process>, Stop> {
        let there = self.node(node)?;
        let holder = there.holder().ok_or_else(|| Stop::broken(format!("{node} is down already")))?;
        let lost: Vec<Process> =
            there.processes().map_err(|error| Stop::target(&error))?.into_iter().map(|(process, _)| process).collect();
        holder.kill().map_err(|error| Stop::target(&error))?;
        let until = Instant::now() + PATIENCE;
        while holder.is_alive() {
            if Instant::now() > until {
                return Err(Stop::broken(format!("the holder of {node} does not end")));
            }
            thread::sleep(LOOK);
        }
        Ok(lost)
    }
}

/// Routes of the router, by the device of the segment that the next hop is on.
async fn set_routes(router: &NetNs, routes: &[(IpNet, Option<IpAddr>)]) -> Result<(), NetlinkError> {
    let netlink = Netlink::in_netns(router)?;
    let addresses = netlink.addresses().await?;
    let there = netlink.routes().await?;
    for (network, via) in routes {
        let Some(via) = via else {
            for old in there.iter().filter(|route| route.dst == *network && route.protocol == STATIC) {
                netlink.delete_route(old).await?;
            }
            continue;
        };
        // A next hop that is on none of its segments is refused by the kernel, which names it.
        let segment = addresses.iter().find(|(_, net)| net.contains(via)).map_or(0, |(device, _)| *device);
        netlink.replace_route(&Route { via: Some(*via), ..Route::new(*network, segment, STATIC) }).await?;
    }
    Ok(())
}

/// Routes of the router to single nodes, by which it carries less than its devices would. A forwarding kernel takes account of
/// an IPv6 route's MTU only if that is locked, which is more than routes here can be (`ip6_dst_mtu_maybe_forward`, Linux 6.18).
async fn set_ways(router: &NetNs, nodes: &[IpAddr], mtu_bytes: Option<u32>) -> Result<(), NetlinkError> {
    let netlink = Netlink::in_netns(router)?;
    let addresses = netlink.addresses().await?;
    let there = netlink.routes().await?;
    for node in nodes.iter().filter(|node| node.is_ipv4()) {
        let network = IpNet::from(*node);
        let segment = addresses.iter().find(|(_, net)| net.contains(node)).map_or(0, |(device, _)| *device);
        match mtu_bytes {
            Some(_) => {
                let direct = Route { scope: RouteScope::Link, ..Route::new(network, segment, STATIC) };
                netlink.replace_route(&Route { mtu: mtu_bytes, ..direct }).await?;
            }
            None => {
                for old in there.iter().filter(|route| route.dst == network && route.protocol == STATIC) {
                    netlink.delete_route(old).await?;
                }
            }
        }
    }
    Ok(())
}

/// The answer is what it was before.
async fn set_mtu(netns: &NetNs, device: &str, mtu_bytes: u32) -> Result<u32, NetlinkError> {
    let netlink = Netlink::in_netns(netns)?;
    let link = netlink.link(device).await?;
    netlink.set_mtu(link.index, mtu_bytes).await?;
    Ok(link.mtu)
}
