//! The suite judged: reference implementations pass every behaviour, and for each behaviour there is an implementation
//! that is wrong in this one thing, which the suite catches by the behaviour's name.

mod reference;
mod wrong;

use std::{collections::BTreeSet, fs, process::ExitCode};

use kinesin_conformance::{
    contract::{Behaviour, ipam, routing},
    outcome::Outcome,
};
use kinesin_core::capability::ThisMachine;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for behaviour in ipam::BEHAVIOURS {
        trials.push(passes("ipam", behaviour, || ipam::Harness::new("reference", reference::ipam::build)));
        trials.push(catches("ipam", behaviour, || {
            ipam::Harness::new("wrong", |context| wrong::ipam::build(behaviour.id, context))
        }));
    }
    for behaviour in routing::BEHAVIOURS {
        trials.push(passes("routing", behaviour, || routing::Harness::new("reference", reference::routing::build)));
        trials.push(catches("routing", behaviour, || {
            routing::Harness::new("wrong", |context| wrong::routing::build(behaviour.id, context))
        }));
    }
    trials.push(numbers("ipam", "IPAM", ipam::BEHAVIOURS.iter().map(|behaviour| behaviour.id)));
    trials.push(numbers("routing", "ROUTING", routing::BEHAVIOURS.iter().map(|behaviour| behaviour.id)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The reference has the behaviour.
fn passes<H>(role: &str, behaviour: &'static Behaviour<H>, harness: fn() -> H) -> Trial {
    Trial::ignorable_test(format!("{role}::reference::{}", behaviour.name()), move || {
        match outcome(behaviour, &harness())? {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Failed { reason } => Err(reason.into()),
            skipped @ Outcome::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
        }
    })
}

/// What is wrong in this behaviour alone fails it.
fn catches<H>(role: &str, behaviour: &'static Behaviour<H>, harness: impl Fn() -> H + Send + 'static) -> Trial {
    Trial::ignorable_test(format!("{role}::wrong::{}", behaviour.name()), move || {
        match outcome(behaviour, &harness())? {
            Outcome::Failed { .. } => Ok(Completion::Completed),
            Outcome::Passed => Err(format!("{} holds for what breaks it", behaviour.id).into()),
            skipped @ Outcome::Skipped { .. } => Ok(Completion::ignored_with(skipped)),
        }
    })
}

fn outcome<H>(behaviour: &Behaviour<H>, harness: &H) -> Result<Outcome, Failed> {
    let machine = ThisMachine::new().map_err(|error| error.to_string())?;
    Ok(behaviour.run(harness).checked(&machine))
}

/// The suite has exactly the numbers that the trait's documentation has.
fn numbers(file: &str, prefix: &str, judged: impl Iterator<Item = &'static str>) -> Trial {
    let judged: BTreeSet<String> = judged.map(str::to_owned).collect();
    let path = format!("{}/../core/src/{file}.rs", env!("CARGO_MANIFEST_DIR"));
    let start = format!("/// - {prefix}-");
    Trial::test(format!("{file}::numbers_are_those_of_the_trait"), move || {
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let lines = text.lines().filter(|line| line.starts_with(&start));
        let written: BTreeSet<String> =
            lines.filter_map(|line| line.split([' ', ':']).nth(2)).map(str::to_owned).collect();
        if written == judged { Ok(()) } else { Err(format!("{path} has {written:?}, the suite {judged:?}").into()) }
    })
}
