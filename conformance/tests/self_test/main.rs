//! The suite judged: reference implementations pass every behaviour, and for each behaviour there are implementations
//! that are wrong in one thing, which the suite catches by the behaviour's name and by no name that it should not.

mod reference;
mod wrong;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::ExitCode,
};

use kinesin_conformance::{
    contract::{Behaviour, ipam, routing},
    outcome::Outcome,
};
use kinesin_core::capability::{Capability, ThisMachine};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use wrong::Fault;

const PROVIDES: &[Capability] =
    &[Capability::IPV4, Capability::IPV6, Capability::NAMED_POOLS, Capability::BLOCKS_GIVEN_POOLS];
/// What the references provide in part; what they are not asked for must not be judged.
const PARTS: &[(&str, &[Capability])] = &[
    ("dual_with_pools", PROVIDES),
    ("dual", &[Capability::IPV4, Capability::IPV6, Capability::BLOCKS_GIVEN_POD_CIDRS]),
    // These take whatever blocks they are given.
    ("ipv4", &[Capability::IPV4]),
    ("ipv6", &[Capability::IPV6, Capability::NAMED_POOLS]),
];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for (part, provides) in PARTS {
        for behaviour in ipam::BEHAVIOURS {
            let build = |context: &_| reference::ipam::build(provides, context);
            let harness = move || ipam::Harness::new("reference", provides, build);
            trials.push(passes("ipam", part, behaviour, harness));
        }
        for behaviour in routing::BEHAVIOURS {
            let harness = || routing::Harness::new("reference", provides, reference::routing::build);
            trials.push(passes("routing", part, behaviour, harness));
        }
    }
    for fault in wrong::ipam::FAULTS {
        let build = |context: &_| wrong::ipam::build(fault.name, PROVIDES, context);
        let harness = move || ipam::Harness::new("wrong", PROVIDES, build);
        trials.push(catches("ipam", ipam::BEHAVIOURS, fault, harness));
    }
    for fault in wrong::routing::FAULTS {
        let build = |context: &_| wrong::routing::build(fault.name, context);
        let harness = move || routing::Harness::new("wrong", PROVIDES, build);
        trials.push(catches("routing", routing::BEHAVIOURS, fault, harness));
    }
    trials.push(numbers("ipam", "IPAM", ids(ipam::BEHAVIOURS), wrong::ipam::FAULTS));
    trials.push(numbers("routing", "ROUTING", ids(routing::BEHAVIOURS), wrong::routing::FAULTS));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The reference has the behaviour.
fn passes<H>(
    role: &str,
    part: &str,
    behaviour: &'static Behaviour<H>,
    harness: impl Fn() -> H + Send + 'static,
) -> Trial {
    Trial::ignorable_test(format!("{role}/reference/{part}/{}", behaviour.id), move || {
        match outcome(behaviour, &harness())? {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Failed { reason } => Err(reason.into()),
            skipped @ Outcome::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
        }
    })
}

/// The fault is caught by the name of what it breaks, and by few others.
fn catches<H: Sync>(
    role: &str,
    behaviours: &'static [Behaviour<H>],
    fault: &'static Fault,
    harness: impl Fn() -> H + Send + 'static,
) -> Trial {
    Trial::ignorable_test(format!("{role}/wrong/{}/{}", fault.breaks, fault.name), move || {
        let mut caught = BTreeMap::new();
        for behaviour in behaviours {
            match outcome(behaviour, &harness())? {
                Outcome::Passed => {}
                Outcome::Failed { reason } => drop(caught.insert(behaviour.id, reason)),
                skipped @ Outcome::Skipped { .. } => return Ok(Completion::ignored_with(skipped)),
            }
        }
        if !caught.contains_key(fault.breaks) {
            let names = caught.keys();
            return Err(format!("{} holds for what breaks it; caught by {names:?}", fault.breaks).into());
        }
        caught.retain(|id, _| *id != fault.breaks && !fault.also.contains(id));
        if caught.is_empty() { Ok(Completion::Completed) } else { Err(format!("also caught by {caught:#?}").into()) }
    })
}

fn outcome<H>(behaviour: &Behaviour<H>, harness: &H) -> Result<Outcome, Failed> {
    let machine = ThisMachine::new().map_err(|error| error.to_string())?;
    Ok(behaviour.run(harness).checked(&machine))
}

fn ids<H>(behaviours: &[Behaviour<H>]) -> BTreeSet<String> {
    behaviours.iter().map(|behaviour| behaviour.id.to_owned()).collect()
}

/// The suite has exactly the numbers that the trait's documentation has, and a fault for each.
fn numbers(file: &str, prefix: &str, judged: BTreeSet<String>, faults: &[Fault]) -> Trial {
    let broken: BTreeSet<String> = faults.iter().map(|fault| fault.breaks.to_owned()).collect();
    let path = format!("{}/../core/src/{file}.rs", env!("CARGO_MANIFEST_DIR"));
    let start = format!("/// - {prefix}-");
    Trial::test(format!("{file}/numbers_are_those_of_the_trait"), move || {
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let lines = text.lines().filter(|line| line.starts_with(&start));
        let written: BTreeSet<String> =
            lines.filter_map(|line| line.split([' ', ':']).nth(2)).map(str::to_owned).collect();
        if written != judged {
            return Err(format!("{path} has {written:?}, the suite {judged:?}").into());
        }
        if broken == judged { Ok(()) } else { Err(format!("{broken:?} have faults, of {judged:?}").into()) }
    })
}
