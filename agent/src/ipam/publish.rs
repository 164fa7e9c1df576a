//! Tells the operator what the node needs and gives back what it does not: at once what is lacking, the rest together.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kinesin_cluster::{ClusterError, NodeIpamChange, OwnCiliumNode};
use kinesin_core::ipam::{Block, BlockSource};
use tokio::sync::Mutex;

use super::{
    exhaustion::CONDITION,
    plan::{Facts, plan},
};
use crate::engine::{Engine, EngineError, State};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "publish-ipam";
/// How often it is looked whether a block has been unneeded for long enough, and whether a pod has stopped waiting. It
/// costs no request.
pub(crate) const PERIOD: Duration = Duration::from_secs(2);

/// Why the needs could not be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PublishError {
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The node.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Keeps the CiliumNode at what the node needs.
pub(crate) struct Needs {
    engine: Arc<Engine>,
    client: kube::Client,
    /// When needs that no pod waits for were told last.
    told: Mutex<Option<Instant>>,
}

impl Needs {
    pub(crate) fn new(engine: Arc<Engine>, client: kube::Client) -> Self {
        Self { engine, client, told: Mutex::default() }
    }

    /// One look; writes only what differs from what the CiliumNode is known to say.
    pub(crate) async fn publish(&self) -> Result<(), PublishError> {
        let engine = &self.engine;
        let (facts, known) = {
            let mut state = engine.state().await;
            let facts = engine.ipam_facts(&mut state).await?;
            (facts, state.said.own.clone())
        };
        let decide = |view: &OwnCiliumNode| engine.ipam_change(view, &facts);
        let Some(known) = known else { return Ok(()) };
        let change = decide(&known);
        let mut told = self.told.lock().await;
        let may_wait = is_only_a_request(&change) && facts.covered();
        if change.is_empty() || (may_wait && told.is_some_and(|when| when.elapsed() < engine.config.ipam_update_rate)) {
            return Ok(());
        }
        let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        match kinesin_cluster::update_node_ipam(&self.client, &engine.node_name, &now, decide).await {
            Ok(_) => {
                *told = Some(Instant::now());
                Ok(())
            }
            Err(ClusterError::Request { source, .. }) if source.code() == Some(404) => {
                // Somebody deleted it, or it was never there: the publication of the node makes it.
                engine.node_missing.store(true, Ordering::SeqCst);
                engine.wakes.node.notify_one();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_only_a_request(change: &NodeIpamChange) -> bool {
    *change == NodeIpamChange { requested: change.requested.clone(), ..NodeIpamChange::default() }
}

impl Engine {
    /// What the modes hold and want now. Gives up blocks that are not needed, and saves that before anybody hears of it:
    /// after a crash no lease may come from a block that somebody else may have by then.
    pub(crate) async fn ipam_facts(&self, state: &mut State) -> Result<Facts, EngineError> {
        self.forget_gone();
        let preferred = self.backends.ipam.preferred();
        // Before the first reconciliation not every lease of an earlier run need be back in place.
        if state.datapath.is_some() {
            let mut given = preferred.ipam.give_back().await.map_err(EngineError::Ipam)?;
            if preferred.source == BlockSource::GivenPools {
                // The mode has dropped those of deleted pools that hold no lease any more.
                let held = preferred.ipam.snapshot().blocks;
                let is_held = |block: &Block| held.iter().any(|used| used.block == *block);
                given.extend(state.said.of_deleted_pools().filter(|block| !is_held(block)));
            }
            let fresh: Vec<_> = given.into_iter().filter(|block| !state.given_back.contains(block)).collect();
            if !fresh.is_empty() {
                for block in &fresh {
                    tracing::info!(pool = block.pool, cidr = %block.cidr, "block is given back");
                }
                state.given_back.extend(fresh);
                for blocks in [Some(&mut state.node.blocks), state.given_blocks.as_mut()].into_iter().flatten() {
                    blocks.retain(|block| !state.given_back.contains(block));
                }
                self.store.save_node(&state.node)?;
            }
        }
        let snapshots = self.backends.ipam.snapshots();
        let of_node = snapshots.iter().filter(|(mode, _)| mode.source == BlockSource::NodePodCidrs);
        let held = of_node.flat_map(|(_, snapshot)| snapshot.blocks.iter().map(|used| used.block.cidr));
        let said = state.said.node_cidrs.iter().flatten().chain(&state.node.node_cidrs).copied();
        let node_cidrs: BTreeSet<_> = held.chain(said).collect();
        let mut demand = preferred.ipam.demand();
        for found in demand.pools.iter_mut().filter(|found| state.said.is_deleted(&found.pool)) {
            // Nothing is kept ready of a pool that is gone.
            found.wanted = found.wanted.min(found.in_use + found.waiting);
        }
        demand.pools.retain(|found| found.wanted > 0);
        if let Some((_, snapshot)) = snapshots.first() {
            self.exhaustion.refresh(snapshot, &demand);
        }
        Ok(Facts {
            preferred: Some(preferred.source),
            held: snapshots.into_iter().map(|(mode, snapshot)| (mode.source, snapshot)).collect(),
            given_back: state.given_back.clone(),
            node_cidrs,
            demand,
            complete: state.datapath.is_some() && state.said.node_cidrs.is_some(),
        })
    }

    /// The change that brings the CiliumNode to these facts.
    pub(crate) fn ipam_change(&self, view: &OwnCiliumNode, facts: &Facts) -> NodeIpamChange {
        let mut change = plan(view, facts);
        if !facts.complete {
            // What is listed stays as it is until the modes have their blocks; only asking cannot wait for that.
            return NodeIpamChange { requested: change.requested, ..NodeIpamChange::default() };
        }
        let said_before = view.conditions.iter().any(|found| found.r#type == CONDITION);
        if let Some(condition) = self.exhaustion.condition(said_before) {
            let same = |found: &&kinesin_cluster::crd::StatusCondition| {
                (&found.r#type, &found.status, &found.reason, &found.message)
                    == (&condition.r#type, &condition.status, &condition.reason, &condition.message)
            };
            if !view.conditions.iter().any(|found| same(&found)) {
                change.condition = Some(condition);
            }
        }
        change
    }
}

/// Takes over what the node's objects say of its blocks.
pub(crate) fn take(engine: &Engine, state: &mut State) {
    let preferred = engine.backends.ipam.preferred();
    let families = engine.config.families;
    if let Some(own) = &state.said.own {
        // What is no longer listed has been taken back: if it comes again, it is a block like any other.
        let listed =
            |cidr: &ipnet::IpNet| own.pod_cidrs.contains(cidr) || own.allocated.iter().any(|(_, found)| found == cidr);
        state.given_back.retain(|block| listed(&block.cidr));
        // Copies of the Node's ranges that are gone from both need not be remembered.
        state.node.node_cidrs.retain(|cidr| own.pod_cidrs.contains(cidr));
    }
    if preferred.source == BlockSource::NodePodCidrs {
        for cidr in state.said.node_cidrs.iter().flatten() {
            // Saved before they are copied, so that a later run knows them for its own.
            if !state.node.node_cidrs.contains(cidr) {
                state.node.node_cidrs.push(*cidr);
            }
        }
    }
    let given = super::blocks::given(preferred.source, &state.said, &state.node.node_cidrs, families);
    if let Some(mut blocks) = given {
        blocks.retain(|block| !state.given_back.contains(block));
        state.given_blocks = Some(blocks);
        state.node.mode.clone_from(&preferred.name);
    }
}
