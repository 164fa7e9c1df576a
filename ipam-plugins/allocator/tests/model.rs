//! The allocator against a map: random applies, leases, releases, restores, exhaustion and retirement.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Block, IpamDesired, IpamError, Lease, LeasedAddress, Owner},
    values::{Families, Family},
};
use kinesin_ipam_allocator::{Allocator, Mode, Range};
use proptest::prelude::*;

const MODE: Mode = Mode { name: "model", default_pool: Cow::Borrowed("default"), expected_from: "the test" };

/// Small and overlapping blocks, so that exhaustion, draining and overlap are common.
const BLOCKS: [(&str, &str); 8] = [
    ("default", "10.0.0.0/29"),
    ("default", "10.0.0.0/28"),
    ("default", "10.0.1.0/31"),
    ("default", "10.0.2.7/32"),
    ("other", "10.0.3.0/30"),
    ("default", "fd00::/125"),
    ("default", "fd00:1::/127"),
    ("other", "fd00:2::/64"),
];

const RESERVED: [&str; 4] = ["10.0.0.1", "10.0.0.6", "fd00::2", "192.0.2.1"];

#[derive(Debug, Clone)]
enum Step {
    Apply { blocks: Vec<usize>, reserved: Vec<usize> },
    Allocate { who: u8, families: Families, pool: Option<&'static str> },
    Release { who: u8 },
    Restore { who: u8, block: usize, offset: u8 },
    RestoreOwn { who: u8 },
    Retire,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let families = prop_oneof![
        Just(Families { v4: true, v6: false }),
        Just(Families { v4: false, v6: true }),
        Just(Families::DUAL)
    ];
    let pool = prop_oneof![3 => Just(None), 1 => Just(Some("other")), 1 => Just(Some("nowhere"))];
    let apply = (prop::collection::vec(0..BLOCKS.len(), 0..6), prop::collection::vec(0..RESERVED.len(), 0..3));
    let step = prop_oneof![
        2 => apply.prop_map(|(blocks, reserved)| Step::Apply { blocks, reserved }),
        10 => (0_u8..30, families, pool).prop_map(|(who, families, pool)| Step::Allocate { who, families, pool }),
        4 => (0_u8..30).prop_map(|who| Step::Release { who }),
        3 => (0_u8..30, 0..BLOCKS.len(), 0_u8..18).prop_map(|(who, block, offset)| Step::Restore { who, block, offset }),
        1 => (0_u8..30).prop_map(|who| Step::RestoreOwn { who }),
        1 => Just(Step::Retire),
    ];
    prop::collection::vec(step, 1..120)
}

fn block(index: usize) -> Block {
    let (pool, cidr) = BLOCKS[index];
    Block { pool: pool.to_owned(), cidr: cidr.parse().expect("a network") }
}

fn name(who: u8) -> String {
    format!("c{who}:eth0")
}

/// Every address that can be leased from a block, as long as there are few.
fn usable(cidr: IpNet) -> BTreeSet<IpAddr> {
    let range = Range::new(cidr).expect("usable");
    let all: Vec<IpAddr> = match cidr {
        IpNet::V4(net) => {
            let first = u32::from(net.network());
            (0..20).map(|offset| IpAddr::from((first + offset).to_be_bytes())).collect()
        }
        IpNet::V6(net) => {
            let first = u128::from(net.network());
            (0..20).map(|offset| IpAddr::from((first + offset).to_be_bytes())).collect()
        }
    };
    all.into_iter().filter(|ip| range.index_of(*ip).is_some()).collect()
}

/// What must hold, written down as a map and sets.
#[derive(Debug, Default)]
struct Model {
    blocks: Vec<Block>,
    reserved: BTreeSet<IpAddr>,
    leases: BTreeMap<String, Lease>,
}

impl Model {
    fn held(&self) -> BTreeSet<IpAddr> {
        self.leases.values().flat_map(|lease| &lease.addresses).map(|leased| leased.ip).collect()
    }

    fn draining(&self) -> BTreeSet<Block> {
        let of_leases = self.leases.values().flat_map(|lease| &lease.addresses).map(|leased| leased.block.clone());
        of_leases.filter(|block| !self.blocks.contains(block)).collect()
    }

    /// Whether an address of a pool and family is free; none when the block is too large to list.
    fn free(&self, pool: &str, family: Family) -> Option<bool> {
        let held = self.held();
        let mut blocks = self.blocks.iter().filter(|block| block.pool == pool && Family::of_net(&block.cidr) == family);
        if blocks.clone().any(|block| block.cidr.max_prefix_len() - block.cidr.prefix_len() > 8) {
            return None;
        }
        Some(blocks.any(|block| usable(block.cidr).iter().any(|ip| !held.contains(ip) && !self.reserved.contains(ip))))
    }

    fn has(&self, pool: &str, family: Family) -> bool {
        self.blocks.iter().any(|block| block.pool == pool && Family::of_net(&block.cidr) == family)
    }
}

fn check(model: &Model, allocator: &Allocator) -> Result<(), TestCaseError> {
    let snapshot = allocator.snapshot();
    prop_assert_eq!(&snapshot.leases, &model.leases);
    let active: Vec<Block> =
        snapshot.blocks.iter().filter(|found| !found.draining).map(|found| found.block.clone()).collect();
    prop_assert_eq!(&active, &model.blocks);
    let draining: BTreeSet<Block> =
        snapshot.blocks.iter().filter(|found| found.draining).map(|found| found.block.clone()).collect();
    prop_assert_eq!(draining, model.draining());
    for found in &snapshot.blocks {
        let leased = model.leases.values().flat_map(|lease| &lease.addresses);
        prop_assert_eq!(found.leased, leased.filter(|leased| leased.block == found.block).count() as u64);
        prop_assert!(found.leased <= found.capacity);
    }
    let total: usize = model.leases.values().map(|lease| lease.addresses.len()).sum();
    prop_assert_eq!(model.held().len(), total, "IPAM-2: no address twice");
    Ok(())
}

fn allocate(
    model: &mut Model,
    allocator: &mut Allocator,
    who: u8,
    families: Families,
    pool: Option<&str>,
) -> Result<(), TestCaseError> {
    let owner = Owner::Container(name(who));
    let request = AllocateRequest { attachment: name(who), owner, families, pool: pool.map(str::to_owned) };
    let before = model.leases.get(&name(who)).cloned();
    let missing: Vec<Family> =
        families.iter().filter(|family| before.as_ref().is_none_or(|lease| lease.address(*family).is_none())).collect();
    let pool = pool.unwrap_or("default");
    match allocator.allocate(&request) {
        Ok(lease) => {
            for family in families.iter() {
                prop_assert!(lease.address(family).is_some(), "IPAM-4: every requested family");
            }
            for old in before.iter().flat_map(|lease| &lease.addresses) {
                prop_assert!(lease.addresses.contains(old), "IPAM-3: what was leased stays");
            }
            let held = model.held();
            for leased in lease.addresses.iter().filter(|leased| missing.contains(&Family::of(&leased.ip))) {
                prop_assert!(model.blocks.contains(&leased.block), "IPAM-8: only applied blocks give leases");
                prop_assert_eq!(&leased.block.pool, pool);
                prop_assert!(Range::new(leased.block.cidr).expect("usable").index_of(leased.ip).is_some(), "IPAM-1");
                prop_assert!(!held.contains(&leased.ip), "IPAM-2");
                prop_assert!(!model.reserved.contains(&leased.ip), "IPAM-9");
            }
            model.leases.insert(name(who), lease);
        }
        Err(IpamError::Exhausted { pool: named, family, leased, capacity }) => {
            prop_assert_eq!(named, pool);
            prop_assert_eq!(
                model.free(pool, family),
                Some(false),
                "IPAM-7: exhausted although there is a free address"
            );
            prop_assert_eq!(leased, capacity);
        }
        Err(IpamError::NotReady { family, .. }) => prop_assert!(!model.has(pool, family)),
        Err(IpamError::UnknownPool { known, .. }) => {
            prop_assert!(!known.iter().any(|found| found == pool) && pool != "default");
            prop_assert!(!Family::ALL.iter().any(|family| model.has(pool, *family)));
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    Ok(())
}

fn restore(model: &mut Model, allocator: &mut Allocator, lease: Lease) -> Result<(), TestCaseError> {
    let known = |model: &Model| model.blocks.iter().cloned().chain(model.draining()).collect::<Vec<_>>();
    let others: BTreeSet<IpAddr> = model
        .leases
        .values()
        .filter(|other| other.attachment != lease.attachment)
        .flat_map(|other| &other.addresses)
        .map(|leased| leased.ip)
        .collect();
    let holds = |block: &Block, ip| Range::new(block.cidr).expect("usable").index_of(ip).is_some();
    match allocator.restore(&lease) {
        Ok(()) => {
            let found = allocator.snapshot().leases.get(&lease.attachment).cloned().expect("restored");
            prop_assert!(found.restored, "IPAM-6: marked");
            let ips = |lease: &Lease| lease.addresses.iter().map(|leased| leased.ip).collect::<Vec<_>>();
            prop_assert_eq!(ips(&found), ips(&lease), "IPAM-6: exactly its addresses");
            for leased in &found.addresses {
                prop_assert!(known(model).contains(&leased.block) && holds(&leased.block, leased.ip));
                prop_assert!(!others.contains(&leased.ip) && !model.reserved.contains(&leased.ip));
            }
            model.leases.insert(lease.attachment.clone(), found);
        }
        Err(IpamError::Taken { ip, .. }) => prop_assert!(others.contains(&ip) || model.reserved.contains(&ip)),
        Err(IpamError::OutOfRange { ip, .. }) => prop_assert!(!known(model).iter().any(|block| holds(block, ip))),
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    Ok(())
}

fn run(model: &mut Model, allocator: &mut Allocator, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Apply { blocks, reserved } => {
            let desired = IpamDesired {
                blocks: blocks.into_iter().map(block).collect(),
                reserved: reserved.into_iter().map(|index| RESERVED[index].parse().expect("an address")).collect(),
                node_networks: vec!["192.168.0.0/16".parse().expect("a network")],
            };
            allocator.apply(&desired).expect("valid blocks");
            prop_assert!(!allocator.apply(&desired).expect("valid blocks"), "IPAM-8: the same state changes nothing");
            model.blocks.clear();
            for block in desired.blocks {
                if !model.blocks.contains(&block) {
                    model.blocks.push(block);
                }
            }
            model.reserved = desired.reserved.into_iter().collect();
        }
        Step::Allocate { who, families, pool } => allocate(model, allocator, who, families, pool)?,
        Step::Release { who } => {
            prop_assert_eq!(allocator.release(&name(who)), model.leases.remove(&name(who)), "IPAM-5");
        }
        Step::Restore { who, block: index, offset } => {
            let block = block(index);
            let ip = match block.cidr.network() {
                IpAddr::V4(ip) => IpAddr::from((u32::from(ip) + u32::from(offset)).to_be_bytes()),
                IpAddr::V6(ip) => IpAddr::from((u128::from(ip) + u128::from(offset)).to_be_bytes()),
            };
            let lease = Lease {
                attachment: name(who),
                owner: Owner::Container(name(who)),
                mode: "model".to_owned(),
                addresses: vec![LeasedAddress { ip, block }],
                restored: false,
            };
            restore(model, allocator, lease)?;
        }
        Step::RestoreOwn { who } => {
            if let Some(lease) = model.leases.get(&name(who)).cloned() {
                restore(model, allocator, lease)?;
            }
        }
        Step::Retire => match allocator.retire() {
            Ok(()) => {
                prop_assert!(model.leases.is_empty(), "IPAM-10");
                *model = Model::default();
            }
            Err(IpamError::InUse { leases }) => prop_assert_eq!(leases, model.leases.len()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        },
    }
    check(model, allocator)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn allocator_agrees_with_the_model(steps in steps()) {
        let (mut model, mut allocator) = (Model::default(), Allocator::new(MODE));
        for step in steps {
            run(&mut model, &mut allocator, step)?;
        }
    }
}
