//! Running pods follow the carriers in use and the uplink's MTU.
//!
//! A pod whose record says already what it shall have costs a comparison. One that cannot be changed is told in `status`
//! and once in the log, keeps nobody else waiting, and is tried again by the next pass. All of them together may hold a pass
//! for as long as [`Allowance`] says: one that has filled its own routing tables, for example, may take any time.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kinesin_agent_api::types::EndpointState;
use kinesin_core::{causes::with_causes, values::EndpointId};
use kinesin_netlink::{Link, Netlink};

use super::{
    Record,
    inside::{Inside, InsideError},
    settings::{Settings, Step},
    turns::{Allowance, Turn},
};
use crate::{
    engine::{Engine, EngineError, State},
    store::Store,
};

/// How many pods `status` names.
const NAMED: usize = 3;

/// Running pods that have not followed in one pass.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Each with the reason.
    failed: BTreeMap<EndpointId, String>,
    /// Those on which a plugin is still at work.
    early: BTreeSet<EndpointId>,
    /// Those that have used up their time.
    slow: BTreeSet<EndpointId>,
    /// Whether the time was over before some had their turn.
    is_cut_short: bool,
    changed: usize,
    allowance: Option<Allowance>,
}

/// Who changes a running pod.
#[async_trait]
pub(crate) trait Changer: Sync {
    /// Brings a pod to these settings, and its record.
    async fn change(&self, record: &mut Record, to: Settings) -> Result<(), EngineError>;
}

/// By the kernel, in the pods' own namespaces.
#[derive(Debug)]
pub(crate) struct InKernel<'a> {
    pub(crate) store: &'a Store,
    pub(crate) node: &'a Netlink,
    /// The node's devices by index.
    pub(crate) links: &'a BTreeMap<u32, Link>,
}

/// What `status` says of running pods that keep an earlier MTU, each with the reason; none if there is no such pod.
pub(crate) fn told(state: &State) -> Option<String> {
    let lagging = &state.lagging;
    let name = |id: &EndpointId| {
        state.endpoints.get(id).map_or_else(|| id.to_string(), |running| running.record.lease.owner.to_string())
    };
    let named: Vec<String> = lagging.iter().take(NAMED).map(|(id, reason)| format!("{}: {reason}", name(id))).collect();
    let more = lagging.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    (!named.is_empty()).then(|| {
        format!(
            "{} running pod(s) keep an earlier MTU; it is tried again, or restart them: {}{more}",
            lagging.len(),
            named.join(", ")
        )
    })
}

impl Engine {
    /// Takes running pods through `steps`, each of which ends for all of them before the next begins.
    pub(crate) async fn step_pods(
        &self,
        state: &mut State,
        changer: &dyn Changer,
        want: Settings,
        steps: [Step; 2],
        following: &mut Following,
    ) {
        let mut allowance = *following.allowance.get_or_insert_with(|| Allowance::of(state.endpoints.len()));
        for step in steps {
            let due = state
                .endpoints
                .values_mut()
                .filter(|running| running.leased && running.state != EndpointState::Disconnecting)
                .filter_map(|running| {
                    let have = Settings::of(&running.record.networking);
                    let to = step.target(have, want);
                    (to != have || running.record.changing.is_some()).then_some((&mut running.record, to))
                })
                .filter(|(record, _)| {
                    !following.failed.contains_key(&record.id) && !following.early.contains(&record.id)
                });
            let jobs = due.map(|(record, to)| (record.id, changer.change(record, to))).collect();
            let slow = &state.slow_pods;
            for (id, turn) in allowance.spend(jobs, |id| slow.get(id).copied()).await {
                following.note(id, turn);
            }
        }
        following.allowance = Some(allowance);
    }

    /// Notes what a pass came to, and tells what is new of it; the answer is whether another one may soon do better: plugins were
    /// still at work on pods, or some pods had no turn.
    pub(crate) fn note_following(&self, state: &mut State, following: Following) -> bool {
        if following.changed > 0 {
            tracing::info!(changes = following.changed, "running pods follow the MTU of this node's carriers");
        }
        for (id, reason) in &following.failed {
            if state.lagging.get(id) != Some(reason) {
                let owner = state.endpoints.get(id).map(|running| running.record.lease.owner.to_string());
                tracing::warn!(endpoint = %id, owner, reason, "a running pod keeps its MTU; it is tried again");
            }
        }
        state.lagging = following.failed;
        let now = state.slow_pods.values().max().map_or(0, |last| last + 1);
        state.slow_pods.retain(|id, _| state.lagging.contains_key(id));
        state.slow_pods.extend(following.slow.into_iter().map(|id| (id, now)));
        !following.early.is_empty() || following.is_cut_short
    }
}

impl Following {
    fn note(&mut self, id: EndpointId, turn: Turn<Result<(), EngineError>>) {
        let error = match turn {
            Turn::Ended(Ok(())) => {
                self.changed += 1;
                return;
            }
            Turn::Ended(Err(EngineError::Inside(InsideError::NotUp))) => {
                self.early.insert(id);
                return;
            }
            Turn::Ended(Err(error)) => error,
            Turn::Slow => {
                self.slow.insert(id);
                InsideError::Slow.into()
            }
            Turn::None => {
                self.is_cut_short = true;
                InsideError::NotReached.into()
            }
        };
        self.failed.insert(id, with_causes(&error));
    }
}

#[async_trait]
impl Changer for InKernel<'_> {
    async fn change(&self, record: &mut Record, to: Settings) -> Result<(), EngineError> {
        // A pod without its device is removed by the next pass.
        let host = self.links.get(&record.request.interface_index).ok_or(InsideError::NotUp)?;
        let inside = Inside::find(record, host).await?;
        let ours: Vec<Settings> = [Settings::of(&record.networking)].into_iter().chain(record.changing).collect();
        // What an agent that is killed now leaves half done, the next one must not take for somebody else's.
        record.changing = Some(to);
        self.store.save_endpoint(record)?;
        inside.change(self.node, record, host, &ours, to).await?;
        let mut done = record.clone();
        to.write_to(&mut done.networking);
        done.changing = None;
        self.store.save_endpoint(&done)?;
        *record = done;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
