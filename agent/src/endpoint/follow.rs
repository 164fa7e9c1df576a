//! Running pods follow the carriers in use and the uplink's MTU.
//!
//! A pod whose record says already what it shall have costs a comparison. One that cannot be changed is told in `status`
//! and once in the log, keeps nobody else waiting, and is tried again by the next pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kinesin_agent_api::types::EndpointState;
use kinesin_core::{causes::with_causes, values::EndpointId};
use kinesin_netlink::{Link, Netlink};
use tokio::time::timeout;

use super::{
    Record,
    inside::{Inside, InsideError},
    settings::{Settings, Step},
};
use crate::engine::{Engine, EngineError, State};

/// A pod takes a millisecond; one that has filled its own routing tables shall not make everybody wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many pods `status` names.
const NAMED: usize = 3;

/// Running pods that have not followed in one pass.
#[derive(Debug, Default)]
pub(crate) struct Following {
    /// Each with the reason.
    failed: BTreeMap<EndpointId, String>,
    /// Those on which a plugin is still at work.
    early: BTreeSet<EndpointId>,
    changed: usize,
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
    /// Takes running pods through `steps`; `links` are the node's devices by index.
    pub(crate) async fn step_pods(
        &self,
        state: &mut State,
        links: &BTreeMap<u32, Link>,
        want: Settings,
        steps: [Step; 2],
        following: &mut Following,
    ) -> Result<(), EngineError> {
        for step in steps {
            let due: Vec<(EndpointId, Settings)> = state
                .endpoints
                .values()
                .filter(|running| running.leased && running.state != EndpointState::Disconnecting)
                .filter_map(|running| {
                    let have = Settings::of(&running.record.networking);
                    let to = step.target(have, want);
                    (to != have || running.record.changing.is_some()).then_some((running.record.id, to))
                })
                .filter(|(id, _)| !following.failed.contains_key(id) && !following.early.contains(id))
                .collect();
            if due.is_empty() {
                continue;
            }
            let node = Netlink::new()?;
            for (id, to) in due {
                let Some(running) = state.endpoints.get_mut(&id) else { continue };
                let stepped = timeout(PATIENCE, self.step_pod(&node, &mut running.record, links, to)).await;
                match stepped.unwrap_or(Err(InsideError::Slow(PATIENCE).into())) {
                    Ok(()) => following.changed += 1,
                    Err(EngineError::Inside(InsideError::NotUp)) => drop(following.early.insert(id)),
                    Err(error) => drop(following.failed.insert(id, with_causes(&error))),
                }
            }
        }
        Ok(())
    }

    async fn step_pod(
        &self,
        node: &Netlink,
        record: &mut Record,
        links: &BTreeMap<u32, Link>,
        to: Settings,
    ) -> Result<(), EngineError> {
        // A pod without its device is removed by the next pass.
        let host = links.get(&record.request.interface_index).ok_or(InsideError::NotUp)?;
        let inside = Inside::find(record, host).await?;
        let ours: Vec<Settings> = [Settings::of(&record.networking)].into_iter().chain(record.changing).collect();
        // What an agent that is killed now leaves half done, the next one must not take for somebody else's.
        record.changing = Some(to);
        self.store.save_endpoint(record)?;
        inside.change(node, record, host, &ours, to).await?;
        let mut done = record.clone();
        to.write_to(&mut done.networking);
        done.changing = None;
        self.store.save_endpoint(&done)?;
        *record = done;
        Ok(())
    }

    /// Notes what a pass came to, and tells what is new of it; the answer is whether plugins were still at work on pods.
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
        !following.early.is_empty()
    }
}
