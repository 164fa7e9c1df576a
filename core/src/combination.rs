//! Checks whether the chosen backends can work together on this machine, before anything is touched.

use std::fmt;

use crate::{
    capability::{Machine, Requirement},
    registry::{Descriptor, Registry, RegistryError, Role},
};

/// The backends that a config chooses, by registry name.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Gives pods their addresses.
    pub ipam: String,
    /// Reaches other nodes.
    pub routing: String,
    /// Serve services; none is allowed.
    pub load_balancer: Vec<String>,
    /// Enforces policy; none is allowed while none is compiled in.
    pub policy: Option<String>,
    /// Masquerades; none is allowed.
    pub masquerade: Option<String>,
    /// The chassis underneath.
    pub chassis: String,
}

impl Selection {
    /// Every choice as role and name.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &str)> {
        [(Role::Chassis, self.chassis.as_str()), (Role::Ipam, &self.ipam), (Role::Routing, &self.routing)]
            .into_iter()
            .chain(self.load_balancer.iter().map(|name| (Role::LoadBalancer, name.as_str())))
            .chain(self.policy.iter().map(|name| (Role::Policy, name.as_str())))
            .chain(self.masquerade.iter().map(|name| (Role::Masquerade, name.as_str())))
    }
}

/// Why a combination cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The backend that cannot run, such as `routing native`.
    pub backend: String,
    /// The backend that stands in its way, if it is one.
    pub other: Option<String>,
    /// Why.
    pub reason: String,
    /// The change that would fix it.
    pub remedy: String,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.other {
            Some(other) => write!(f, "{} cannot run with {}: {}; {}", self.backend, other, self.reason, self.remedy),
            None => write!(f, "{} cannot run: {}; {}", self.backend, self.reason, self.remedy),
        }
    }
}

/// A selection that was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CombinationError {
    /// A name is not compiled in.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Backends cannot work together, or not on this machine.
    #[error("this combination of backends cannot run: {}", join(.0))]
    Conflicts(Vec<Conflict>),
}

fn join(conflicts: &[Conflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks a selection; the answer is the descriptors of what was chosen.
///
/// # Errors
/// `Registry` for a name that is not compiled in, `Conflicts` with every conflict found.
pub fn check(
    registry: &Registry,
    selection: &Selection,
    machine: &dyn Machine,
) -> Result<Vec<Descriptor>, CombinationError> {
    let chosen = selection.iter().map(|(role, name)| registry.descriptor(role, name)).collect::<Result<Vec<_>, _>>()?;
    let conflicts = conflicts(&chosen, machine);
    if conflicts.is_empty() { Ok(chosen) } else { Err(CombinationError::Conflicts(conflicts)) }
}

/// Every conflict among `chosen` and with the machine.
#[must_use]
pub fn conflicts(chosen: &[Descriptor], machine: &dyn Machine) -> Vec<Conflict> {
    let mut found = Vec::new();
    for backend in chosen {
        for requirement in backend.requires {
            found.extend(unmet(backend, requirement, chosen, machine));
        }
    }
    found
}

/// What keeps one backend from running on this machine, whatever else is chosen.
#[must_use]
pub fn machine_conflicts(backend: &Descriptor, machine: &dyn Machine) -> Vec<Conflict> {
    backend
        .requires
        .iter()
        .filter(|requirement| matches!(requirement, Requirement::Kernel(_)))
        .filter_map(|requirement| unmet(backend, requirement, &[], machine))
        .collect()
}

fn unmet(
    backend: &Descriptor,
    requirement: &Requirement,
    chosen: &[Descriptor],
    machine: &dyn Machine,
) -> Option<Conflict> {
    let title = |found: &Descriptor| format!("{} backend {:?}", found.role, found.name);
    let provider = |capability| chosen.iter().find(|other| other.provides.contains(capability));
    match requirement {
        Requirement::Needs { capability, reason, remedy } => provider(capability).is_none().then(|| Conflict {
            backend: title(backend),
            other: chosen.iter().find(|other| other.role == Role::Chassis && other.name != backend.name).map(title),
            reason: format!("{reason} (it needs {capability})"),
            remedy: (*remedy).to_owned(),
        }),
        Requirement::Excludes { capability, reason, remedy } => provider(capability).map(|other| Conflict {
            backend: title(backend),
            other: Some(title(other)),
            reason: (*reason).to_owned(),
            remedy: (*remedy).to_owned(),
        }),
        Requirement::Kernel(feature) => machine.has(feature).err().map(|why| Conflict {
            backend: title(backend),
            other: None,
            reason: format!("the kernel lacks {}: {why}", feature.name),
            remedy: feature.remedy.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{Capability, KernelFeature, KernelVersion};

    struct Kernel(KernelVersion);

    impl Machine for Kernel {
        fn has(&self, feature: &KernelFeature) -> Result<(), String> {
            if self.0 >= feature.since { Ok(()) } else { Err(format!("kernel {}", self.0)) }
        }
    }

    const NEW: Kernel = Kernel(KernelVersion::new(6, 18));

    fn backend(role: Role, name: &'static str, requires: &'static [Requirement]) -> Descriptor {
        Descriptor { role, name, summary: "", provides: &[], requires, overhead_bytes: 0, defaults: "" }
    }

    fn chassis(name: &'static str, provides: &'static [Capability]) -> Descriptor {
        Descriptor { provides, ..backend(Role::Chassis, name, &[]) }
    }

    const NFT: &[Requirement] = &[Requirement::Needs {
        capability: Capability::PACKETS_PASS_STACK,
        reason: "netfilter sees only what passes the stack",
        remedy: "choose chassis \"stack\"",
    }];

    #[test]
    fn missing_capability_names_both_backends_the_reason_and_the_remedy() {
        let chosen = [chassis("ebpf", &[Capability::CHASSIS_EBPF]), backend(Role::Policy, "nftables", NFT)];
        let found = conflicts(&chosen, &NEW);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "policy backend \"nftables\" cannot run with chassis backend \"ebpf\": netfilter sees only what passes the \
             stack (it needs packets-pass-stack); choose chassis \"stack\""
        );
    }

    #[test]
    fn provided_capability_is_no_conflict() {
        let chosen = [chassis("stack", &[Capability::PACKETS_PASS_STACK]), backend(Role::Policy, "nftables", NFT)];
        assert!(conflicts(&chosen, &NEW).is_empty());
    }

    #[test]
    fn excluded_capability_names_its_provider() {
        const EXCLUDES: &[Requirement] = &[Requirement::Excludes {
            capability: Capability::CHASSIS_EBPF,
            reason: "both would own the device",
            remedy: "choose chassis \"stack\"",
        }];
        let chosen = [chassis("ebpf", &[Capability::CHASSIS_EBPF]), backend(Role::Routing, "odd", EXCLUDES)];
        let found = conflicts(&chosen, &NEW);
        assert_eq!(found[0].other.as_deref(), Some("chassis backend \"ebpf\""));
    }

    #[test]
    fn old_kernel_is_a_conflict_of_the_backend_that_needs_more() {
        const NEEDS: &[Requirement] = &[Requirement::Kernel(KernelFeature {
            name: "bpf_redirect_peer",
            since: KernelVersion::new(5, 10),
            remedy: "run kernel 5.15 or newer",
            probe: None,
        })];
        let chosen = [backend(Role::Chassis, "ebpf", NEEDS)];
        let found = conflicts(&chosen, &Kernel(KernelVersion::new(5, 4)));
        assert_eq!(
            found[0].to_string(),
            "chassis backend \"ebpf\" cannot run: the kernel lacks bpf_redirect_peer: kernel 5.4; run kernel 5.15 or newer"
        );
        assert!(conflicts(&chosen, &NEW).is_empty());
    }
}
