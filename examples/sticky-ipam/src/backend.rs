//! The trait implementation: leases and last holders, from which everything else follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io, net::IpAddr, path::PathBuf};

use async_trait::async_trait;
use kinesin_core::ipam::{
    AllocateRequest, Block, BlockUse, Ipam, IpamDesired, IpamError, IpamSnapshot, Lease, LeasedAddress, Owner,
};
use kinesin_core::registry::{BuildContext, BuildError};
use kinesin_core::values::Family;

use crate::NAME;

/// Addresses of a block that are leased at most; an IPv6 block has more than anybody can look through.
const PER_BLOCK: usize = 4096;
const POOL: &str = "default";

/// It has no options; whoever writes one is told so.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

#[derive(Debug)]
struct Sticky {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    desired: IpamDesired,
    leases: BTreeMap<String, Lease>,
    /// Who held each address last, and when: a count of leases and releases. None until it is read from the file.
    last: Option<BTreeMap<IpAddr, (u64, Owner)>>,
}

pub(crate) fn build(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
    let Config {} = context.section.parse()?;
    Ok(Arc::new(Sticky { file: context.state_dir.join("sticky.json"), state: Mutex::default() }))
}

impl Sticky {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last.get_or_insert_with(|| {
            let read = fs::read(&self.file).and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
            read.unwrap_or_else(|error| {
                tracing::info!(path = ?self.file, %error, "no address is remembered");
                BTreeMap::new()
            })
        });
        state
    }

    /// Writes down that these addresses are or were held just now. A full disk must not keep pods from starting.
    fn note(&self, state: &mut State, lease: &Lease) {
        let mut last = state.last.take().unwrap_or_default();
        last.retain(|ip, _| state.blocks().iter().any(|block| block.cidr.contains(ip)));
        let now = last.values().map(|(when, _)| when + 1).max().unwrap_or(0);
        last.extend(lease.addresses.iter().map(|leased| (leased.ip, (now, lease.owner.clone()))));
        let new = self.file.with_extension("new");
        let text = serde_json::to_vec(&last).map_err(io::Error::from);
        if let Err(error) = text.and_then(|text| fs::write(&new, text)).and_then(|()| fs::rename(&new, &self.file)) {
            tracing::warn!(path = ?self.file, %error, "who held which address is not written down");
        }
        state.last = Some(last);
    }
}

#[async_trait]
impl Ipam for Sticky {
    async fn apply(&self, desired: &IpamDesired) -> Result<(), IpamError> {
        for Block { cidr, .. } in &desired.blocks {
            // A single address of the node is left out of a block; a network that overlaps it is a mistake.
            let networks = desired.node_networks.iter().filter(|net| net.prefix_len() < net.max_prefix_len());
            if let Some(net) = networks.into_iter().find(|net| net.contains(cidr) || cidr.contains(*net)) {
                let reason = format!("it overlaps {net}, a network of this node; give the node another pod CIDR");
                return Err(IpamError::InvalidBlock { cidr: *cidr, reason });
            }
        }
        self.state().desired = desired.clone();
        Ok(())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Lease, IpamError> {
        let mut state = self.state();
        let mut lease = state.leases.get(&request.attachment).cloned().unwrap_or_else(|| Lease {
            attachment: request.attachment.clone(),
            owner: request.owner.clone(),
            mode: NAME.to_owned(),
            addresses: Vec::new(),
            restored: false,
        });
        let held = lease.addresses.len();
        for family in request.families.iter().filter(|family| lease.address(*family).is_none()).collect::<Vec<_>>() {
            lease.addresses.push(state.find(request.pool.as_deref().unwrap_or(POOL), family, &request.owner)?);
        }
        if lease.addresses.len() > held {
            lease.addresses.sort_by_key(|leased| Family::of(&leased.ip));
            state.leases.insert(request.attachment.clone(), lease.clone());
            self.note(&mut state, &lease);
        }
        Ok(lease)
    }

    async fn restore(&self, lease: &Lease) -> Result<(), IpamError> {
        let mut state = self.state();
        for ip in lease.addresses.iter().map(|leased| leased.ip) {
            let holder = state.leases.values().find(|held| held.addresses.iter().any(|leased| leased.ip == ip));
            if let Some(holder) = holder.filter(|holder| holder.attachment != lease.attachment) {
                let (holder, attachment) = (holder.owner.clone(), lease.attachment.clone());
                return Err(IpamError::Taken { ip, holder, attachment });
            }
            if !state.blocks().iter().any(|block| block.cidr.contains(&ip)) {
                let blocks = state.blocks().iter().map(|block| block.cidr).collect();
                return Err(IpamError::OutOfRange { ip, blocks });
            }
        }
        state.leases.insert(lease.attachment.clone(), Lease { restored: true, ..lease.clone() });
        self.note(&mut state, lease);
        Ok(())
    }

    async fn release(&self, attachment: &str) -> Result<Option<Lease>, IpamError> {
        let mut state = self.state();
        let lease = state.leases.remove(attachment);
        lease.iter().for_each(|lease| self.note(&mut state, lease));
        Ok(lease)
    }

    fn snapshot(&self) -> IpamSnapshot {
        let state = self.state();
        let blocks = state.blocks().into_iter().map(|block| state.usage(block)).collect();
        IpamSnapshot { blocks, leases: state.leases.clone() }
    }

    async fn retire(&self) -> Result<(), IpamError> {
        let mut state = self.state();
        if !state.leases.is_empty() {
            return Err(IpamError::InUse { leases: state.leases.len() });
        }
        *state = State::default();
        match fs::remove_file(&self.file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IpamError::Store { path: self.file.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

impl State {
    /// The free address that suits the owner best: its own last one, else nobody's, else the one that rests for longest.
    fn find(&self, pool: &str, family: Family, owner: &Owner) -> Result<LeasedAddress, IpamError> {
        if pool != POOL {
            let (pool, known) = (pool.to_owned(), vec![POOL.to_owned()]);
            return Err(IpamError::UnknownPool { pool, mode: NAME.to_owned(), known });
        }
        let blocks: Vec<_> = self.desired.blocks.iter().filter(|b| Family::of_net(&b.cidr) == family).collect();
        if blocks.is_empty() {
            return Err(IpamError::NotReady { family, expected_from: "Node.spec.podCIDRs".to_owned() });
        }
        let rank = |ip: &IpAddr| match self.last.as_ref().and_then(|last| last.get(ip)) {
            Some((when, holder)) if holder == owner => (0, u64::MAX - when),
            None => (1, 0),
            Some((when, _)) => (2, *when),
        };
        let free = blocks.iter().flat_map(|block| self.free(block).into_iter().map(move |ip| (ip, block)));
        if let Some((ip, block)) = free.min_by_key(|(ip, _)| rank(ip)) {
            return Ok(LeasedAddress { ip, block: (*block).clone() });
        }
        let leased = blocks.iter().map(|block| self.usage(block).leased).sum();
        Err(IpamError::Exhausted { pool: pool.to_owned(), family, leased, capacity: leased })
    }

    /// Free addresses of a block; without its first and last one, where it has more than two.
    fn free(&self, block: &Block) -> Vec<IpAddr> {
        let taken: BTreeSet<IpAddr> = self.leases.values().flat_map(|l| &l.addresses).map(|leased| leased.ip).collect();
        let own =
            |ip: &IpAddr| self.desired.node_networks.contains(&(*ip).into()) || self.desired.reserved.contains(ip);
        let (net, ends) = (block.cidr, block.cidr.max_prefix_len() - block.cidr.prefix_len() >= 2);
        let all = net.hosts().filter(|ip| !ends || (*ip != net.network() && *ip != net.broadcast())).take(PER_BLOCK);
        all.filter(|ip| !own(ip) && !taken.contains(ip)).collect()
    }

    /// Applied blocks, then those that left and still have leases.
    fn blocks(&self) -> Vec<&Block> {
        let applied = &self.desired.blocks;
        let leased: BTreeSet<&Block> = self.leases.values().flat_map(|l| &l.addresses).map(|a| &a.block).collect();
        applied.iter().chain(leased.into_iter().filter(|block| !applied.contains(block))).collect()
    }

    fn usage(&self, block: &Block) -> BlockUse {
        let held = self.leases.values().flat_map(|lease| &lease.addresses).filter(|leased| leased.block == *block);
        let (leased, free) = (held.count() as u64, self.free(block).len() as u64);
        let draining = !self.desired.blocks.contains(block);
        BlockUse { block: block.clone(), leased, capacity: leased + free, draining }
    }
}
