//! The change itself: configuration, operator, then the agents node by node. Every step asks first whether it is done.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use kinesin_cluster::CiliumNode;
use kinesin_core::{causes::with_causes, values::Family};
use kinesin_ipam_blocks::{Mode, NodeView};
use kinesin_operator::forecast::{blocks_of, view};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    agents::{Agent, Agents},
    change,
    facts::Facts,
    operator,
    plan::{Block, NodePlan, Plan, Step},
    plan_of,
};
use crate::{
    args::{Global, MigrateArgs},
    cluster::CONFIG_MAP,
    output::{Format, print},
};

/// Who this program is in `managedFields`.
pub(super) const MANAGER: &str = "kinesin-cli";
/// Between two looks at a node that changes.
const LOOK: Duration = Duration::from_millis(150);
/// How long the API server may take for one look; then it is asked again.
const ANSWER: Duration = Duration::from_secs(10);
/// An agent that is ready and in another mode after so long was started with the configuration of before: kubelets bring a
/// changed ConfigMap late. It is started once more.
const STALE: Duration = Duration::from_secs(10);
/// How often that is tried.
const TRIES: usize = 3;
/// An agent that was started by an earlier run says its mode within this.
const SETTLE: Duration = Duration::from_secs(2);
/// How often the nodes are gone through: new ones may have come meanwhile.
const PASSES: usize = 5;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    pub(super) to: String,
    pub(super) nodes: Vec<NodeReport>,
}

/// One node afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct NodeReport {
    pub(super) name: String,
    pub(super) mode: String,
    /// Blocks of other modes that addresses of are in use.
    pub(super) drains: Vec<Block>,
}

/// One migration under way.
struct Run<'a> {
    client: Client,
    agents: Agents,
    nodes: Api<DynamicObject>,
    args: &'a MigrateArgs,
    for_people: bool,
}

/// Carries out a plan that is possible.
pub(super) async fn migrate(
    client: &Client,
    global: &Global,
    args: &MigrateArgs,
    facts: Facts,
    plan: Plan,
) -> anyhow::Result<Report> {
    let run = Run {
        client: client.clone(),
        agents: Agents::new(client.clone(), &facts.namespace),
        nodes: Api::all_with(client.clone(), &ApiResource::erase::<CiliumNode>(&())),
        args,
        for_people: global.output == Format::Summary,
    };
    let (mut facts, mut plan) = (facts, plan);
    let is_open = |node: &&NodePlan| node.step != Step::Nothing;
    // Agents that an earlier run has started may not have told their mode yet.
    let mut in_doubt = !plan.config.is_empty() || plan.nodes.iter().any(|node| is_open(&node));
    in_doubt &= plan.nodes.iter().any(|node| !is_open(&node));
    if !plan.config.is_empty() || plan.nodes.iter().any(|node| is_open(&node)) {
        run.configure(&facts, &plan).await?;
    }
    for _ in 0..PASSES {
        let open: Vec<NodePlan> = plan.nodes.iter().filter(is_open).cloned().collect();
        if open.is_empty() && !in_doubt {
            return Ok(report(&plan));
        }
        if open.is_empty() {
            tokio::time::sleep(SETTLE).await;
            in_doubt = false;
        }
        run.change_all(&facts, &open).await?;
        facts = Facts::read(client.clone(), &facts.namespace).await?;
        plan = plan_of(&facts, &args.ipam);
        let problems: Vec<&String> =
            plan.problems.iter().chain(plan.nodes.iter().filter(is_open).flat_map(|node| &node.problems)).collect();
        if let Some(problem) = problems.first() {
            bail!("{problem}; {}", ways_on(&plan.to));
        }
    }
    bail!("nodes come back in another mode each time; does somebody else write cilium-config? {}", ways_on(&plan.to))
}

fn report(plan: &Plan) -> Report {
    let node =
        |node: &NodePlan| NodeReport { name: node.name.clone(), mode: node.mode.clone(), drains: node.drains.clone() };
    Report { to: plan.to.clone(), nodes: plan.nodes.iter().map(node).collect() }
}

fn ways_on(to: &str) -> String {
    format!(
        "nodes stay as they are now, and all of them work: run this again to go on to {to}, or with the old mode to go back"
    )
}

impl Run<'_> {
    fn say(&self, line: &str) -> anyhow::Result<()> {
        if self.for_people {
            return print(&format!("{line}\n"));
        }
        // The answer itself is for programs; progress must not be in it. Nothing can be done if stderr is gone.
        let _ = writeln!(io::stderr(), "{line}");
        Ok(())
    }

    /// The ConfigMap, then the operator: it must know the mode before a node asks for something in it.
    async fn configure(&self, facts: &Facts, plan: &Plan) -> anyhow::Result<()> {
        if !plan.config.is_empty() {
            let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &facts.namespace);
            let data: serde_json::Map<String, Value> =
                plan.config.iter().map(|change| (change.key.clone(), json!(change.after))).collect();
            // Under the guard of what was planned for.
            let patch = json!({"metadata": {"resourceVersion": facts.config_version}, "data": data});
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let what = || format!("cannot write ConfigMap {}/{CONFIG_MAP}; nothing was changed", facts.namespace);
            maps.patch(CONFIG_MAP, &params, &Patch::Merge(patch)).await.with_context(what)?;
            let keys: Vec<&str> = plan.config.iter().map(|change| change.key.as_str()).collect();
            self.say(&format!("ConfigMap {CONFIG_MAP}: {} written", keys.join(", ")))?;
        }
        if facts.has_operator {
            let config = change::after(&facts.config, &plan.config);
            let begun = Instant::now();
            let limit = Duration::from_secs(self.args.node_timeout);
            match operator::roll_out(&self.client, &facts.namespace, &config, limit).await {
                Ok(restarted) => {
                    let what = if restarted { "started again, ready" } else { "ready" };
                    self.say(&format!("operator: {what} after {:.1} s", begun.elapsed().as_secs_f64()))?;
                }
                // Kubernetes gives the addresses; the operator is only needed to take the old blocks back.
                Err(error) if self.args.ipam.to == Mode::Kubernetes => {
                    self.say(&format!(
                        "operator: {}; blocks are given back when it works again",
                        with_causes(error.as_ref())
                    ))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The first node alone, so that whatever is wrong happens to one node; then the others.
    async fn change_all(&self, facts: &Facts, nodes: &[NodePlan]) -> anyhow::Result<()> {
        let Some((first, others)) = nodes.split_first() else { return Ok(()) };
        let count = nodes.len();
        self.change(facts, first, 1, count).await?;
        let others = others.iter().enumerate().map(|(index, node)| self.change(facts, node, index + 2, count));
        stream::iter(others).buffer_unordered(self.args.at_once.into()).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn change(&self, facts: &Facts, node: &NodePlan, number: usize, count: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        let to = self.args.ipam.to;
        let blocks = self.bring(facts, node).await.with_context(|| ways_on(to.as_str()))?;
        let blocks = if blocks.is_empty() { "no block yet".to_owned() } else { blocks.join(", ") };
        let took = begun.elapsed().as_secs_f64();
        self.say(&format!("[{number}/{count}] {}: {to} after {took:.1} s, {blocks}", node.name))
    }

    /// Starts a node's agent again and waits until it works in the mode and has the blocks that it is to have; the blocks.
    async fn bring(&self, facts: &Facts, node: &NodePlan) -> anyhow::Result<Vec<String>> {
        let (to, begun) = (self.args.ipam.to, Instant::now());
        let expected: BTreeSet<Family> = node
            .gets
            .iter()
            .chain(&node.keeps)
            .filter_map(|block| block.cidr.parse::<IpNet>().ok())
            .map(|cidr| Family::of_net(&cidr))
            .collect();
        let mut ended: BTreeSet<String> = BTreeSet::new();
        let mut restart = node.step == Step::RestartAgent;
        let mut ready_since: Option<Instant> = None;
        loop {
            let looked = match tokio::time::timeout(ANSWER, self.look(&node.name)).await {
                Ok(looked) => looked.map_err(|error| with_causes(&error)),
                Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
            };
            let state = match &looked {
                Err(reason) => format!("the API server does not answer: {reason}"),
                Ok((None, _)) => "its agent has no Pod".to_owned(),
                Ok((Some(agent), _)) if restart && !ended.contains(&agent.uid) => {
                    ensure!(ended.len() < TRIES, "{}", self.refusal(&node.name, agent).await);
                    match self.agents.restart(agent).await {
                        Ok(()) => {
                            ended.insert(agent.uid.clone());
                            (restart, ready_since) = (false, None);
                            format!("its agent {} is ending", agent.pod)
                        }
                        Err(error) => format!("its agent {} cannot be ended: {}", agent.pod, with_causes(&error)),
                    }
                }
                Ok((Some(agent), _)) if ended.contains(&agent.uid) => format!("its agent {} is ending", agent.pod),
                Ok((Some(Agent { trouble: Some(trouble), .. }), _)) => {
                    ready_since = None;
                    format!("its agent is not ready: {trouble}")
                }
                Ok((Some(_), None)) => "it has no CiliumNode".to_owned(),
                Ok((Some(agent), Some(view))) => {
                    let host = facts.cluster.host_cidrs(&node.name);
                    let blocks: Vec<IpNet> = blocks_of(view, to, host).into_iter().map(|block| block.cidr).collect();
                    let has = |family: &Family| blocks.iter().any(|cidr| Family::of_net(cidr) == *family);
                    if view.mode == Some(to) && expected.iter().all(has) {
                        return Ok(blocks.iter().map(ToString::to_string).collect());
                    }
                    let since = *ready_since.get_or_insert_with(Instant::now);
                    restart = view.mode != Some(to) && since.elapsed() > STALE;
                    waiting(agent, view, to)
                }
            };
            if begun.elapsed() > Duration::from_secs(self.args.node_timeout) {
                let complaints = match looked {
                    Ok((Some(agent), _)) => self.agents.complaints(&agent).await,
                    _ => String::new(),
                };
                bail!("node {} is not in {to} after {} s: {state}{complaints}", node.name, self.args.node_timeout);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look(&self, node: &str) -> Result<(Option<Agent>, Option<NodeView>), kube::Error> {
        let agent = self.agents.on(node).await?;
        let object = self.nodes.get_opt(node).await?;
        Ok((agent, object.as_ref().map(view)))
    }

    /// An agent that comes back in its old mode again and again refuses the new configuration.
    async fn refusal(&self, node: &str, agent: &Agent) -> String {
        let complaints = self.agents.complaints(agent).await;
        format!("the agent of node {node} was started {TRIES} times and comes back in its old mode{complaints}")
    }
}

fn waiting(agent: &Agent, view: &NodeView, to: Mode) -> String {
    let mode = view.mode.map(|mode| mode.to_string()).unwrap_or_default();
    if view.mode != Some(to) {
        return format!("its agent {} is ready in mode {mode:?}", agent.pod);
    }
    let error = &view.report.error;
    if error.is_empty() {
        "it has no blocks yet".to_owned()
    } else {
        format!("the operator gives it no block: {error}")
    }
}
