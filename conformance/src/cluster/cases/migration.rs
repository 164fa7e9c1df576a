//! From one IPAM mode to another under traffic, by the command that a user gives.
//!
//! Each hop begins with pods of the old mode under traffic. The mode changes, new pods come, traffic starts among them,
//! the old pods go, and the old mode drains, router and health endpoint with it; then the new ones are the old ones of the
//! next hop, whose traffic has seen both the draining before and the change after.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use kinesin_lab::Families;
use serde_json::Value;

use super::addresses::{all_blocks, blocks, node_cidrs, reach_each_other};
use crate::{
    cluster::{
        case::Scale,
        context::Context,
        own::OwnLab,
        place::{Place, every_protocol, failures},
        traffic::Traffic,
        verdict::{Judged, Stop, told},
        worker::Count,
    },
    target::NodeInfo,
};

/// Nothing but a mode to begin with: everything else is said by the command.
pub(in crate::cluster) const LAB: OwnLab = OwnLab {
    name: "migration",
    ipam: "host_scope",
    nodes: 2,
    segments: 1,
    families: Families::Dual,
    values: "
ipam:
  mode: kubernetes
",
};

const KUBERNETES: &str = "kubernetes";
const CLUSTER_POOL: &str = "cluster-pool";
const MULTI_POOL: &str = "multi-pool";
/// The ranges of the modes that take blocks from ranges.
const RANGES: [&str; 5] = [
    "cluster-pool-ipv4-cidr=10.61.0.0/16",
    "cluster-pool-ipv4-mask-size=26",
    "cluster-pool-ipv6-cidr=fd00:10:61::/112",
    "cluster-pool-ipv6-mask-size=122",
    "auto-create-cilium-pod-ip-pools=default=ipv4-cidrs:10.62.0.0/16;ipv4-mask-size:26;\
     ipv6-cidrs:fd00:10:62::/112;ipv6-mask-size:122",
];
/// Through all three modes.
const DAILY: [&str; 3] = [MULTI_POOL, CLUSTER_POOL, KUBERNETES];
/// Every change from one to another.
const FULL: [&str; 6] = [MULTI_POOL, CLUSTER_POOL, KUBERNETES, CLUSTER_POOL, MULTI_POOL, KUBERNETES];
/// Annotation by which an agent says which mode it is in.
const MODE: &str = "ipam.kinesin.io/mode";
const LOOK: Duration = Duration::from_millis(10);
/// How long half a migration may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections from nodes to pods: those to own pods are from the router's address, with a tunnel all of them.
const FROM_ROUTER: usize = 4;

/// No pod's address changes, no connection breaks, nothing is lost, new pods are of the new mode, and of the old one
/// nothing is left when its pods are gone. One change is broken off and taken back, another is broken off and continued.
pub(in crate::cluster) fn under_traffic(context: &Context<'_>) -> Judged {
    let two = context.two_nodes();
    let nodes = context.node_places(&two)?;
    let route: &[&str] = if context.scale.kills < Scale::FULL.kills { &DAILY } else { &FULL };
    let mut journey = Journey { context, two: &two, nodes: &nodes, hop: 0, lost: Count::default(), took: Vec::new() };
    let old = context.start_on(&two, KUBERNETES, 2)?;
    let traffic = Traffic::start(context, &pairs(&old, &nodes)?, context.scale.connections)?;
    journey.go(KUBERNETES, &old, traffic, route)?;
    let took: Vec<String> = journey.took.iter().map(|took| format!("{:.1}", took.as_secs_f64())).collect();
    Ok(format!("{} changes of two nodes, in {} s: {}", route.len(), took.join(" + "), journey.lost))
}

/// Flows on one node, across, and from pods to either node; none from the router's address, which must be free to move.
fn pairs<'a>(pods: &'a [Place], nodes: &'a [Place]) -> Result<[(&'a Place, &'a Place); 6], Stop> {
    let ([a, b, c, d], [na, nb]) = (pods, nodes) else { return Err(Stop::broken("places are missing")) };
    Ok([(a, b), (a, c), (d, b), (d, na), (b, na), (c, nb)])
}

struct Journey<'a> {
    context: &'a Context<'a>,
    two: &'a [NodeInfo],
    nodes: &'a [Place],
    hop: usize,
    lost: Count,
    took: Vec<Duration>,
}

impl Journey<'_> {
    /// The rest of the route, from a mode with pods and traffic among them.
    fn go(&mut self, from: &str, old: &[Place], traffic: Traffic<'_>, route: &[&str]) -> Result<(), Stop> {
        let Some((to, rest)) = route.split_first() else {
            self.lost.add(traffic.judge()?);
            return Ok(());
        };
        let context = self.context;
        let ([na, nb], [_, _, _, d]) = (self.nodes, old) else { return Err(Stop::broken("places are missing")) };
        let before: Vec<BTreeSet<IpAddr>> = old.iter().map(|place| place.ips.iter().copied().collect()).collect();
        let by_router = Traffic::start(context, &[(nb, d), (na, d)], FROM_ROUTER)?;

        let plan = self.plan(to)?;
        if plan["possible"] != true || plan["nodes"].as_array().map(Vec::len) != Some(self.two.len()) {
            return Err(Stop::broken(format!("the plan from {from} to {to} is {plan}")));
        }
        let mut between = Vec::new();
        match self.hop {
            0 => {
                self.break_off(to)?;
                between = self.mixed()?;
                self.migrate(from)?;
                self.all_in(from)?;
            }
            1 => {
                self.break_off(to)?;
                between = self.mixed()?;
            }
            _ => {}
        }
        let begun = Instant::now();
        self.migrate(to)?;
        self.took.push(begun.elapsed());
        self.all_in(to)?;
        self.lost.add(by_router.judge()?);
        self.lost.add(traffic.judge()?);

        let names: Vec<(String, String)> = self.names(old);
        let now = context.list()?;
        for ((name, _), ips) in names.iter().zip(&before) {
            let pod = now.iter().find(|pod| pod.metadata.name.as_ref() == Some(name));
            let found = pod.into_iter().flat_map(|pod| pod.status.iter()).flat_map(|s| s.pod_ips.iter().flatten());
            let found: BTreeSet<IpAddr> = found.filter_map(|ip| ip.ip.parse().ok()).collect();
            if found != *ips {
                return Err(Stop::broken(format!("{name} had {ips:?} in {from} and has {found:?} in {to}")));
            }
        }
        let new = context.start_on(self.two, &format!("{to}-{}", self.hop), 2)?;
        self.lie_in(to, &new)?;
        let next = Traffic::start(context, &pairs(&new, self.nodes)?, context.scale.connections)?;
        ask_all(context, old, &new)?;

        // What the node holds by its old router address goes on while the router moves, and what it begins then as well.
        let held = Traffic::start(context, &[(nb, &new[3]), (na, &new[3])], FROM_ROUTER)?;
        let leaving: Vec<String> = names.into_iter().map(|(name, _)| name).chain(between).collect();
        context.delete(&leaving)?;
        self.router_moved(to)?;
        self.lost.add(held.judge()?);
        self.drained(to)?;
        ask_all(context, self.nodes, &new)?;
        self.hop += 1;
        self.go(to, &new, next, rest)
    }

    /// Names and nodes of pods that the context has started.
    fn names(&self, places: &[Place]) -> Vec<(String, String)> {
        let name = |place: &Place| place.name.split(' ').next().unwrap_or_default().to_owned();
        places.iter().map(|place| (name(place), place.node.clone())).collect()
    }

    fn command(&self, words: &[&str]) -> Result<Command, Stop> {
        let mut command = self.context.target.program()?;
        command.arg("ipam").args(words);
        for range in RANGES {
            command.args(["--set", range]);
        }
        Ok(command)
    }

    fn plan(&self, to: &str) -> Result<Value, Stop> {
        let output = self.command(&["plan", "-o", "json", "--to", to])?.output();
        let output = output.map_err(|error| Stop::target(&error))?;
        serde_json::from_slice(&output.stdout).map_err(|_| refused(&format!("ipam plan --to {to}"), &output))
    }

    fn migrate(&self, to: &str) -> Result<(), Stop> {
        let output = self.command(&["migrate", "--to", to])?.output().map_err(|error| Stop::target(&error))?;
        if output.status.success() { Ok(()) } else { Err(refused(&format!("ipam migrate --to {to}"), &output)) }
    }

    /// Begins to migrate, and kills the command when the first node of two has changed.
    fn break_off(&self, to: &str) -> Result<(), Stop> {
        let mut command = self.command(&["migrate", "--to", to])?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| Stop::target(&error))?;
        let until = Instant::now() + PATIENCE;
        let seen = loop {
            let modes = self.modes();
            let has_changed = modes.as_ref().is_ok_and(|modes| modes.iter().any(|mode| mode == to));
            if has_changed || Instant::now() > until {
                break modes;
            }
            thread::sleep(LOOK);
        };
        // It may have ended by itself, which the modes tell.
        let _ = child.kill();
        child.wait().map_err(|error| Stop::target(&error))?;
        let modes = seen?;
        if modes.iter().any(|mode| mode == to) && modes.iter().any(|mode| mode != to) {
            return Ok(());
        }
        Err(Stop::broken(format!("a change to {to} could not be broken off half-way: nodes are in {modes:?}")))
    }

    /// While nodes are in different modes, pods start on each and reach each other; their names.
    fn mixed(&self) -> Result<Vec<String>, Stop> {
        let pods = self.context.start_on(self.two, &format!("mixed-{}", self.hop), 1)?;
        reach_each_other(self.context, &pods)?;
        Ok(self.names(&pods).into_iter().map(|(name, _)| name).collect())
    }

    fn modes(&self) -> Result<Vec<String>, Stop> {
        let mode = |node: &NodeInfo| {
            let object = self.context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", &node.name)?;
            Ok(object["metadata"]["annotations"][MODE].as_str().unwrap_or_default().to_owned())
        };
        self.two.iter().map(mode).collect()
    }

    fn all_in(&self, mode: &str) -> Result<(), Stop> {
        let modes = self.modes()?;
        if modes.iter().all(|found| found == mode) {
            return Ok(());
        }
        Err(Stop::broken(format!("after ipam migrate --to {mode} nodes are in {modes:?}")))
    }

    /// The blocks that a node lists for a mode.
    fn blocks_of(&self, mode: &str, node: &str) -> Result<Vec<IpNet>, Stop> {
        let of_node = node_cidrs(self.context, node)?;
        let lists = |range: &str| range.parse::<IpNet>().map_err(|error| Stop::target(&error));
        let (v4, v6) = if mode == CLUSTER_POOL {
            (lists("10.61.0.0/16")?, lists("fd00:10:61::/112")?)
        } else {
            (lists("10.62.0.0/16")?, lists("fd00:10:62::/112")?)
        };
        let all = all_blocks(self.context, node)?;
        let is_of_mode = |block: &IpNet| match mode {
            KUBERNETES => of_node.contains(block),
            _ => v4.contains(block) || v6.contains(block),
        };
        Ok(all.into_iter().filter(is_of_mode).collect())
    }

    fn lie_in(&self, mode: &str, pods: &[Place]) -> Result<(), Stop> {
        for pod in pods {
            let blocks = self.blocks_of(mode, &pod.node)?;
            if let Some(ip) = pod.ips.iter().find(|ip| !blocks.iter().any(|block| block.contains(*ip))) {
                return Err(Stop::broken(format!("{ip} of {pod} is not of {mode}, which has {blocks:?} there")));
            }
        }
        Ok(())
    }

    /// Addresses of a node's own of the given kinds that are of another mode, and how many there are in all.
    fn strangers(&self, mode: &str, node: &str, with_health: bool) -> Result<(Vec<IpAddr>, usize), Stop> {
        let own = self.blocks_of(mode, node)?;
        let object = self.context.read("cilium.io/v2", "CiliumNode", "ciliumnodes", node)?;
        let spec = &object["spec"];
        let router = spec["addresses"].as_array().into_iter().flatten();
        let router = router.filter(|entry| entry["type"] == "CiliumInternalIP").map(|entry| &entry["ip"]);
        let health = [&spec["health"]["ipv4"], &spec["health"]["ipv6"]].into_iter().filter(|_| with_health);
        let ips: Vec<IpAddr> = router.chain(health).filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        let count = ips.len();
        Ok((ips.into_iter().filter(|ip| !own.iter().any(|block| block.contains(ip))).collect(), count))
    }

    /// Until nodes say a router address of this mode.
    fn router_moved(&self, mode: &str) -> Result<(), Stop> {
        for node in self.two {
            self.context.until(&format!("the router of {} to be of {mode}", node.name), || {
                let (strange, count) = self.strangers(mode, &node.name, false)?;
                let is_done = strange.is_empty() && count == self.context.families().len();
                Ok(if is_done { Ok(()) } else { Err(format!("{strange:?} of {count}")) })
            })?;
        }
        Ok(())
    }

    /// Until nodes list nothing of another mode, and have their own addresses of this one.
    fn drained(&self, mode: &str) -> Result<(), Stop> {
        for node in self.two {
            self.context.until(&format!("{} to have nothing but {mode}", node.name), || {
                let all = blocks(self.context, &node.name)?;
                let own = self.blocks_of(mode, &node.name)?;
                let others: Vec<&IpNet> = all.values().flatten().filter(|block| !own.contains(block)).collect();
                let (strange, count) = self.strangers(mode, &node.name, true)?;
                let is_done = others.is_empty() && strange.is_empty() && count == 2 * self.context.families().len();
                Ok(if is_done { Ok(()) } else { Err(format!("blocks {others:?}, addresses {strange:?} of {count}")) })
            })?;
        }
        Ok(())
    }
}

/// Everybody of the one side asks everybody of the other, and the other way round.
fn ask_all(context: &Context<'_>, some: &[Place], others: &[Place]) -> Result<(), Stop> {
    let mut questions = Vec::new();
    for (one, other) in some.iter().flat_map(|one| others.iter().map(move |other| (one, other))) {
        for is_ipv4 in context.families() {
            questions.extend(every_protocol(one, other, is_ipv4, context.random(), 64));
            questions.extend(every_protocol(other, one, is_ipv4, context.random(), 64));
        }
    }
    told(&failures(&questions)?, questions.len()).map(drop)
}

fn refused(what: &str, output: &Output) -> Stop {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    Stop::broken(format!("{what} ends by {}:\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr)))
}
