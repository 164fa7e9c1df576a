//! ADD, DEL, GC and restore of endpoints.
//!
//! ADD goes lease, file, datapath, and undoes what it did when a later step fails. A crash after the file leaves an
//! endpoint that the next start restores or, if its device is gone, removes; a crash before it leaves nothing, since
//! leases live in memory until then.

use std::collections::{BTreeMap, BTreeSet};

use kinesin_agent_api::types::{EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointGcRequest, EndpointState};
use kinesin_core::{
    chassis::ChassisError,
    ipam::{Block, IpamDesired, IpamError, Lease, Owner},
    values::EndpointId,
};
use tokio::time::{Instant, timeout_at};

use super::{Record, Running, attachment, check, owner, selector::Selector};
use crate::{
    engine::{Engine, EngineError, State},
    ipam::{
        exhaustion,
        lease::BLOCK_WITHIN,
        pool::{self, PoolChoice},
    },
};

/// What a create request led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// The endpoint is new.
    New,
    /// It was there already.
    Again,
}

impl Engine {
    /// Leases, saves and attaches an endpoint; repeating the request gives the same answer.
    ///
    /// Waits a moment, out of everybody's way, for a block that is on its way.
    pub(crate) async fn create(&self, request: EndpointChangeRequest) -> Result<(Running, Created), EngineError> {
        check(&request)?;
        let pools = self.pools_of(&request).await?;
        let (owner, waiters) = (owner(&request), &self.exhaustion.waiters);
        let deadline = Instant::now() + BLOCK_WITHIN;
        let mut space = self.space.subscribe();
        loop {
            space.mark_unchanged();
            let refusal = match self.try_create(&request, &pools).await {
                Err(EngineError::Ipam(refusal)) => refusal,
                Ok(created) => {
                    waiters.served(&owner);
                    return Ok(created);
                }
                Err(error) => return Err(error),
            };
            let is_coming = self.is_on_its_way(&refusal, &*self.state().await);
            // The sender lives as long as the engine.
            let is_late = Instant::now() >= deadline;
            if !is_coming || is_late || timeout_at(deadline, space.changed()).await.is_err() {
                if exhaustion::subject(&refusal).is_some() {
                    waiters.note(&owner, &attachment(&request), Instant::now());
                }
                return Err(self.no_address(refusal, &*self.state().await));
            }
        }
    }

    /// The pools that the Pod and its namespace name, in a mode that has pools.
    async fn pools_of(&self, request: &EndpointChangeRequest) -> Result<PoolChoice, EngineError> {
        let Owner::Pod { namespace, name } = owner(request) else { return Ok(PoolChoice::default()) };
        if !self.backends.ipam.preferred().source.has_pools() {
            return Ok(PoolChoice::default());
        }
        Ok(pool::choose(self.pods.as_ref(), &namespace, &name, &request.k8s_uid).await?)
    }

    async fn try_create(
        &self,
        request: &EndpointChangeRequest,
        pools: &PoolChoice,
    ) -> Result<(Running, Created), EngineError> {
        let mut state = self.state().await;
        state.datapath(&self.controllers)?;
        let request = request.clone();
        let key = attachment(&request);
        if let Some(existing) = state.endpoints.values().find(|found| found.record.attachment() == key) {
            if existing.record.request == request && existing.state == EndpointState::Ready {
                return Ok((existing.clone(), Created::Again));
            }
            // The plugin made its devices anew, or an earlier attempt ended half-way: the lease stays, the rest follows.
            let old = existing.clone();
            let running = self.replace(&mut state, old, request).await?;
            return Ok((running, Created::Again));
        }
        let same_device = |found: &&Running| found.record.request.interface_name == request.interface_name;
        if let Some(holder) = state.endpoints.values().find(same_device) {
            return Err(EngineError::DeviceTaken {
                device: request.interface_name.clone(),
                id: holder.record.id,
                owner: holder.record.lease.owner.clone(),
            });
        }
        let id = state.free_number()?;
        let lease = self.lease_pools(&key, &owner(&request), pools).await?;
        let networking = state.datapath(&self.controllers)?.networking(&lease, request.host_mac.clone());
        let record = Record { id, request, lease, networking, changing: None };
        let installed = self.install(&record).await;
        if let Err(error) = installed {
            self.undo(&record).await;
            return Err(error);
        }
        let running =
            Running { record, state: EndpointState::Ready, message: String::new(), restored: false, leased: true };
        tracing::info!(endpoint = %id, owner = %running.record.lease.owner, ips = ?running.record.addresses(), "endpoint added");
        state.endpoints.insert(id, running.clone());
        drop(state);
        self.wakes.endpoints.notify_one();
        Ok((running, Created::New))
    }

    async fn install(&self, record: &Record) -> Result<(), EngineError> {
        self.store.save_endpoint(record)?;
        self.backends.chassis.attach(&record.spec()?).await?;
        Ok(())
    }

    /// Takes back what `install` may have done; the first error is the one to tell.
    async fn undo(&self, record: &Record) {
        if let Ok(spec) = record.spec()
            && let Err(error) = self.backends.chassis.detach(&spec).await
        {
            tracing::warn!(endpoint = %record.id, %error, "cannot detach after a failed ADD");
        }
        if let Err(error) = self.store.remove_endpoint(record.id) {
            tracing::warn!(endpoint = %record.id, %error, "cannot forget after a failed ADD");
        }
        if let Err(error) = self.release(&record.lease).await {
            tracing::warn!(endpoint = %record.id, %error, "cannot release after a failed ADD");
        }
    }

    async fn replace(
        &self,
        state: &mut State,
        old: Running,
        request: EndpointChangeRequest,
    ) -> Result<Running, EngineError> {
        if old.record.request.interface_index != request.interface_index
            && let Ok(spec) = old.record.spec()
        {
            self.backends.chassis.detach(&spec).await?;
        }
        let networking = state.datapath(&self.controllers)?.networking(&old.record.lease, request.host_mac.clone());
        let record = Record { request, networking, changing: None, ..old.record };
        self.install(&record).await?;
        let running =
            Running { record, state: EndpointState::Ready, message: String::new(), restored: false, leased: true };
        state.endpoints.insert(running.record.id, running.clone());
        Ok(running)
    }

    /// Removes one endpoint; the answer tells whether there was one.
    pub(crate) async fn delete(&self, selector: &Selector) -> Result<bool, EngineError> {
        match selector {
            Selector::Container(id) => self.note_deleted(|of, _| of == id),
            Selector::Attachment(id) => self.note_deleted(|of, interface| *id == format!("{of}:{interface}")),
            _ => {}
        }
        self.delete_matching(|record| selector.matches(record)).await.map(|count| count > 0)
    }

    /// Removes the endpoints of a container; the answer is how many there were.
    pub(crate) async fn delete_batch(&self, request: &EndpointBatchDeleteRequest) -> Result<usize, EngineError> {
        let interface = &request.container_interface_name;
        self.note_deleted(|id, of| id == request.container_id && (interface.is_empty() || of == interface));
        self.delete_matching(|record| {
            record.request.container_id == request.container_id
                && (interface.is_empty() || record.request.container_interface_name == *interface)
        })
        .await
    }

    /// Removes what the runtime no longer knows.
    pub(crate) async fn collect_garbage(&self, request: &EndpointGcRequest) -> Result<usize, EngineError> {
        let valid: BTreeSet<String> = request
            .valid_attachments
            .iter()
            .map(|attachment| format!("{}:{}", attachment.container_id, attachment.ifname))
            .collect();
        self.note_deleted(|id, interface| !valid.contains(&format!("{id}:{interface}")));
        self.delete_matching(|record| !valid.contains(&record.attachment())).await
    }

    /// Sandboxes that found no address may be among those that are deleted; told by container and interface.
    fn note_deleted(&self, is_deleted: impl Fn(&str, &str) -> bool) {
        let is_deleted = |attachment: &str| attachment.split_once(':').is_some_and(|(id, of)| is_deleted(id, of));
        self.exhaustion.waiters.deleted(is_deleted, Instant::now());
    }

    /// Removes every matching endpoint; goes on after a failure and tells the first one.
    async fn delete_matching(&self, matches: impl Fn(&Record) -> bool) -> Result<usize, EngineError> {
        let mut state = self.state().await;
        let found: Vec<EndpointId> = state
            .endpoints
            .values()
            .filter(|running| matches(&running.record))
            .map(|running| running.record.id)
            .collect();
        let mut first_error = None;
        for id in &found {
            if let Err(error) = self.remove(&mut state, *id).await {
                first_error.get_or_insert(error);
            }
        }
        drop(state);
        if !found.is_empty() {
            self.wakes.endpoints.notify_one();
        }
        first_error.map_or(Ok(found.len()), Err)
    }

    /// Removes an endpoint: datapath first, so that its address reaches nobody when it is leased again.
    pub(crate) async fn remove(&self, state: &mut State, id: EndpointId) -> Result<(), EngineError> {
        let starting = state.datapath.is_none();
        let Some(running) = state.endpoints.get_mut(&id) else { return Ok(()) };
        running.state = EndpointState::Disconnecting;
        let record = running.record.clone();
        if let Ok(spec) = record.spec() {
            match self.backends.chassis.detach(&spec).await {
                Ok(()) => {}
                // The datapath is an earlier run's: the first pass removes from it whatever has no endpoint, and no pod
                // is given an address before that.
                Err(ChassisError::NotReady) if starting => {}
                Err(error) => {
                    // The address must not be leased to another while it still leads here.
                    running.message = error.to_string();
                    return Err(EngineError::Left { id, left: vec![error.to_string()] });
                }
            }
        }
        self.release(&record.lease).await?;
        state.endpoints.remove(&id);
        tracing::info!(endpoint = %id, owner = %record.lease.owner, "endpoint removed");
        if let Err(error) = self.store.remove_endpoint(id) {
            // Its device goes with the pod, and the next start removes an endpoint without a device.
            tracing::warn!(endpoint = %id, %error, "its file is left");
        }
        Ok(())
    }

    /// Gives a lease back to its own mode.
    pub(crate) async fn release(&self, lease: &Lease) -> Result<(), EngineError> {
        if let Some(ended) = self.backends.ipam.release(&lease.mode, &lease.attachment).await? {
            self.counters.released(&ended);
        }
        if lease.mode != self.backends.ipam.preferred().name {
            // It may have been the last one of a mode that drains: then router and health endpoint move, and the mode ends.
            self.wakes.datapath.notify_one();
        }
        self.space_changed();
        Ok(())
    }

    /// Takes over what an earlier run of the agent left: blocks, leases and endpoints. Called once, before anything else.
    pub(crate) async fn restore(&self) -> Result<(), EngineError> {
        let records = self.store.load_endpoints()?;
        let saved = self.store.load_node()?;
        let mut state = self.state().await;
        state.resumed = saved.is_some();
        state.node = saved.unwrap_or_default();
        let leases: Vec<Lease> =
            records.iter().map(|record| &record.lease).chain(&state.node.leases).cloned().collect();
        if let (true, Some(first)) = (state.node.mode.is_empty(), leases.first()) {
            // A file of the first version, which had one mode.
            state.node.mode.clone_from(&first.mode);
        }
        self.prepare_blocks(&state, &leases).await;
        let preferred = &self.backends.ipam.preferred().name;
        if state.node.mode != *preferred {
            // The new mode's blocks are for others to give; of the old ones the leases know theirs.
            tracing::info!(from = state.node.mode, to = preferred, "the IPAM mode of this node");
            state.node.blocks.clear();
            state.node.mode.clone_from(preferred);
        }
        let mut taken = BTreeMap::new();
        let mut own = Vec::new();
        for lease in std::mem::take(&mut state.node.leases) {
            match self.backends.ipam.restore(&lease, &mut taken).await {
                Ok(()) => own.push(lease),
                Err(error) => tracing::warn!(owner = %lease.owner, %error, "lease is not restored"),
            }
        }
        state.node.leases = own;
        for record in records {
            let outcome = self.backends.ipam.restore(&record.lease, &mut taken).await;
            if let Err(error) = &outcome {
                tracing::warn!(endpoint = %record.id, %error, "endpoint is not restored");
            }
            let leased = outcome.is_ok();
            let state_word = if leased { EndpointState::Restoring } else { EndpointState::NotReady };
            let message = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            let running = Running { state: state_word, message, restored: true, leased, record };
            state.endpoints.insert(running.record.id, running);
        }
        tracing::info!(endpoints = state.endpoints.len(), resumed = state.resumed, "took over the earlier run's state");
        Ok(())
    }

    /// Gives every mode the blocks that its leases are from, and the preferred one those that the node had: a lease is
    /// restored only into a block that its mode knows.
    async fn prepare_blocks(&self, state: &State, leases: &[Lease]) {
        let mut blocks: BTreeMap<&str, Vec<Block>> = BTreeMap::new();
        if state.node.mode == self.backends.ipam.preferred().name {
            blocks.insert(&state.node.mode, state.node.blocks.clone());
        }
        for lease in leases {
            let of_mode = blocks.entry(&lease.mode).or_default();
            of_mode.extend(lease.addresses.iter().map(|leased| leased.block.clone()));
        }
        for (name, blocks) in blocks {
            let Some(mode) = self.backends.ipam.get(name) else { continue };
            let mut once: Vec<Block> = Vec::new();
            for block in blocks {
                if !once.contains(&block) {
                    once.push(block);
                }
            }
            let mut desired = IpamDesired { blocks: once, ..IpamDesired::default() };
            // One that is refused must not cost the leases that are from the others.
            while let Err(error) = mode.ipam.apply(&desired).await {
                tracing::warn!(mode = name, %error, "a block of the earlier run cannot be used");
                let before = desired.blocks.len();
                if let IpamError::InvalidBlock { cidr, .. } = error {
                    desired.blocks.retain(|block| block.cidr.trunc() != cidr.trunc());
                }
                if desired.blocks.len() == before {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
