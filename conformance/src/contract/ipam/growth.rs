//! The stories of a node that asks for blocks and gives blocks back: IPAM-12 to IPAM-16.
//!
//! A mode whose blocks nobody gives out must do neither, and is judged by that. How long somebody waits before the demand
//! forgets him is not judged: it takes five minutes of a clock that a case cannot turn.

use std::{collections::BTreeMap, thread, time::Duration};

use kinesin_core::{
    ipam::{AllocateRequest, Block, IpamDesired, Lease, LeasedAddress},
    values::Family,
};

use super::{
    behaviours::{OTHER, SMALL},
    harness::{DEFAULT_POOL, Harness, Node, ip, request},
    history,
    model::{Breach, leasable},
    owed::Owed,
};
use crate::outcome::{Judged, Stop, ensure};

/// Five blocks of each family, of which a node without pods needs few.
const MANY: [&str; 10] = [
    "10.1.0.0/29",
    "10.2.0.0/29",
    "10.3.0.0/29",
    "10.4.0.0/29",
    "10.5.0.0/29",
    "fd00:1::/125",
    "fd00:2::/125",
    "fd00:3::/125",
    "fd00:4::/125",
    "fd00:5::/125",
];
/// How often, and after how long each time, a mode is asked again that lets blocks rest.
const ASKED: (u32, Duration) = (100, Duration::from_millis(100));

pub(super) fn ipam_12(harness: &Harness) -> Judged {
    let node = harness.node()?;
    if node.asks {
        counts(&node)?;
    } else {
        node.take(&node.state(&SMALL))?;
        node.lease("a")?;
        broken(Owed::default().counted(&node, &node.snapshot().leases))?;
    }
    history::judge(harness, "IPAM-12")
}

fn counts(node: &Node<'_>) -> Judged {
    let told = |family: Family| {
        let (demand, before) = (node.demand(), node.snapshot());
        ensure!(node.demand() == demand && node.snapshot() == before, "asking for the demand changed it: {demand:?}");
        Ok(demand.of(DEFAULT_POOL, family).map_or((0, 0), |found| (found.in_use, found.waiting)))
    };
    let all = |when: &str, in_use: u64, waiting: u64| -> Judged {
        node.families.iter().try_for_each(|family| {
            let (found, expected) = (told(family)?, (in_use, waiting));
            ensure!(found == expected, "{when}: {expected:?} {family} are in use and waiting, told are {found:?}");
            Ok(())
        })
    };
    let early = node.allocate("early", node.families)?;
    ensure!(early.is_err(), "{early:?} came from nothing");
    all("before the first blocks", 0, 1)?;
    node.take(&node.state(&SMALL))?;
    node.lease("a")?;
    all("with one lease", 1, 1)?;
    node.lease("early")?;
    all("with two leases", 2, 0)?;
    let mut full = BTreeMap::new();
    for family in node.families.iter() {
        // The last one who asked found nothing.
        let expected = (2 + node.fill(family)?.0.len() as u64, 1);
        let found = told(family)?;
        ensure!(found == expected, "full: {expected:?} {family} are in use and waiting, told are {found:?}");
        full.insert(family, expected);
    }
    let again = |attachment: &str| {
        node.request(&AllocateRequest { attachment: attachment.to_owned(), ..request("pod", node.families) })
    };
    for sandbox in ["sandbox-1", "sandbox-2", "sandbox-3"] {
        let answer = again(sandbox)?;
        ensure!(answer.is_err(), "{answer:?} came from full blocks");
        for (family, (in_use, waiting)) in &full {
            let (found, expected) = (told(*family)?, (*in_use, waiting + 1));
            ensure!(
                found == expected,
                "{sandbox} of one Pod: {expected:?} {family} are in use and waiting, told are {found:?}"
            );
        }
    }
    node.take(&node.state(&OTHER))?;
    for (family, (in_use, waiting)) in &full {
        let (found, expected) = (told(*family)?, (*in_use, waiting + 1));
        ensure!(
            found == expected,
            "old blocks drain: {expected:?} {family} are in use and waiting, told are {found:?}"
        );
    }
    again("sandbox-4")?.map_err(|error| Stop::broken(format!("fresh blocks gave nothing: {error}")))?;
    for (family, (in_use, waiting)) in &full {
        let (found, expected) = (told(*family)?, (in_use + 1, *waiting));
        ensure!(
            found == expected,
            "the Pod was served: {expected:?} {family} are in use and waiting, told are {found:?}"
        );
    }
    Ok(())
}

pub(super) fn ipam_13(harness: &Harness) -> Judged {
    let node = harness.eager_node()?;
    let state = node.state(&MANY);
    node.take(&state)?;
    node.lease("a")?;
    let given = given_back(&node, &state, "IPAM-13")?;
    // The state changes in something else, and names them still.
    let later = IpamDesired { reserved: vec![ip("10.1.0.6"), ip("fd00:1::6")], ..state.clone() };
    for state in [&state, &later] {
        node.take(state)?;
        let again = node.give_back()?;
        let kept = given.iter().find(|block| !again.contains(block));
        ensure!(kept.is_none(), "{kept:?} was given back and is named still, and the answer is {again:?}");
    }
    for block in &given {
        let owner = request("late", node.families).owner;
        let addresses = vec![some_address(block)];
        let lease = Lease { attachment: "late".to_owned(), owner, addresses, ..node.lease("a")? };
        let answer = node.restore(&lease)?;
        ensure!(answer.is_err(), "{lease:?} was restored into a block that was given back");
    }
    for family in node.families.iter() {
        for leased in node.fill(family)?.0.iter().flat_map(|lease| &lease.addresses) {
            ensure!(!given.contains(&leased.block), "{leased:?} was leased after its block was given back");
        }
    }
    node.take(&without(&state, &given))?;
    let left = node.give_back()?;
    let stale = given.iter().find(|block| left.contains(block));
    ensure!(stale.is_none(), "{stale:?} has left the state, and is given back still");
    history::judge(harness, "IPAM-13")
}

pub(super) fn ipam_14(harness: &Harness) -> Judged {
    // From a node without pods to one whose blocks are half full, giving back and asking do not chase each other.
    for pods in [0, 1, 3, 6, 12] {
        let node = harness.eager_node()?;
        let state = node.state(&MANY);
        node.take(&state)?;
        for pod in 0..pods {
            node.lease(&format!("pod-{pod}"))?;
        }
        let given = given_back(&node, &state, "IPAM-14")?;
        node.take(&without(&state, &given))?;
        let (demand, snapshot) = (node.demand(), node.snapshot());
        for family in given.iter().map(|block| Family::of_net(&block.cidr)) {
            let wanted = demand.of(DEFAULT_POOL, family).map_or(0, |found| found.wanted);
            let (_, left) = snapshot.totals(DEFAULT_POOL, family);
            ensure!(
                left >= wanted,
                "with {pods} pods {given:?} were given back: {left} {family} addresses are left, {wanted} wanted"
            );
        }
    }
    history::judge(harness, "IPAM-14")
}

pub(super) fn ipam_15(harness: &Harness) -> Judged {
    let node = harness.eager_node()?;
    let state = node.state(&MANY);
    node.take(&state)?;
    let given = given_back(&node, &state, "IPAM-15")?;
    node.take(&without(&state, &given))?;
    node.take(&state)?;
    for family in node.families.iter() {
        node.fill(family)?;
    }
    let unused = node.snapshot().blocks.into_iter().find(|used| given.contains(&used.block) && used.leased == 0);
    ensure!(unused.is_none(), "full are all but what was given back, left and came again: {unused:?}");
    history::judge(harness, "IPAM-15")
}

pub(super) fn ipam_16(harness: &Harness) -> Judged {
    let node = harness.node()?;
    node.take(&node.state(&SMALL))?;
    node.lease("holder")?;
    for family in node.families.iter() {
        // The last one who asked found nothing, and waits still.
        node.fill(family)?;
    }
    let waits = |who: &str| -> Judged {
        let answer = node.allocate(who, node.families)?;
        ensure!(answer.is_err(), "{answer:?} came from full blocks");
        Ok(())
    };
    waits("gone")?;
    waits("stays")?;
    let told = |family: Family| node.demand().of(DEFAULT_POOL, family).map_or((0, 0), |it| (it.in_use, it.waiting));
    let all = || -> Vec<(u64, u64)> { node.families.iter().map(told).collect() };
    let (before, held) = (all(), node.snapshot());
    let unchanged = |what: &str| -> Judged {
        ensure!(node.snapshot() == held, "{what} was forgotten, and {held:?} became {:?}", node.snapshot());
        Ok(())
    };
    // Forgotten twice, since several may say it.
    for _ in 0..2 {
        node.forget_waiting("gone");
        unchanged("who waits")?;
        // A mode that asks for nothing counts nobody, before and after.
        let expected: Vec<_> = before.iter().map(|(used, waiting)| (*used, waiting.saturating_sub(1))).collect();
        let found = all();
        ensure!(found == expected, "one of {before:?} was forgotten: {expected:?} was expected, told are {found:?}");
    }
    let expected = all();
    for who in ["holder", "nobody"] {
        node.forget_waiting(who);
        unchanged(who)?;
        ensure!(all() == expected, "{who:?} did not wait and was forgotten: {expected:?} became {:?}", all());
    }
    waits("gone")?;
    let again = all();
    ensure!(again == before, "who was forgotten asked again: {before:?} was expected, told are {again:?}");
    history::judge(harness, "IPAM-16")
}

/// What the node gives back of `state`, judged as `id`; nothing if the mode keeps what it has, or if the answer breaks
/// another behaviour, whose own case tells it.
fn given_back(node: &Node<'_>, state: &IpamDesired, id: &str) -> Result<Vec<Block>, Stop> {
    let (mut owed, leases) = (Owed::default(), node.snapshot().leases);
    let (times, pause) = if node.asks { ASKED } else { (1, Duration::ZERO) };
    for _ in 0..times {
        let answer = node.give_back()?;
        match owed.gave_back(node, state, &leases, answer.clone()) {
            Ok(()) if answer.is_empty() => thread::sleep(pause),
            Ok(()) => return Ok(answer),
            Err(breach) if breach.id == id => return Err(Stop::Broken(breach.text)),
            Err(_) => break,
        }
    }
    Ok(Vec::new())
}

fn without(state: &IpamDesired, given: &[Block]) -> IpamDesired {
    let blocks = state.blocks.iter().filter(|block| !given.contains(block)).cloned().collect();
    IpamDesired { blocks, ..state.clone() }
}

/// An address of a block that pods could have.
fn some_address(block: &Block) -> LeasedAddress {
    let ip = leasable(block).into_iter().next().expect("the blocks of the cases have six");
    LeasedAddress { ip, block: block.clone() }
}

fn broken(judged: Result<(), Breach>) -> Judged {
    judged.map_err(|Breach { text, .. }| Stop::Broken(text))
}
