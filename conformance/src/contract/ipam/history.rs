//! Random histories of a node, run against the model.

use kinesin_core::{
    ipam::{IpamDesired, IpamError, Lease},
    values::{Families, Family},
};
use proptest::prelude::*;

use super::{
    harness::{DEFAULT_POOL, Harness, Node, block_of, ip, request},
    model::{Breach, Model, demand},
    owed::Owed,
};
use crate::{
    contract::property::{holds, lines},
    outcome::{Judged, Stop},
};

/// Small blocks that do not overlap, so that exhaustion and draining are common.
const BLOCKS: [(&str, &str); 9] = [
    (DEFAULT_POOL, "10.1.0.0/29"),
    (DEFAULT_POOL, "10.2.0.0/29"),
    (DEFAULT_POOL, "10.3.0.0/28"),
    (DEFAULT_POOL, "fd00:1::/125"),
    (DEFAULT_POOL, "fd00:2::/124"),
    // Only for modes with named pools.
    ("green", "10.4.0.0/29"),
    ("green", "10.5.0.0/29"),
    ("green", "fd00:4::/125"),
    ("blue", "10.6.0.0/29"),
];
/// What requests ask for; nobody has `none`, and a mode without named pools has none of the colours either.
const POOLS: [Option<&str>; 5] = [None, Some(DEFAULT_POOL), Some("green"), Some("blue"), Some("none")];
/// At most two of a block, so that no backend finds the block too small.
const RESERVED: [&str; 5] = ["10.1.0.1", "10.1.0.6", "10.2.0.2", "fd00:1::2", "192.0.2.1"];
/// Attachments; more than the smaller blocks have addresses.
const WHO: u8 = 12;
/// Histories per behaviour. A failing one is shortened before it is shown.
const HISTORIES: u32 = 64;

#[derive(Debug, Clone)]
enum Step {
    /// The control plane changes its mind, and says it twice.
    Apply {
        blocks: Vec<usize>,
        reserved: Vec<usize>,
    },
    Allocate {
        who: u8,
        families: Families,
        pool: Option<&'static str>,
    },
    Release {
        who: u8,
    },
    /// Leases until nothing is left in a pool, then gives every other one back.
    Exhaust {
        pool: Option<&'static str>,
    },
    /// The agent is killed; its successor applies and restores.
    Restart,
    /// Somebody claims what another holds.
    Steal {
        from: u8,
        who: u8,
    },
    /// An owner is gone.
    Forget {
        who: u8,
    },
    /// The control plane takes what the node does not need.
    GiveBack,
    Retire,
}

/// A breach, or trouble that ends everything.
enum End {
    Breach(Breach),
    Stop(Stop),
}

impl From<Breach> for End {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// Plays random histories; a breach of another behaviour ends one without a verdict, since that one's own case tells it.
pub(super) fn judge(harness: &Harness, id: &'static str) -> Judged {
    // Built here once, so that a backend that cannot be built is told as that.
    harness.node()?;
    holds(
        HISTORIES,
        &steps(),
        |steps| lines(steps),
        |steps| match play(harness, steps) {
            Err(End::Breach(breach)) if breach.id == id => Err(Stop::Broken(breach.text)),
            Err(End::Stop(stop)) => Err(stop),
            Err(End::Breach(_)) | Ok(()) => Ok(()),
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let families = prop_oneof![
        1 => Just(Families { v4: true, v6: false }),
        1 => Just(Families { v4: false, v6: true }),
        3 => Just(Families::DUAL)
    ];
    // Mostly the default pool, so that it fills up.
    let pool = prop_oneof![3 => Just(None), 1 => prop::sample::select(&POOLS[..])];
    let blocks = prop::sample::subsequence((0..BLOCKS.len()).collect::<Vec<_>>(), 0..=BLOCKS.len()).prop_shuffle();
    let reserved = prop::sample::subsequence((0..RESERVED.len()).collect::<Vec<_>>(), 0..=RESERVED.len());
    let apply = (blocks, reserved).prop_map(|(blocks, reserved)| Step::Apply { blocks, reserved });
    let step = prop_oneof![
        2 => apply.clone(),
        8 => (0..WHO, families, pool.clone()).prop_map(|(who, families, pool)| Step::Allocate { who, families, pool }),
        4 => (0..WHO).prop_map(|who| Step::Release { who }),
        1 => pool.prop_map(|pool| Step::Exhaust { pool }),
        1 => Just(Step::Restart),
        1 => (0..WHO, 0..WHO).prop_map(|(from, who)| Step::Steal { from, who }),
        2 => (0..WHO).prop_map(|who| Step::Forget { who }),
        2 => Just(Step::GiveBack),
        1 => Just(Step::Retire),
    ];
    (apply, prop::collection::vec(step, 1..40)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    })
}

fn play(harness: &Harness, steps: &[Step]) -> Result<(), End> {
    let mut node = harness.eager_node()?;
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Apply { blocks, reserved } => {
                let blocks = blocks.iter().map(|index| BLOCKS[*index]).map(|(pool, cidr)| block_of(pool, cidr));
                let reserved = reserved.iter().map(|index| ip(RESERVED[*index])).collect();
                apply(&node, &mut model, IpamDesired { reserved, ..node.state_of(blocks) })?;
            }
            Step::Allocate { who, families, pool } => {
                let both = Families { v4: families.v4 && node.families.v4, v6: families.v6 && node.families.v6 };
                let families = if both.v4 || both.v6 { both } else { node.families };
                allocate(&node, &mut model, *pool, &name(*who), families)?;
            }
            Step::Release { who } => release(&node, &mut model, &name(*who))?,
            Step::Exhaust { pool } => exhaust(&node, &mut model, *pool)?,
            Step::Restart => restart(&mut node, &mut model)?,
            Step::Steal { from, who } => steal(&node, &model, &name(*from), &name(*who))?,
            Step::Forget { who } => forget(&node, &mut model, &name(*who))?,
            Step::GiveBack => give_back(&node, &mut model)?,
            Step::Retire => retire(&node, &mut model)?,
        }
        model.owed.counted(&node, &model.leases)?;
    }
    Ok(())
}

/// A call that must not fail, failed: the breach of one behaviour.
fn told_as<T>(id: &'static str, answer: Result<T, Stop>) -> Result<T, End> {
    answer.map_err(|stop| match stop {
        Stop::Broken(text) => Breach { id, text }.into(),
        missing @ Stop::Missing { .. } => missing.into(),
    })
}

fn name(who: u8) -> String {
    format!("pod-{who}")
}

fn apply(node: &Node<'_>, model: &mut Model, desired: IpamDesired) -> Result<(), End> {
    if let Err(error) = node.apply(&desired)? {
        return Err(Breach { id: "IPAM-8", text: format!("apply of {desired:?} failed: {error}") }.into());
    }
    model.owed.applied(&desired.blocks);
    model.desired = desired;
    let first = node.snapshot();
    model.holds("IPAM-8", &first)?;
    told_as("IPAM-8", node.take(&model.desired))?;
    let second = node.snapshot();
    demand!(first == second, "IPAM-8", "the same state turned {first:?} into {second:?}");
    Ok(())
}

fn allocate(
    node: &Node<'_>,
    model: &mut Model,
    pool: Option<&str>,
    who: &str,
    families: Families,
) -> Result<bool, End> {
    let answer = node.allocate_from(pool, who, families)?;
    let (pool, snapshot) = (pool.unwrap_or(DEFAULT_POOL), node.snapshot());
    model.allocated(pool, who, families, &answer)?;
    model.holds(if answer.is_ok() { "IPAM-3" } else { "IPAM-4" }, &snapshot)?;
    // After a good answer none is missing.
    let lacks = |family: &Family| model.leases.get(who).is_none_or(|lease| lease.address(*family).is_none());
    model.owed.tried(who, pool, families.iter().filter(lacks), &snapshot);
    Ok(answer.is_ok())
}

fn release(node: &Node<'_>, model: &mut Model, who: &str) -> Result<(), End> {
    let ended = told_as("IPAM-5", node.release(who))?;
    let expected = model.leases.remove(who);
    demand!(ended == expected, "IPAM-5", "{expected:?} was released, and {ended:?} ended");
    model.holds("IPAM-5", &node.snapshot())?;
    Ok(())
}

fn exhaust(node: &Node<'_>, model: &mut Model, pool: Option<&str>) -> Result<(), End> {
    let mut leased = Vec::new();
    // More than all blocks together have.
    for number in 0..64 {
        let who = format!("crowd-{number}");
        if !allocate(node, model, pool, &who, node.families)? {
            break;
        }
        leased.push(who);
    }
    leased.iter().step_by(2).try_for_each(|who| release(node, model, who))
}

fn restart(node: &mut Node<'_>, model: &mut Model) -> Result<(), End> {
    node.restart()?;
    told_as("IPAM-8", node.take(&model.desired))?;
    for (who, lease) in std::mem::take(&mut model.leases) {
        let kept = match node.restore(&lease)? {
            Ok(()) => true,
            // A block that is applied no more is kept by what is in memory; whether a file keeps it is the backend's.
            Err(IpamError::OutOfRange { .. }) if !lease.addresses.iter().all(|leased| model.applied(leased)) => false,
            // The node took the address for itself in the meantime.
            Err(IpamError::Taken { .. })
                if lease.addresses.iter().any(|leased| model.desired.reserved.contains(&leased.ip)) =>
            {
                false
            }
            Err(error) => {
                return Err(Breach { id: "IPAM-6", text: format!("{lease:?} was not restored: {error}") }.into());
            }
        };
        if kept {
            model.leases.insert(who, Lease { restored: true, ..lease });
        } else {
            // A backend that recorded it by itself is told that it ended.
            told_as("IPAM-5", node.release(&who))?;
        }
    }
    model.owed.restarted(&node.snapshot());
    model.holds("IPAM-6", &node.snapshot())?;
    Ok(())
}

fn forget(node: &Node<'_>, model: &mut Model, who: &str) -> Result<(), End> {
    node.forget_waiting(who);
    model.owed.forgot(who);
    // The counts were right a moment ago.
    model.owed.counted(node, &model.leases).map_err(|Breach { text, .. }| Breach { id: "IPAM-16", text })?;
    model.holds("IPAM-16", &node.snapshot())?;
    Ok(())
}

fn give_back(node: &Node<'_>, model: &mut Model) -> Result<(), End> {
    let answer = told_as("IPAM-13", node.give_back())?;
    model.owed.gave_back(node, &model.desired, &model.leases, answer)?;
    model.holds("IPAM-13", &node.snapshot())?;
    Ok(())
}

fn steal(node: &Node<'_>, model: &Model, from: &str, who: &str) -> Result<(), End> {
    let Some(lease) = model.leases.get(from).filter(|_| from != who) else { return Ok(()) };
    let owner = request(who, node.families).owner;
    let claim = Lease { attachment: who.to_owned(), owner, ..lease.clone() };
    let answer = node.restore(&claim)?;
    let refused = matches!(answer, Err(IpamError::Taken { .. }));
    demand!(refused, "IPAM-6", "{who:?} claimed the addresses of {from:?}, and the answer is {answer:?}");
    model.holds("IPAM-6", &node.snapshot())?;
    Ok(())
}

fn retire(node: &Node<'_>, model: &mut Model) -> Result<(), End> {
    let answer = node.retire()?;
    if model.leases.is_empty() {
        demand!(answer.is_ok(), "IPAM-10", "nothing is leased, and retire answers {answer:?}");
        (model.desired, model.owed) = (IpamDesired::default(), Owed::default());
        let files = node.files()?;
        demand!(files.is_empty(), "IPAM-10", "retire left the files {files:?}");
    } else {
        let count = model.leases.len();
        let refused = matches!(answer, Err(IpamError::InUse { leases }) if leases == count);
        demand!(refused, "IPAM-10", "{count} leases are left, and retire answers {answer:?}");
    }
    model.holds("IPAM-10", &node.snapshot())?;
    Ok(())
}
