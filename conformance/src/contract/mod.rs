//! The contracts of the traits: each numbered behaviour as a case that any implementation can be run through.
//!
//! A case sees an implementation through its trait alone, and its effects through the kernel; so it neither knows nor
//! trusts the backend. Every case makes what it needs anew, and cases run in parallel.

pub mod ipam;
pub mod routing;

mod property;
mod workbench;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use kinesin_core::{
    capability::{KernelFeature, Machine, Requirement},
    registry::{Registry, RegistryError, Role},
};

use crate::outcome::{Judged, Outcome};

/// One numbered behaviour of a trait, judged over a harness `H` of that trait.
pub struct Behaviour<H: 'static> {
    /// Its number, such as `IPAM-3`, as the trait's documentation has it.
    pub id: &'static str,
    /// The fact in words, such as `same attachment same lease`.
    pub title: &'static str,
    /// Judges it.
    pub judge: fn(&H) -> Judged,
}

impl<H> Behaviour<H> {
    /// Judges it; a panic of the implementation is a failure with the panic's message.
    ///
    /// The reason of a failure starts with number and title. Blocks, and must not be called within an async runtime.
    pub fn run(&self, harness: &H) -> Outcome {
        let outcome = match catch_unwind(AssertUnwindSafe(|| (self.judge)(harness))) {
            Ok(judged) => judged.into(),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Outcome::Failed { reason: format!("panicked: {text}") }
            }
        };
        match outcome {
            Outcome::Failed { reason } => {
                Outcome::Failed { reason: format!("{} ({}) is broken: {reason}", self.id, self.title) }
            }
            other => other,
        }
    }
}

impl<H> fmt::Debug for Behaviour<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// One behaviour of one registered backend, ready to be judged.
pub struct Run {
    /// The trait.
    pub role: Role,
    /// Registry name of the backend.
    pub backend: &'static str,
    /// Number of the behaviour.
    pub id: &'static str,
    name: String,
    needs: Vec<KernelFeature>,
    judge: Box<dyn Fn() -> Outcome + Send + Sync>,
}

impl Run {
    /// Its name as a test, such as `ipam/host_scope/IPAM-3`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first thing that this machine would have to have and has not, with the machine's answer.
    #[must_use]
    pub fn missing(&self, machine: &dyn Machine) -> Option<(KernelFeature, String)> {
        self.needs.iter().find_map(|need| Some((*need, machine.has(need).err()?)))
    }

    /// Judges it on `machine`; blocks, and must not be called within an async runtime.
    #[must_use]
    pub fn judge(&self, machine: &dyn Machine) -> Outcome {
        match self.missing(machine) {
            Some((missing, reason)) => Outcome::Skipped { missing, reason },
            None => (self.judge)().checked(machine),
        }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Every behaviour of every backend in the registry for which there is a contract here.
///
/// # Errors
/// `Unknown` never comes, since the names are the registry's own.
pub fn registry_runs(registry: &Registry) -> Result<Vec<Run>, RegistryError> {
    let mut runs = Vec::new();
    for found in registry.descriptors() {
        let requires = found.requires.iter().filter_map(|requirement| match requirement {
            Requirement::Kernel(feature) => Some(*feature),
            _ => None,
        });
        let mut needs: Vec<KernelFeature> = requires.collect();
        match found.role {
            Role::Ipam => {
                let backend = registry.ipam(found.name)?;
                runs.extend(ipam::BEHAVIOURS.iter().map(|behaviour| {
                    let judge = move || behaviour.run(&ipam::Harness::of(backend));
                    run(Role::Ipam, backend.name, behaviour, &needs, judge)
                }));
            }
            Role::Routing => {
                needs.push(workbench::NETWORK_NAMESPACES);
                let backend = registry.routing(found.name)?;
                runs.extend(routing::BEHAVIOURS.iter().map(|behaviour| {
                    let judge = move || behaviour.run(&routing::Harness::of(backend));
                    run(Role::Routing, backend.name, behaviour, &needs, judge)
                }));
            }
            Role::LoadBalancer | Role::Policy | Role::Masquerade | Role::Chassis => {}
        }
    }
    Ok(runs)
}

fn run<H>(
    role: Role,
    backend: &'static str,
    behaviour: &'static Behaviour<H>,
    needs: &[KernelFeature],
    judge: impl Fn() -> Outcome + Send + Sync + 'static,
) -> Run {
    let name = format!("{role}/{backend}/{}", behaviour.id);
    Run { role, backend, id: behaviour.id, name, needs: needs.to_vec(), judge: Box::new(judge) }
}
