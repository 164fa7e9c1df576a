//! What a change of the mode would do, node by node; pure.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    config::Config,
    values::{Families, Family},
};
use kinesin_ipam_blocks::Mode;
use kinesin_multi_pool::{Config as MultiPoolOptions, Settings as MultiPool};
use kinesin_operator::{
    IpamSettings,
    forecast::{Cluster, Forecast, Given, Needs, Wish, blocks_of},
};
use serde::Serialize;

use super::{
    change::{self, Change},
    facts::{Facts, PodFacts},
};

/// What would happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Plan {
    /// The mode that nodes of the cluster are configured to be in now; empty if that is refused.
    pub(super) from: String,
    pub(super) to: String,
    /// Whether it can be done.
    pub(super) possible: bool,
    /// Keys of `cilium-config` that change.
    pub(super) config: Vec<Change>,
    pub(super) nodes: Vec<NodePlan>,
    /// Why it cannot be done, and what to change; those of single nodes are with the nodes.
    pub(super) problems: Vec<String>,
    /// What to know before.
    pub(super) warnings: Vec<String>,
}

/// What would happen to one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NodePlan {
    pub(super) name: String,
    /// The mode that its agent prefers now; empty if it says none.
    pub(super) mode: String,
    pub(super) step: Step,
    /// Pods with an address.
    pub(super) pods: usize,
    /// Blocks of other modes that addresses of are in use: they stay for as long as that.
    pub(super) drains: Vec<Block>,
    /// Blocks of other modes without an address in use: they are given back.
    pub(super) gives_back: Vec<Block>,
    /// Blocks of the new mode that it has already.
    pub(super) keeps: Vec<Block>,
    /// Blocks of the new mode that it would get if it changed now.
    pub(super) gets: Vec<Block>,
    /// Why it cannot change, and what to do about it.
    pub(super) problems: Vec<String>,
}

/// What is done with one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// It is in the mode already.
    #[default]
    Nothing,
    /// Its agent is started again, with the new configuration.
    RestartAgent,
    /// Its agent is not ready: it is waited for, and started again if it comes up in another mode.
    AwaitAgent,
}

/// A block, and how many of its addresses are in use on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Block {
    pub(super) cidr: String,
    pub(super) mode: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) pool: String,
    pub(super) in_use: usize,
}

/// The settings under which nodes would get their blocks.
struct After {
    families: Families,
    operator: IpamSettings,
    multi_pool: MultiPool,
}

impl After {
    fn of(config: &Config) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let options = config.section("multi_pool").parse::<MultiPoolOptions>().map_err(|error| told(&error))?;
        Ok(Self {
            families: config.families,
            operator: IpamSettings::of(config).map_err(|error| format!("{error:#}"))?,
            multi_pool: options.validate().map_err(|error| told(&error))?,
        })
    }

    /// What a node asks for when it comes into the mode, before any pod has an address of it.
    fn first_needs(&self, to: Mode) -> Needs {
        let pools = self.multi_pool.pre_allocation.keys().filter(|_| to == Mode::MultiPool);
        let of_pool = |pool: &String| {
            let pool = pool.clone();
            let needs = self.families.iter().map(move |family| (pool.clone(), family));
            needs.collect::<Vec<_>>()
        };
        let needs = pools.flat_map(of_pool);
        needs.map(|key| (key.clone(), self.multi_pool.wanted(&key.0, 0))).collect()
    }

    /// Addresses that a node's pods and its own would have if all of them were of the mode.
    fn whole_needs(&self, to: Mode, pods: &[PodFacts], own: &[IpAddr]) -> Needs {
        let mut needs = Needs::new();
        let pool_of = |pod: Option<&PodFacts>, family: Family| match to {
            Mode::MultiPool => {
                let named = pod.and_then(|pod| pod.pools.get(&family)).cloned();
                named.unwrap_or_else(|| self.multi_pool.default_pool.clone())
            }
            _ => String::new(),
        };
        let of_pods = pods.iter().flat_map(|pod| pod.ips.iter().map(move |ip| (Some(pod), ip)));
        for (pod, ip) in of_pods.chain(own.iter().map(|ip| (None, ip))) {
            let family = Family::of(ip);
            if self.families.contains(family) {
                *needs.entry((pool_of(pod, family), family)).or_default() += 1;
            }
        }
        needs
    }
}

/// The plan.
pub(super) fn plan(facts: &Facts, to: Mode, settings: &[(String, String)], allow_shortage: bool) -> Plan {
    let now = change::load(&facts.config);
    let configured = now.as_ref().ok().and_then(mode_of);
    let modes: Vec<Mode> = facts.cluster.nodes().values().filter_map(|view| view.mode).chain(configured).collect();
    let ranges = to == Mode::ClusterPool || modes.contains(&Mode::ClusterPool);
    let config = change::changes(&facts.config, to, settings, ranges);
    let mut plan = Plan {
        from: configured.map(|mode| mode.to_string()).unwrap_or_default(),
        to: to.to_string(),
        config,
        ..Plan::default()
    };
    if facts.agents.is_empty() {
        plan.problems.push(format!(
            "there are no agents, which are Pods with the label {} in namespace {}; name their namespace by --namespace",
            crate::cluster::AGENT_SELECTOR,
            facts.namespace
        ));
    }
    if let (Ok(config), None) = (&now, configured) {
        plan.warnings.push(format!(
            "the configured IPAM backend {:?} is none of kubernetes, cluster-pool and multi-pool",
            config.selection.ipam
        ));
    }
    if to != Mode::Kubernetes && !facts.has_operator {
        plan.problems.push(format!(
            "there is no Deployment {} in namespace {}, and in {to} it gives nodes their blocks; install it",
            crate::cluster::OPERATOR,
            facts.namespace
        ));
    }
    plan.nodes = nodes(facts, to, configured);
    let after = change::load(&change::after(&facts.config, &plan.config)).and_then(|config| After::of(&config));
    match after {
        Ok(after) => look_ahead(facts, to, &after, allow_shortage, &mut plan),
        Err(reason) => plan.problems.push(format!("the configuration would be refused: {reason}")),
    }
    let without: Vec<&str> =
        facts.cluster.hosts().map(|name| &**name).filter(|name| !facts.agents.contains_key(*name)).collect();
    if !without.is_empty() {
        plan.warnings.push(format!("nodes without an agent are left alone: {}", without.join(", ")));
    }
    plan.possible = plan.problems.is_empty() && plan.nodes.iter().all(|node| node.problems.is_empty());
    plan
}

/// The mode of a configuration; nothing if it is one of somebody else's.
fn mode_of(config: &Config) -> Option<Mode> {
    let all = [Mode::Kubernetes, Mode::ClusterPool, Mode::MultiPool];
    all.into_iter().find(|mode| super::backend_of(*mode) == config.selection.ipam)
}

/// Every node with an agent: what it has, and what is done with it.
fn nodes(facts: &Facts, to: Mode, configured: Option<Mode>) -> Vec<NodePlan> {
    let node = |(name, agent): (&String, &super::agents::Agent)| {
        let view = facts.cluster.nodes().get(name.as_str());
        let said = view.and_then(|view| view.mode);
        let step = match said.or_else(|| view.and(configured)) {
            Some(mode) if mode == to && agent.trouble.is_none() => Step::Nothing,
            Some(mode) if mode == to => Step::AwaitAgent,
            _ => Step::RestartAgent,
        };
        let blocks = blocks(&facts.cluster, name, &addresses(facts, name));
        let of = |is_of_mode: bool, in_use: Option<bool>| -> Vec<Block> {
            let found = blocks.iter().filter(|(mode, block)| {
                (*mode == to) == is_of_mode && in_use.is_none_or(|in_use| (block.in_use > 0) == in_use)
            });
            found.map(|(_, block)| block.clone()).collect()
        };
        NodePlan {
            name: name.clone(),
            mode: said.map(|mode| mode.to_string()).unwrap_or_default(),
            step,
            pods: facts.pods.get(name).map_or(0, Vec::len),
            drains: of(false, Some(true)),
            gives_back: of(false, Some(false)),
            keeps: of(true, None),
            ..NodePlan::default()
        }
    };
    facts.agents.iter().map(node).collect()
}

/// Addresses in use on a node: pods', router's and health's.
fn addresses(facts: &Facts, node: &str) -> Vec<IpAddr> {
    let pods = facts.pods.get(node).into_iter().flatten().flat_map(|pod| pod.ips.iter().copied());
    pods.chain(facts.own.get(node).into_iter().flatten().copied()).collect()
}

/// The blocks that a node lists, with the addresses that are in use of each. One that lies in another has the address.
pub(super) fn blocks(cluster: &Cluster, node: &str, addresses: &[IpAddr]) -> Vec<(Mode, Block)> {
    let Some(view) = cluster.nodes().get(node) else { return Vec::new() };
    let host = cluster.host_cidrs(node);
    let all = [Mode::Kubernetes, Mode::ClusterPool, Mode::MultiPool];
    let listed: Vec<(Mode, Given)> = all
        .into_iter()
        .flat_map(|mode| blocks_of(view, mode, host).into_iter().map(move |block| (mode, block)))
        .collect();
    let home = |ip: &IpAddr| {
        let around = listed.iter().filter(|(_, block)| block.cidr.contains(ip));
        around.map(|(_, block)| block.cidr).max_by_key(IpNet::prefix_len)
    };
    let in_use = |cidr: IpNet| addresses.iter().filter(|ip| home(ip) == Some(cidr)).count();
    listed.iter().map(|(mode, block)| (*mode, of_given(*mode, block, in_use(block.cidr)))).collect()
}

fn of_given(mode: Mode, given: &Given, in_use: usize) -> Block {
    Block { cidr: given.cidr.to_string(), mode: mode.to_string(), pool: given.pool.clone(), in_use }
}

/// What the operator would do, and whether everything that runs would have room.
fn look_ahead(facts: &Facts, to: Mode, after: &After, allow_shortage: bool, plan: &mut Plan) {
    let names: Vec<String> = plan.nodes.iter().map(|node| node.name.clone()).collect();
    let first = after.first_needs(to);
    let wish = Wish { mode: to, needs: names.iter().map(|name| (name.clone(), first.clone())).collect() };
    let forecast = facts.cluster.forecast(&after.operator, &wish);
    judge_ranges(to, &forecast, plan);
    let whole = names.iter().map(|name| {
        let pods = facts.pods.get(name).map_or(&[][..], Vec::as_slice);
        let own = facts.own.get(name).map_or(&[][..], Vec::as_slice);
        (name.clone(), after.whole_needs(to, pods, own))
    });
    let whole = Wish { mode: to, needs: whole.collect() };
    let full = facts.cluster.forecast(&after.operator, &whole);
    for node in &mut plan.nodes {
        let outlook = forecast.nodes.get(&node.name).cloned().unwrap_or_default();
        node.gets = outlook.fresh.iter().map(|block| of_given(to, block, 0)).collect();
        let lacks = outlook.lacks.clone();
        node.problems.extend(lacks);
        if node.problems.is_empty() && facts.cluster.nodes().contains_key(node.name.as_str()) {
            node.problems.extend(missing_families(to, after, &node.name, &outlook.blocks, &first));
        }
        if !node.problems.is_empty() {
            continue;
        }
        let capacity = full.nodes.get(&node.name).map(|outlook| outlook.capacity.clone()).unwrap_or_default();
        let short = whole.needs.get(&node.name).and_then(|needs| shortage(to, needs, &capacity, &node.name));
        match short {
            Some(text) if allow_shortage => plan.warnings.push(text),
            Some(text) => node.problems.push(format!("{text}; --allow-shortage goes on all the same")),
            None => {}
        }
    }
    if to != Mode::MultiPool {
        let with_pools = facts.pods.values().flatten().filter(|pod| !pod.pools.is_empty()).count();
        if with_pools > 0 {
            plan.warnings.push(format!(
                "{with_pools} pods name a pool by annotation; {to} has no pools, so their successors get any address"
            ));
        }
    }
}

/// Families of which the node would have no block.
fn missing_families(to: Mode, after: &After, node: &str, blocks: &[Given], first: &Needs) -> Option<String> {
    let has = |family: Family| blocks.iter().any(|block| Family::of_net(&block.cidr) == family);
    let missing: BTreeSet<String> =
        after.families.iter().filter(|family| !has(*family)).map(|family| family.to_string()).collect();
    // A node in multi-pool that keeps nothing ready has blocks only when pods come.
    if missing.is_empty() || (to == Mode::MultiPool && first.is_empty()) {
        return None;
    }
    let missing = missing.into_iter().collect::<Vec<_>>().join(" and ");
    Some(match to {
        Mode::Kubernetes => format!(
            "spec.podCIDRs of Node {node} has no {missing} range; have kube-controller-manager give one \
             (--allocate-node-cidrs, --cluster-cidr), or write it into the Node"
        ),
        _ => format!("it would get no {missing} block"),
    })
}

/// Pools of which a node would not have enough addresses for everything that runs on it now.
fn shortage(to: Mode, needs: &Needs, capacity: &Needs, node: &str) -> Option<String> {
    let lack = |((pool, family), needed): (&(String, Family), &u64)| {
        let has = capacity.get(&(pool.clone(), *family)).copied().unwrap_or_default();
        let of = if pool.is_empty() { to.to_string() } else { format!("pool {pool:?}") };
        (has < *needed).then(|| format!("{has} of {needed} {family} addresses of {of}"))
    };
    let lacking: Vec<String> = needs.iter().filter_map(lack).collect();
    let remedy = match to {
        Mode::Kubernetes => "give the Node a larger pod CIDR, or run fewer pods on it",
        Mode::ClusterPool => "add a range to cluster-pool-ipv4-cidr or cluster-pool-ipv6-cidr by --set",
        Mode::MultiPool => "add a range to the CiliumPodIPPool",
    };
    (!lacking.is_empty()).then(|| {
        format!(
            "there is no room on {node} for all pods that run there now once they are replaced, router and health \
             included: it would have {}; {remedy}",
            lacking.join(", ")
        )
    })
}

fn judge_ranges(to: Mode, forecast: &Forecast, plan: &mut Plan) {
    for reason in &forecast.refused {
        plan.problems.push(format!("a range is not served: {reason}"));
    }
    for reason in &forecast.on_nodes {
        plan.problems.push(format!(
            "{reason}, and a node refuses blocks of the network that it is in itself; take a range without nodes"
        ));
    }
    for reason in &forecast.overlaps {
        let more = if reason.contains("pod CIDR of Node") && to != Mode::Kubernetes {
            ", and kube-controller-manager may give more of it to new nodes; better take a range of its own"
        } else {
            ""
        };
        plan.warnings.push(format!("{reason}; blocks that do are not given out{more}"));
    }
    for pool in &forecast.kept_pools {
        plan.warnings.push(format!("CiliumPodIPPool {pool:?} is there already and stays as it is"));
    }
}

#[cfg(test)]
mod tests;
