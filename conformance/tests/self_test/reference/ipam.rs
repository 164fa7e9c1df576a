//! Addresses in memory, looked for from the lowest on.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Block, BlockUse, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, LeasedAddress},
    registry::{BuildContext, BuildError},
    values::Family,
};

const DEFAULT_POOL: &str = "default";

#[derive(Debug, Default)]
pub(crate) struct Reference(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    desired: IpamDesired,
    /// Blocks that were applied once and still have leases.
    draining: Vec<Block>,
    leases: BTreeMap<String, Lease>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(_: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    Ok(Arc::new(Reference::default()))
}

impl Reference {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ipam for Reference {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut state = self.state();
        let old = std::mem::replace(&mut state.desired, desired.clone()).blocks;
        state.draining.extend(old);
        state.drop_unused();
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let mut state = self.state();
        let mut lease = state.leases.get(&request.attachment).cloned().unwrap_or_else(|| Lease {
            attachment: request.attachment.clone(),
            owner: request.owner.clone(),
            mode: "reference".to_owned(),
            addresses: Vec::new(),
            restored: false,
        });
        for family in request.families.iter() {
            if lease.address(family).is_none() {
                lease.addresses.push(state.find(request.pool.as_deref().unwrap_or(DEFAULT_POOL), family)?);
            }
        }
        lease.addresses.sort_by_key(|leased| Family::of(&leased.ip));
        state.leases.insert(request.attachment.clone(), lease.clone());
        Ok(lease)
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        let mut state = self.state();
        for LeasedAddress { ip, .. } in &lease.addresses {
            if let Some(holder) = state.holder(*ip).filter(|holder| holder.attachment != lease.attachment) {
                let (holder, attachment) = (holder.owner.clone(), lease.attachment.clone());
                return Err(IpamError::Taken { ip: *ip, holder, attachment });
            }
            let blocks: Vec<IpNet> =
                state.desired.blocks.iter().chain(&state.draining).map(|block| block.cidr).collect();
            if !blocks.iter().any(|block| block.contains(ip)) {
                return Err(IpamError::OutOfRange { ip: *ip, blocks });
            }
        }
        state.leases.insert(lease.attachment.clone(), Lease { restored: true, ..lease.clone() });
        Ok(())
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        let mut state = self.state();
        let lease = state.leases.remove(attachment);
        state.drop_unused();
        Ok(lease)
    }

    fn snapshot(&self) -> IpamSnapshot {
        let state = self.state();
        let blocks = state.desired.blocks.iter().map(|block| state.used(block, false));
        let blocks = blocks.chain(state.draining.iter().map(|block| state.used(block, true))).collect();
        IpamSnapshot { blocks, leases: state.leases.clone() }
    }

    async fn retire(&self) -> Result<(), IpamError> {
        let mut state = self.state();
        if state.leases.is_empty() {
            *state = State::default();
            return Ok(());
        }
        Err(IpamError::InUse { leases: state.leases.len() })
    }
}

impl State {
    fn find(&self, pool: &str, family: Family) -> Result<LeasedAddress, IpamError> {
        let blocks = || {
            let of_pool = self.desired.blocks.iter().filter(|block| block.pool == pool);
            of_pool.filter(|block| Family::of_net(&block.cidr) == family)
        };
        if pool != DEFAULT_POOL && !self.desired.blocks.iter().any(|block| block.pool == pool) {
            let known = self.desired.blocks.iter().map(|block| block.pool.clone()).collect();
            return Err(IpamError::UnknownPool { pool: pool.to_owned(), mode: "reference".to_owned(), known });
        }
        if blocks().next().is_none() {
            return Err(IpamError::NotReady { family, expected_from: "the test".to_owned() });
        }
        let mut all = blocks().flat_map(|block| self.leasable(block).into_iter().map(move |ip| (ip, block)));
        match all.find(|(ip, _)| self.holder(*ip).is_none()) {
            Some((ip, block)) => Ok(LeasedAddress { ip, block: block.clone() }),
            None => Err(IpamError::Exhausted {
                pool: pool.to_owned(),
                family,
                leased: blocks().map(|block| self.used(block, false).leased).sum(),
                capacity: blocks().map(|block| self.used(block, false).capacity).sum(),
            }),
        }
    }

    fn leasable(&self, block: &Block) -> Vec<IpAddr> {
        let alone = block.cidr.max_prefix_len() - block.cidr.prefix_len() < 2;
        let good = |ip: &IpAddr| alone || (*ip != block.cidr.network() && *ip != block.cidr.broadcast());
        block.cidr.hosts().filter(good).filter(|ip| !self.desired.reserved.contains(ip)).collect()
    }

    fn holder(&self, ip: IpAddr) -> Option<&Lease> {
        self.leases.values().find(|lease| lease.addresses.iter().any(|leased| leased.ip == ip))
    }

    fn used(&self, block: &Block, draining: bool) -> BlockUse {
        let held = self.leases.values().flat_map(|lease| &lease.addresses).filter(|leased| leased.block == *block);
        let leased = held.count() as u64;
        let free = self.leasable(block).into_iter().filter(|ip| self.holder(*ip).is_none()).count() as u64;
        BlockUse { block: block.clone(), leased, capacity: leased + free, draining }
    }

    fn drop_unused(&mut self) {
        let mut draining = std::mem::take(&mut self.draining);
        draining.retain(|block| !self.desired.blocks.contains(block) && self.used(block, true).leased > 0);
        draining.sort();
        draining.dedup();
        self.draining = draining;
    }
}
