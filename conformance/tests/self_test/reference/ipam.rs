//! Addresses in memory, looked for from the lowest on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    capability::Capability,
    ipam::{
        AllocateRequest, Block, BlockSource, BlockUse, Demand, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease,
        LeasedAddress, Owner, PoolDemand,
    },
    registry::{BuildContext, BuildError},
    values::Family,
};

const DEFAULT_POOL: &str = "default";

#[derive(Debug, Default)]
pub(crate) struct Reference {
    state: Mutex<State>,
    /// Whether somebody serves its demand and takes its blocks back.
    asks: bool,
}

#[derive(Debug, Default)]
struct State {
    desired: IpamDesired,
    /// Blocks that were applied once and still have leases.
    draining: Vec<Block>,
    leases: BTreeMap<String, Lease>,
    /// Where the last try of each owner found nothing. Nobody expires: no case lasts that long.
    waiting: BTreeMap<Owner, BTreeSet<(String, Family)>>,
    /// Blocks of the applied state that give no more leases.
    given_back: BTreeSet<Block>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(provides: &[Capability], _: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    Ok(Arc::new(Reference::new(provides)))
}

impl Reference {
    pub(crate) fn new(provides: &[Capability]) -> Self {
        Self { asks: BlockSource::of(provides) != BlockSource::NodePodCidrs, ..Self::default() }
    }

    /// Blocks that are not needed.
    pub(crate) fn spare(&self) -> Vec<Block> {
        if self.asks { self.state().spare() } else { Vec::new() }
    }

    /// Gives no more leases of these blocks.
    pub(crate) fn give_up(&self, blocks: impl IntoIterator<Item = Block>) {
        self.state().given_back.extend(blocks);
    }

    /// Forgets whoever waits.
    pub(crate) fn forget_everybody(&self) {
        self.state().waiting.clear();
    }

    /// Forgets an owner and everything that it has.
    pub(crate) fn forget_leases(&self, owner: &Owner) {
        let mut state = self.state();
        state.waiting.remove(owner);
        state.leases.retain(|_, lease| lease.owner != *owner);
        state.drop_unused();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ipam for Reference {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        let mut state = self.state();
        let old = std::mem::replace(&mut state.desired, desired.clone()).blocks;
        state.draining.extend(old);
        state.given_back.retain(|block| desired.blocks.contains(block));
        state.drop_unused();
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let mut state = self.state();
        state.waiting.remove(&request.owner);
        let mut lease = state.leases.get(&request.attachment).cloned().unwrap_or_else(|| Lease {
            attachment: request.attachment.clone(),
            owner: request.owner.clone(),
            mode: "reference".to_owned(),
            addresses: Vec::new(),
            restored: false,
        });
        let pool = request.pool.as_deref().unwrap_or(DEFAULT_POOL);
        let missing: Vec<Family> = request.families.iter().filter(|family| lease.address(*family).is_none()).collect();
        let lacking = missing.iter().filter(|family| state.find(pool, **family).is_err());
        let lacking: BTreeSet<_> = lacking.map(|family| (pool.to_owned(), *family)).collect();
        if !lacking.is_empty() {
            state.waiting.insert(request.owner.clone(), lacking);
        }
        for family in missing {
            lease.addresses.push(state.find(pool, family)?);
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
            let blocks: Vec<IpNet> = state.giving().chain(&state.draining).map(|block| block.cidr).collect();
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
        let blocks = state.desired.blocks.iter().map(|block| state.used(block, state.given_back.contains(block)));
        let blocks = blocks.chain(state.draining.iter().map(|block| state.used(block, true))).collect();
        IpamSnapshot { blocks, leases: state.leases.clone() }
    }

    fn demand(&self) -> Demand {
        if !self.asks {
            return Demand::default();
        }
        let state = self.state();
        let leased = state.leases.values().flat_map(|lease| &lease.addresses);
        let used = leased.map(|leased| (leased.block.pool.clone(), Family::of_net(&leased.block.cidr)));
        let places: BTreeSet<_> = used.chain(state.waiting.values().flatten().cloned()).collect();
        let pools = places.into_iter().map(|(pool, family)| state.need(pool, family)).collect();
        Demand { pools, bounded: None }
    }

    fn forget_waiting(&self, owner: &Owner) {
        self.state().waiting.remove(owner);
    }

    async fn give_back(&self) -> Result<Vec<Block>, IpamError> {
        self.give_up(self.spare());
        Ok(self.state().given_back.iter().cloned().collect())
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
    fn giving(&self) -> impl Iterator<Item = &Block> {
        self.desired.blocks.iter().filter(|block| !self.given_back.contains(*block))
    }

    fn need(&self, pool: String, family: Family) -> PoolDemand {
        let leased = self.leases.values().flat_map(|lease| &lease.addresses);
        let of = |block: &Block| block.pool == pool && Family::of_net(&block.cidr) == family;
        let in_use = leased.filter(|leased| of(&leased.block)).count() as u64;
        let waiting = self.waiting.values().filter(|places| places.contains(&(pool.clone(), family))).count() as u64;
        PoolDemand { pool, family, in_use, waiting, wanted: in_use + waiting }
    }

    /// The last blocks first, so long as the others have what is wanted.
    fn spare(&self) -> Vec<Block> {
        let mut spare: Vec<Block> = Vec::new();
        for block in self.giving().collect::<Vec<_>>().into_iter().rev() {
            let family = Family::of_net(&block.cidr);
            let of = |other: &&Block| other.pool == block.pool && Family::of_net(&other.cidr) == family;
            let rest = self.giving().filter(of).filter(|other| *other != block && !spare.contains(other));
            let left: u64 = rest.map(|other| self.used(other, false).capacity).sum();
            let unused = self.used(block, false).leased == 0;
            if unused && left >= self.need(block.pool.clone(), family).wanted {
                spare.push(block.clone());
            }
        }
        spare
    }

    fn find(&self, pool: &str, family: Family) -> Result<LeasedAddress, IpamError> {
        let blocks = || {
            let of_pool = self.giving().filter(|block| block.pool == pool);
            of_pool.filter(|block| Family::of_net(&block.cidr) == family)
        };
        if pool != DEFAULT_POOL && !self.giving().any(|block| block.pool == pool) {
            let known = self.giving().map(|block| block.pool.clone()).collect();
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
