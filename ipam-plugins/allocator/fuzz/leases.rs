//! Blocks and leases as the agent's state files hold them: `{"blocks": [..], "leases": [..], "reserved": [..],
//! "networks": [..]}`, taken back into an allocator as at the agent's start.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use kinesin_core::{
    ipam::{AllocateRequest, Block, IpamDesired, Lease, Owner},
    values::Families,
};
use kinesin_ipam_allocator::{Allocator, Mode};
use serde::Deserialize;

/// A block of the largest size takes 2 MiB.
const MAX_BLOCKS: usize = 16;
/// So that an input takes no seconds.
const MAX_LEASES: usize = 64;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Files {
    blocks: Vec<Block>,
    leases: Vec<Lease>,
    reserved: Vec<IpAddr>,
    networks: Vec<IpNet>,
}

/// Whatever the files say, no address has two holders, and in the end nothing is left over.
pub(crate) fn run(input: &[u8]) {
    let Ok(mut files) = serde_json::from_slice::<Files>(input) else { return };
    files.blocks.truncate(MAX_BLOCKS);
    files.leases.truncate(MAX_LEASES);
    let mut allocator =
        Allocator::new(Mode { name: "fuzz", default_pool: "default".into(), expected_from: "the fuzzer" });
    let desired = IpamDesired { blocks: files.blocks, reserved: files.reserved, node_networks: files.networks };
    if allocator.apply(&desired).is_err() {
        return;
    }
    assert_eq!(allocator.apply(&desired).ok(), Some(false), "the same state changes nothing");
    for lease in &files.leases {
        let before = allocator.snapshot();
        if allocator.restore(lease).is_ok() {
            let ips = |lease: &Lease| lease.addresses.iter().map(|leased| leased.ip).collect::<Vec<_>>();
            let kept = &allocator.snapshot().leases[&lease.attachment];
            assert!(kept.restored && ips(lease).iter().all(|ip| ips(kept).contains(ip)));
        } else {
            assert_eq!(allocator.snapshot(), before, "a refusal changes nothing");
        }
        consistent(&allocator);
    }
    let held = holders(&allocator);
    let request = AllocateRequest {
        attachment: "new:eth0".to_owned(),
        owner: Owner::Container("new".to_owned()),
        families: Families::DUAL,
        pool: None,
    };
    let had_one = allocator.snapshot().leases.contains_key(&request.attachment);
    if let (Ok(lease), false) = (allocator.allocate(&request), had_one) {
        for leased in &lease.addresses {
            assert!(!held.contains_key(&leased.ip), "{} is held by {}", leased.ip, held[&leased.ip]);
            assert!(!desired.reserved.contains(&leased.ip), "{} is reserved", leased.ip);
            assert!(leased.block.cidr.contains(&leased.ip));
        }
    }
    consistent(&allocator);
    // The second of two blocks with the same addresses keeps its leases while it drains.
    let fewer = IpamDesired { blocks: desired.blocks.iter().skip(1).cloned().collect(), ..desired };
    if allocator.apply(&fewer).is_ok() {
        consistent(&allocator);
    }
    for attachment in allocator.snapshot().leases.into_keys() {
        assert!(allocator.release(&attachment).is_some());
        consistent(&allocator);
    }
    assert!(allocator.snapshot().blocks.iter().all(|block| block.leased == 0), "{:?}", allocator.snapshot().blocks);
    assert!(allocator.retire().is_ok());
}

fn holders(allocator: &Allocator) -> BTreeMap<IpAddr, String> {
    let mut holders = BTreeMap::new();
    for (attachment, lease) in allocator.snapshot().leases {
        for leased in lease.addresses {
            let other = holders.insert(leased.ip, attachment.clone());
            assert_eq!(other, None, "{} is leased to {attachment} too", leased.ip);
        }
    }
    holders
}

/// The counts of the blocks are those of the leases.
fn consistent(allocator: &Allocator) {
    let snapshot = allocator.snapshot();
    let held = holders(allocator);
    let counted: u64 = snapshot.blocks.iter().map(|block| block.leased).sum();
    assert_eq!(counted, held.len() as u64, "{snapshot:?}");
    assert!(snapshot.blocks.iter().all(|block| block.leased <= block.capacity), "{snapshot:?}");
}
