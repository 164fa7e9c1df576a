//! One story per behaviour.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use kinesin_core::{
    ipam::{IpamDesired, IpamError, Lease, LeasedAddress},
    values::{Families, Family},
};

use super::{
    harness::{Harness, Node, block, ip, only, request},
    history,
    model::leasable,
};
use crate::{
    contract::workbench::Waiter,
    outcome::{Judged, Stop, ensure},
};

/// Six addresses of each family; in IPv6 a backend may use the last one too.
pub(super) const SMALL: [&str; 2] = ["10.1.0.0/29", "fd00:1::/125"];
/// Another six.
pub(super) const OTHER: [&str; 2] = ["10.2.0.0/29", "fd00:2::/125"];

pub(super) fn ipam_1(harness: &Harness) -> Judged {
    // Down to a single address; a backend may refuse what is too small for a node, but not misuse it.
    for cidrs in
        [SMALL, ["10.1.0.8/30", "fd00:1::8/126"], ["10.1.0.2/31", "fd00:1::2/127"], ["10.1.0.3/32", "fd00:1::3/128"]]
    {
        let node = harness.node()?;
        match node.apply(&node.state(&cidrs))? {
            Err(IpamError::InvalidBlock { .. }) if cidrs != SMALL => continue,
            applied => applied.map_err(|error| Stop::broken(format!("{cidrs:?} were refused: {error}")))?,
        }
        for family in node.families.iter() {
            let (leases, _) = node.fill(family)?;
            ensure!(!leases.is_empty(), "not one {family} address comes from {cidrs:?}");
            for leased in leases.iter().flat_map(|lease| &lease.addresses) {
                let holds = cidrs.iter().map(|cidr| block(cidr)).find(|block| block.cidr.contains(&leased.ip));
                let holds = holds.ok_or_else(|| Stop::broken(format!("{} is in none of {cidrs:?}", leased.ip)))?;
                ensure!(leased.block == holds, "{} is said to come from {:?}", leased.ip, leased.block);
                ensure!(leasable(&holds).contains(&leased.ip), "{} of {} was leased", leased.ip, holds.cidr);
            }
        }
    }
    history::judge(harness, "IPAM-1")
}

pub(super) fn ipam_2(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&["10.1.0.0/27", "fd00:1::/123"]))?;
    // From several threads at a time, as pods start.
    let leases = Mutex::new(Vec::new());
    let (ipam, families) = (Arc::clone(&node.ipam), node.families);
    let started: Judged = thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|thread| {
                let (ipam, leases) = (&ipam, &leases);
                scope.spawn(move || -> Judged {
                    let waiter = Waiter::new()?;
                    for number in 0..4 {
                        let request = request(&format!("{thread}-{number}"), families);
                        let lease = waiter.wait("allocate", ipam.allocate(&request))?;
                        let lease = lease.map_err(|error| Stop::broken(format!("24 of 30 are not free: {error}")))?;
                        leases.lock().unwrap_or_else(PoisonError::into_inner).push(lease);
                    }
                    Ok(())
                })
            })
            .collect();
        let joined = |thread: thread::ScopedJoinHandle<'_, Judged>| {
            thread.join().unwrap_or_else(|_| Err(Stop::broken("allocate panicked")))
        };
        threads.into_iter().try_for_each(joined)
    });
    started?;
    all_different(&leases.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    history::judge(harness, "IPAM-2")
}

pub(super) fn ipam_3(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    let first = node.lease("a")?;
    node.lease("b")?;
    for _ in 0..3 {
        let again = node.lease("a")?;
        ensure!(again == first, "the first lease was {first:?}, the next {again:?}");
    }
    if node.families == Families::DUAL {
        let four = node.allocate("c", only(Family::V4))?.map_err(free)?;
        let both = node.lease("c")?;
        ensure!(both.address(Family::V4) == four.address(Family::V4), "asked for IPv6 too, {four:?} became {both:?}");
        let fewer = node.allocate("c", only(Family::V6))?.map_err(free)?;
        ensure!(fewer == both, "asked for IPv6 alone, {both:?} became {fewer:?}");
    }
    history::judge(harness, "IPAM-3")
}

pub(super) fn ipam_4(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    let lease = node.lease("a")?;
    let families: Vec<Family> = lease.addresses.iter().map(|leased| Family::of(&leased.ip)).collect();
    let wanted: Vec<Family> = node.families.iter().collect();
    ensure!(families == wanted, "{wanted:?} were asked for, IPv4 first, and {families:?} given");

    // The other family has no block, so that a request for both cannot be met.
    for family in node.families.iter() {
        let node = harness.node()?;
        let only: Vec<&str> = SMALL.into_iter().filter(|cidr| Family::of_net(&block(cidr).cidr) == family).collect();
        node.take(&node.state(&only))?;
        if let Ok(lease) = node.allocate("a", Families::DUAL)? {
            return Err(Stop::broken(format!("with {only:?} alone, a request for both families got {lease:?}")));
        }
        let left = node.snapshot().leases;
        ensure!(left.is_empty(), "a request that failed left {left:?}");
    }
    history::judge(harness, "IPAM-4")
}

pub(super) fn ipam_5(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    ensure!(node.release("nobody")?.is_none(), "what nobody has leased was released");
    for family in node.families.iter() {
        let (leases, _) = node.fill(family)?;
        for lease in &leases {
            let ended = node.release(&lease.attachment)?;
            ensure!(ended.as_ref() == Some(lease), "{lease:?} was released, and {ended:?} ended");
            ensure!(node.release(&lease.attachment)?.is_none(), "{:?} was released twice", lease.attachment);
        }
        let again: BTreeSet<_> =
            node.fill(family)?.0.into_iter().flat_map(|lease| lease.addresses).map(|a| a.ip).collect();
        let before: BTreeSet<_> = leases.iter().flat_map(|lease| &lease.addresses).map(|leased| leased.ip).collect();
        ensure!(again == before, "all of {before:?} were released, and {again:?} can be leased again");
    }
    history::judge(harness, "IPAM-5")
}

pub(super) fn ipam_6(harness: &Harness) -> Judged {
    let mut node = harness.node()?;
    let state = node.state(&SMALL);
    node.take(&state)?;
    let leases = [node.lease("a")?, node.lease("b")?, node.lease("c")?];
    node.restart()?;
    node.take(&state)?;
    for lease in &leases {
        node.restore(lease)?.map_err(|error| Stop::broken(format!("{lease:?} was not restored: {error}")))?;
        let held = node.lease(&lease.attachment)?;
        let expected = Lease { restored: true, ..lease.clone() };
        ensure!(held == expected, "{expected:?} was restored, and {held:?} is held");
    }
    let before = node.snapshot();
    let thief =
        Lease { attachment: "thief".to_owned(), owner: request("thief", node.families).owner, ..leases[0].clone() };
    match node.restore(&thief)? {
        Err(IpamError::Taken { .. }) => {}
        other => return Err(Stop::broken(format!("the addresses of \"a\" were restored for \"thief\": {other:?}"))),
    }
    let stray =
        Lease { addresses: vec![LeasedAddress { ip: ip("192.0.2.77"), block: block("192.0.2.0/24") }], ..thief };
    match node.restore(&stray)? {
        Err(IpamError::OutOfRange { .. }) => {}
        other => return Err(Stop::broken(format!("an address outside every block was restored: {other:?}"))),
    }
    ensure!(node.snapshot() == before, "refused restores left {:?}", node.snapshot());
    history::judge(harness, "IPAM-6")
}

pub(super) fn ipam_7(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    for family in node.families.iter() {
        let (leases, error) = node.fill(family)?;
        let before = node.snapshot();
        let count = leases.len() as u64;
        match &error {
            IpamError::Exhausted { pool, family: full, leased, capacity } => {
                let said = (pool.as_str(), *full, *leased, *capacity);
                let seen = ("default", family, count, count);
                ensure!(said == seen, "{seen:?} is full, and the answer says {said:?}");
            }
            other => return Err(Stop::broken(format!("the answer of a full pool is {other:?}"))),
        }
        // IPv4 is exact; whether the last IPv6 address is used is the backend's choice.
        ensure!(
            count == 6 || (family == Family::V6 && count == 7),
            "{count} {family} addresses of {SMALL:?} were leased"
        );
        let _refused = node.allocate("one-more", node.families)?;
        ensure!(node.snapshot() == before, "a refused request left {:?}", node.snapshot());
    }
    history::judge(harness, "IPAM-7")
}

pub(super) fn ipam_8(harness: &Harness) -> Judged {
    let node = harness.node()?;
    let state = node.state(&SMALL);
    node.take(&state)?;
    let lease = node.lease("a")?;
    let before = node.snapshot();
    node.take(&state)?;
    ensure!(node.snapshot() == before, "the same state turned {before:?} into {:?}", node.snapshot());
    node.take(&node.state(&OTHER))?;
    ensure!(
        node.lease("a")? == lease,
        "the block of {lease:?} left the state, and the lease is {:?}",
        node.lease("a")?
    );
    for family in node.families.iter() {
        for leased in node.fill(family)?.0.iter().flat_map(|lease| &lease.addresses) {
            let old = SMALL.iter().any(|cidr| block(cidr).cidr.contains(&leased.ip));
            ensure!(!old, "{} was leased after its block had left the state", leased.ip);
        }
    }
    let draining = node.snapshot().blocks.iter().filter(|used| used.draining).count();
    ensure!(draining == node.families.iter().count(), "{draining} blocks drain, one of each family should");
    node.release("a")?;
    ensure!(!node.snapshot().blocks.iter().any(|used| used.draining), "a block without leases is still there");
    history::judge(harness, "IPAM-8")
}

pub(super) fn ipam_9(harness: &Harness) -> Judged {
    let node = harness.node()?;
    let reserved = ["10.1.0.1", "10.1.0.5", "fd00:1::1", "fd00:1::5", "192.0.2.1"].map(ip).to_vec();
    node.take(&IpamDesired { reserved: reserved.clone(), ..node.state(&SMALL) })?;
    for family in node.families.iter() {
        for leased in node.fill(family)?.0.iter().flat_map(|lease| &lease.addresses) {
            ensure!(!reserved.contains(&leased.ip), "{} is reserved and was leased", leased.ip);
        }
    }
    history::judge(harness, "IPAM-9")
}

pub(super) fn ipam_10(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    node.lease("a")?;
    match node.retire()? {
        Err(IpamError::InUse { leases: 1 }) => {}
        other => return Err(Stop::broken(format!("with one lease left, retire answered {other:?}"))),
    }
    node.release("a")?;
    for time in ["the first", "the second"] {
        node.retire()?.map_err(|error| Stop::broken(format!("retire failed {time} time: {error}")))?;
    }
    let left = node.snapshot();
    ensure!(left.blocks.is_empty() && left.leases.is_empty(), "retire left {left:?}");
    let files = node.files()?;
    ensure!(files.is_empty(), "retire left the files {files:?}");
    usable_again(&node)?;
    history::judge(harness, "IPAM-10")
}

fn usable_again(node: &Node<'_>) -> Judged {
    if let Ok(lease) = node.allocate("b", node.families)? {
        return Err(Stop::broken(format!("after retire {lease:?} was leased from nothing")));
    }
    node.take(&node.state(&SMALL))?;
    node.lease("b").map(drop)
}

fn all_different(leases: &[Lease]) -> Judged {
    let mut seen = BTreeSet::new();
    for leased in leases.iter().flat_map(|lease| &lease.addresses) {
        ensure!(seen.insert(leased.ip), "{} was leased to two attachments", leased.ip);
    }
    Ok(())
}

fn free(error: IpamError) -> Stop {
    Stop::broken(format!("allocate failed while addresses are free: {error}"))
}
