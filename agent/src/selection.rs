//! From a configuration to built backends.

use std::{path::PathBuf, sync::Arc};

use kinesin_core::{
    capability::ThisMachine,
    chassis::Chassis,
    combination::{self, CombinationError, Selection},
    config::{Config, Section},
    ipam::BlockSource,
    registry::{BuildContext, BuildError, IpamBackend, Registry, RegistryError, Role},
};

use crate::{
    ipam::{Mode, Modes},
    routing::Routings,
};

/// The backends that run on this node.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    pub(crate) ipam: Modes,
    pub(crate) routing: Routings,
    pub(crate) chassis: Arc<dyn Chassis>,
}

/// Why the chosen backends cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SelectionError {
    /// A name is not compiled in, or the combination cannot work on this machine.
    #[error(transparent)]
    Combination(#[from] CombinationError),
    /// A key names a backend that is not compiled in.
    #[error("{origin}: {key}: {source}")]
    NotCompiledIn {
        /// The key.
        key: String,
        /// File, variable or flag of the key, or the key that it follows from.
        origin: String,
        /// What there is.
        source: RegistryError,
    },
    /// A backend refuses its options.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The registry is empty or ambiguous.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Options of a backend that does not exist.
    #[error("backendConfig.{name} is for a backend that is not compiled in; this binary has: {known}")]
    UnknownSection {
        /// As written.
        name: String,
        /// Names of all backends.
        known: String,
    },
    /// A role was given to a backend that the agent cannot drive yet.
    #[error("backends.{role}={name:?} was chosen, but this agent does not run {role} backends yet; remove the key")]
    NotDriven {
        /// The role's key.
        role: &'static str,
        /// The backend.
        name: String,
    },
    /// The kernel's release is not readable.
    #[error("cannot read the kernel's release")]
    Kernel(#[source] std::io::Error),
}

/// Checks the combination and builds its backends; touches nothing.
pub(crate) fn build(config: &Config, node_name: &str) -> Result<Backends, SelectionError> {
    let registry = Registry::collect()?;
    let machine = ThisMachine::new().map_err(SelectionError::Kernel)?;
    let selection = &config.selection;
    combination::check(&registry, selection, &machine).map_err(|error| with_key(config, error))?;
    check_sections(config, &registry)?;
    for (role, name) in [("policy", &selection.policy), ("masquerade", &selection.masquerade)] {
        if let Some(name) = name {
            return Err(SelectionError::NotDriven { role, name: name.clone() });
        }
    }
    if let Some(name) = selection.load_balancer.first() {
        return Err(SelectionError::NotDriven { role: "loadBalancer", name: name.clone() });
    }
    let context = |section: Section| BuildContext {
        node_name: node_name.to_owned(),
        families: config.families,
        state_dir: state_dir(config),
        bpffs: config.bpf_root.clone(),
        enable_tcx: config.enable_tcx,
        auto_direct_node_routes: config.auto_direct_node_routes,
        direct_routing_skip_unreachable: config.direct_routing_skip_unreachable,
        underlay: config.underlay,
        section,
    };
    Ok(Backends {
        ipam: modes(config, &registry, &context)?,
        routing: routings(config, &registry, &machine, &context)?,
        chassis: (registry.chassis(&selection.chassis)?.build)(&context(config.section(&selection.chassis)))?,
    })
}

/// Names the key that chose a backend which is not there.
fn with_key(config: &Config, error: CombinationError) -> SelectionError {
    let CombinationError::Registry(RegistryError::Unknown { role, name, known }) = error else {
        return error.into();
    };
    let key = match role {
        Role::LoadBalancer => "backends.load-balancer".to_owned(),
        other => format!("backends.{other}"),
    };
    let entry = config.entries().iter().find(|entry| entry.key == key);
    let origin = entry.map_or_else(|| "configuration".to_owned(), |entry| entry.source.clone());
    SelectionError::NotCompiledIn { key, origin, source: RegistryError::Unknown { role, name, known } }
}

/// The chosen mode, and every other that is compiled in: leases of an earlier run may be of any of them.
pub(crate) fn modes(
    config: &Config,
    registry: &Registry,
    context: &impl Fn(Section) -> BuildContext,
) -> Result<Modes, SelectionError> {
    let mode = |backend: &IpamBackend, section: Section| {
        let ipam = (backend.build)(&context(section))?;
        Ok::<_, BuildError>(Mode { name: backend.name.to_owned(), source: BlockSource::of(backend.provides), ipam })
    };
    let chosen = &config.selection.ipam;
    let preferred = mode(registry.ipam(chosen)?, config.section(chosen))?;
    let mut others = Vec::new();
    for other in registry.descriptors().iter().filter(|found| found.role == Role::Ipam && found.name != chosen) {
        let backend = registry.ipam(other.name)?;
        // A mode that only drains needs no options, so wrong ones must not keep the node from starting.
        let defaults = || Section::new(other.name, serde_json::Map::new());
        others.push(mode(backend, config.section(other.name)).or_else(|error| {
            tracing::warn!(mode = other.name, %error, "its options are ignored while it is not chosen");
            mode(backend, defaults())
        })?);
    }
    Ok(Modes::new(preferred, others))
}

/// The chosen backend, and every other that could run in its place: nodes may be on their way from one to another.
fn routings(
    config: &Config,
    registry: &Registry,
    machine: &ThisMachine,
    context: &impl Fn(Section) -> BuildContext,
) -> Result<Routings, SelectionError> {
    let chosen = &config.selection.routing;
    let preferred = (registry.routing(chosen)?.build)(&context(config.section(chosen)))?;
    let mut others = Vec::new();
    for other in registry.descriptors().iter().filter(|found| found.role == Role::Routing && found.name != chosen) {
        let selection = Selection { routing: other.name.to_owned(), ..config.selection.clone() };
        if let Err(error) = combination::check(registry, &selection, machine) {
            tracing::debug!(backend = other.name, %error, "it reaches no nodes of another carrier from here");
            continue;
        }
        let with = |section: Section| {
            let auto_direct_node_routes = config.direct_routes_beside_tunnels || config.auto_direct_node_routes;
            BuildContext { auto_direct_node_routes, ..context(section) }
        };
        let backend = registry.routing(other.name)?;
        others.push((backend.build)(&with(config.section(other.name))).or_else(|error| {
            tracing::warn!(backend = other.name, %error, "its options are ignored while it is not chosen");
            (backend.build)(&with(Section::new(other.name, serde_json::Map::new())))
        })?);
    }
    Ok(Routings::new(preferred, others))
}

/// Where the agent and its backends keep files, as Cilium has it.
pub(crate) fn state_dir(config: &Config) -> PathBuf {
    config.state_dir.join("state")
}

/// A misspelt backend name would otherwise be options that silently do nothing.
fn check_sections(config: &Config, registry: &Registry) -> Result<(), SelectionError> {
    let descriptors = registry.descriptors();
    for name in config.section_names() {
        if !descriptors.iter().any(|backend| backend.name == name) {
            let mut known: Vec<_> = descriptors.iter().map(|backend| backend.name).collect();
            known.sort_unstable();
            known.dedup();
            return Err(SelectionError::UnknownSection { name: name.to_owned(), known: known.join(", ") });
        }
    }
    Ok(())
}
