//! Many nodes that join at once: how long until the kernel of one node has the way to all of them, and what they cost it.
//!
//! A lab of one node, whose agent and kernel are real. The others are CiliumNode objects, which is all that any agent knows
//! of another node. What is waited for is in the kernel: the prefix table of the programs, and with native routing the main
//! routing table. The agent's word for it does not count. Probes between nodes are off, since nobody would answer.

mod crowd;
mod kernel;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kinesin_lab::{Lab, Node, Process};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::{
    BenchError, agent,
    case::Contender,
    metric::{Figures, Metric},
    stats::percentile,
};
use crowd::Member;
use kernel::Tables;

/// How long all of them may take to appear or to vanish; a second or two is usual.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(2);
/// Requests that are under way at a time.
const AT_ONCE: usize = 16;
/// Changes of single nodes that are timed, one after another.
const CHANGES: usize = 20;
/// How long the agent is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// What such a lab's values say beside its routing mode.
pub(crate) const VALUES: &str = "healthChecking: false\nendpointHealthChecking: {enabled: false}\n";

/// `count` nodes join, some of them change, and all leave.
///
/// # Errors
/// `Scene` when the node does not follow within two minutes; what was made is in the lab until that is gone.
pub async fn round(lab: &Lab, contender: Contender, count: usize) -> Result<Figures, BenchError> {
    let node = lab.nodes().into_iter().next().ok_or_else(|| BenchError::Scene("the lab has no nodes".to_owned()))?;
    let agent = agent::agent_of(&node)?;
    let agent = agent.ok_or_else(|| BenchError::Scene(format!("node {:?} has no agent", node.name())))?;
    crowd::make_room(&node).await?;
    let tables = Tables::open(&node, contender == Contender::Kinesin)?;
    let api = api(lab)?;
    let own = api.get(node.name()).await.map_err(|error| refused(node.name(), &error))?;
    let crowd = Crowd { api, agent, node: &node, tables };
    let members: Vec<Member> = (0..count).map(Member::of).collect();

    let (memory, table) = (crowd.memory()?, crowd.tables.bytes()?);
    let (begun, computed) = (Instant::now(), crowd.computed()?);
    crowd
        .each(&members, async |member| {
            let object = member.object(&own);
            crowd.api.create(&PostParams::default(), &object).await.map(|_| ())
        })
        .await?;
    let told = begun.elapsed();
    crowd.until(&members, true).await?;
    let (joined, computing) = (begun.elapsed(), crowd.computed()?.saturating_sub(computed));
    tokio::time::sleep(REST).await;
    let (memory, table) = (crowd.memory()? - memory, crowd.tables.bytes()? - table);

    let (changes, change) = crowd.change(&members).await?;

    let begun = Instant::now();
    crowd
        .each(&members, async |member| crowd.api.delete(&member.name, &DeleteParams::default()).await.map(|_| ()))
        .await?;
    let changed: Vec<Member> = members.iter().take(CHANGES).map(Member::moved).collect();
    crowd.until(members.iter().chain(&changed), false).await?;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(vec![
        (Metric::NodesJoin, milliseconds(joined)),
        (Metric::NodesLag, milliseconds(joined.saturating_sub(told))),
        (Metric::NodesJoinCpu, milliseconds(computing)),
        (Metric::NodeChange, percentile(&changes, 0.5)),
        (Metric::NodeChangeCpu, milliseconds(change)),
        (Metric::NodesLeave, milliseconds(begun.elapsed())),
        (Metric::AgentPerNode, memory * 1e3 / count as f64),
        (Metric::TablePerNode, table / count as f64),
    ])
}

struct Crowd<'a> {
    api: Api<DynamicObject>,
    agent: Process,
    node: &'a Node,
    tables: Tables,
}

fn api(lab: &Lab) -> Result<Api<DynamicObject>, BenchError> {
    Ok(Api::all_with(lab.client()?, &crowd::kind()))
}

impl Crowd<'_> {
    /// Asks the API for something about each, some at a time.
    async fn each<'m>(
        &self,
        members: &'m [Member],
        request: impl AsyncFn(&'m Member) -> Result<(), kube::Error>,
    ) -> Result<(), BenchError> {
        let requests = stream::iter(members).map(|member| {
            let answer = request(member);
            async move { answer.await.map_err(|error| refused(&member.name, &error)) }
        });
        requests.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Changes the pod CIDRs of some nodes, one after another: how long each took until the kernel knew, in milliseconds, and
    /// the agent's mean CPU time.
    async fn change(&self, members: &[Member]) -> Result<(Vec<f64>, Duration), BenchError> {
        let computed = self.computed()?;
        let mut took = Vec::new();
        for member in members.iter().take(CHANGES) {
            let moved = member.moved();
            let begun = Instant::now();
            let patch = Patch::Merge(moved.change());
            let answer = self.api.patch(&member.name, &PatchParams::default(), &patch).await;
            answer.map_err(|error| refused(&member.name, &error))?;
            self.until_known(&[&moved], true).await?;
            self.until_known(&[member], false).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let changes = u32::try_from(took.len().max(1)).unwrap_or(u32::MAX);
        let computed = self.computed()?.saturating_sub(computed) / changes;
        let changed: Vec<Member> = members.iter().take(CHANGES).map(Member::moved).collect();
        self.until_routed(&changed.iter().collect::<Vec<_>>(), true).await?;
        self.until_routed(&members.iter().take(CHANGES).collect::<Vec<_>>(), false).await?;
        Ok((took, computed))
    }

    /// Until the kernel has, or has not any more, the way to each of them.
    async fn until<'m>(&self, members: impl IntoIterator<Item = &'m Member>, wanted: bool) -> Result<(), BenchError> {
        let members: Vec<&Member> = members.into_iter().collect();
        // The cheap look first, and the other one hardly ever twice: the agent writes routes before prefixes.
        self.until_known(&members, wanted).await?;
        self.until_routed(&members, wanted).await
    }

    async fn until_known(&self, members: &[&Member], wanted: bool) -> Result<(), BenchError> {
        let mut left = members.to_vec();
        self.patiently(async || {
            while let Some(member) = left.last() {
                if self.tables.knows(member)? != wanted {
                    break;
                }
                left.pop();
            }
            let rest = left.len();
            Ok((rest == 0, format!("{rest} of {} nodes in the prefix table", members.len())))
        })
        .await
    }

    async fn until_routed(&self, members: &[&Member], wanted: bool) -> Result<(), BenchError> {
        let all = if wanted { members.len() * 2 } else { 0 };
        self.patiently(async || {
            let found = self.tables.routes(self.node, members).await?.unwrap_or(all);
            Ok((found == all, format!("{found} routes instead of {all}")))
        })
        .await
    }

    /// Looks until it is so, and tells what was seen last if it never is.
    async fn patiently(
        &self,
        mut look: impl AsyncFnMut() -> Result<(bool, String), BenchError>,
    ) -> Result<(), BenchError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let (done, seen) = look().await?;
            if done {
                return Ok(());
            }
            let told = if !self.agent.is_alive() {
                "its agent ended".to_owned()
            } else if Instant::now() >= until {
                format!("not within {} s", PATIENCE.as_secs())
            } else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            return Err(BenchError::Scene(format!("node {:?} does not follow: {told}, {seen}", self.node.name())));
        }
    }

    /// Resident memory of the agent in MB.
    fn memory(&self) -> Result<f64, BenchError> {
        agent::memory(self.agent).map(|(resident, _)| resident)
    }

    /// CPU time of the agent, all of its threads, also those that have ended.
    fn computed(&self) -> Result<Duration, BenchError> {
        let clock = clock_getcpuclockid(Pid::from_raw(self.agent.pid)).and_then(clock_gettime);
        clock.map(Duration::from).map_err(BenchError::io("read the agent's CPU time"))
    }
}

fn refused(name: &str, error: &kube::Error) -> BenchError {
    BenchError::Scene(format!("the API refused CiliumNode {name}: {error}"))
}
