//! Finds the backends that are compiled in.
//!
//! A backend is in the registry when its crate is linked; the agent names each crate in one file for that reason.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::{
    capability::{Capability, Requirement},
    chassis::Chassis,
    config::Section,
    ipam::Ipam,
    load_balancer::LoadBalancer,
    masquerade::Masquerade,
    policy::Policy,
    routing::Routing,
    values::{Families, Underlay},
};

/// Registration of one implementation of trait object `T`.
#[derive(Debug)]
pub struct Backend<T: ?Sized + 'static> {
    /// Registry name: one short word for the mechanism, `snake_case`.
    pub name: &'static str,
    /// One line for `kinesin backends`.
    pub summary: &'static str,
    /// What it provides.
    pub provides: &'static [Capability],
    /// What it needs or excludes.
    pub requires: &'static [Requirement],
    /// Bytes that it adds to a packet at most; 0 for all but carriers.
    pub overhead_bytes: u16,
    /// The crate's `default.toml`: every key of its section with its default.
    pub defaults: &'static str,
    /// Checks the section and builds the backend; touches no file, socket or kernel object.
    pub build: fn(&BuildContext) -> Result<Arc<T>, BuildError>,
}

/// Registration of an [`Ipam`].
pub type IpamBackend = Backend<dyn Ipam>;
/// Registration of a [`Routing`].
pub type RoutingBackend = Backend<dyn Routing>;
/// Registration of a [`LoadBalancer`].
pub type LoadBalancerBackend = Backend<dyn LoadBalancer>;
/// Registration of a [`Policy`].
pub type PolicyBackend = Backend<dyn Policy>;
/// Registration of a [`Masquerade`].
pub type MasqueradeBackend = Backend<dyn Masquerade>;
/// Registration of a [`Chassis`].
pub type ChassisBackend = Backend<dyn Chassis>;

inventory::collect!(IpamBackend);
inventory::collect!(RoutingBackend);
inventory::collect!(LoadBalancerBackend);
inventory::collect!(PolicyBackend);
inventory::collect!(MasqueradeBackend);
inventory::collect!(ChassisBackend);

/// What a backend is built from.
#[derive(Debug, Clone)]
pub struct BuildContext {
    /// Name of the node.
    pub node_name: String,
    /// Families that pods use.
    pub families: Families,
    /// Directory for files that outlive the agent.
    pub state_dir: PathBuf,
    /// Where bpffs is mounted.
    pub bpffs: PathBuf,
    /// Whether programs may be attached by tcx (`enable-tcx`).
    pub enable_tcx: bool,
    /// Whether routes to other nodes' pod CIDRs are set (`auto-direct-node-routes`).
    pub auto_direct_node_routes: bool,
    /// Whether peers on other segments are skipped (`direct-routing-skip-unreachable`).
    pub direct_routing_skip_unreachable: bool,
    /// Family of tunnels' outer headers (`underlay-protocol`).
    pub underlay: Underlay,
    /// The backend's own section, `backendConfig.<name>`.
    pub section: Section,
}

/// Why a backend could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A key of the backend's section is wrong.
    #[error("backendConfig.{backend}.{key}: {reason}")]
    Config {
        /// Registry name.
        backend: String,
        /// Key within the section; empty for the section itself.
        key: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
}

/// The roles that backends fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// [`Ipam`].
    Ipam,
    /// [`Routing`].
    Routing,
    /// [`LoadBalancer`].
    LoadBalancer,
    /// [`Policy`].
    Policy,
    /// [`Masquerade`].
    Masquerade,
    /// [`Chassis`].
    Chassis,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipam => "ipam",
            Self::Routing => "routing",
            Self::LoadBalancer => "loadBalancer",
            Self::Policy => "policy",
            Self::Masquerade => "masquerade",
            Self::Chassis => "chassis",
        })
    }
}

/// What can be said of a backend without building it.
#[derive(Debug, Clone, Copy)]
pub struct Descriptor {
    /// The trait.
    pub role: Role,
    /// Registry name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// What it provides.
    pub provides: &'static [Capability],
    /// What it needs or excludes.
    pub requires: &'static [Requirement],
    /// Bytes that it adds to a packet at most.
    pub overhead_bytes: u16,
    /// Its commented defaults.
    pub defaults: &'static str,
}

impl<T: ?Sized> Backend<T> {
    fn descriptor(&self, role: Role) -> Descriptor {
        Descriptor {
            role,
            name: self.name,
            summary: self.summary,
            provides: self.provides,
            requires: self.requires,
            overhead_bytes: self.overhead_bytes,
            defaults: self.defaults,
        }
    }
}

/// Every backend that is compiled in, by role and name.
#[derive(Debug, Default)]
pub struct Registry {
    ipam: BTreeMap<&'static str, &'static IpamBackend>,
    routing: BTreeMap<&'static str, &'static RoutingBackend>,
    load_balancer: BTreeMap<&'static str, &'static LoadBalancerBackend>,
    policy: BTreeMap<&'static str, &'static PolicyBackend>,
    masquerade: BTreeMap<&'static str, &'static MasqueradeBackend>,
    chassis: BTreeMap<&'static str, &'static ChassisBackend>,
}

/// Why backends could not be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No backend crate is linked.
    #[error(
        "no backend is compiled into this binary; name each backend crate in a file of `use the_crate as _;` lines"
    )]
    Empty,
    /// Two crates chose one name.
    #[error("two {role} backends are registered as {name:?}; remove one crate or rename it")]
    Duplicate {
        /// The trait.
        role: Role,
        /// The name.
        name: &'static str,
    },
    /// The config asks for what is not there.
    #[error("{role} backend {name:?} is not compiled in; this binary has: {}", known_list(.known))]
    Unknown {
        /// The trait.
        role: Role,
        /// What was asked for.
        name: String,
        /// What there is, sorted.
        known: Vec<&'static str>,
    },
}

fn known_list(known: &[&str]) -> String {
    if known.is_empty() { "none of this kind".to_owned() } else { known.join(", ") }
}

impl Registry {
    /// Collects what is linked into this binary.
    ///
    /// # Errors
    /// `Empty` and `Duplicate`.
    pub fn collect() -> Result<Self, RegistryError> {
        Self::from_backends(Sources {
            ipam: inventory::iter::<IpamBackend>.into_iter().collect(),
            routing: inventory::iter::<RoutingBackend>.into_iter().collect(),
            load_balancer: inventory::iter::<LoadBalancerBackend>.into_iter().collect(),
            policy: inventory::iter::<PolicyBackend>.into_iter().collect(),
            masquerade: inventory::iter::<MasqueradeBackend>.into_iter().collect(),
            chassis: inventory::iter::<ChassisBackend>.into_iter().collect(),
        })
    }

    fn from_backends(sources: Sources) -> Result<Self, RegistryError> {
        let registry = Self {
            ipam: index(Role::Ipam, sources.ipam)?,
            routing: index(Role::Routing, sources.routing)?,
            load_balancer: index(Role::LoadBalancer, sources.load_balancer)?,
            policy: index(Role::Policy, sources.policy)?,
            masquerade: index(Role::Masquerade, sources.masquerade)?,
            chassis: index(Role::Chassis, sources.chassis)?,
        };
        if registry.descriptors().is_empty() { Err(RegistryError::Empty) } else { Ok(registry) }
    }

    /// Every backend, sorted by role and name.
    #[must_use]
    pub fn descriptors(&self) -> Vec<Descriptor> {
        let mut all = Vec::new();
        all.extend(self.ipam.values().map(|backend| backend.descriptor(Role::Ipam)));
        all.extend(self.routing.values().map(|backend| backend.descriptor(Role::Routing)));
        all.extend(self.load_balancer.values().map(|backend| backend.descriptor(Role::LoadBalancer)));
        all.extend(self.policy.values().map(|backend| backend.descriptor(Role::Policy)));
        all.extend(self.masquerade.values().map(|backend| backend.descriptor(Role::Masquerade)));
        all.extend(self.chassis.values().map(|backend| backend.descriptor(Role::Chassis)));
        all
    }

    /// The descriptor of one backend.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn descriptor(&self, role: Role, name: &str) -> Result<Descriptor, RegistryError> {
        let of_role: Vec<_> = self.descriptors().into_iter().filter(|found| found.role == role).collect();
        of_role.iter().find(|found| found.name == name).copied().ok_or_else(|| RegistryError::Unknown {
            role,
            name: name.to_owned(),
            known: of_role.iter().map(|found| found.name).collect(),
        })
    }

    /// The IPAM backend of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn ipam(&self, name: &str) -> Result<&'static IpamBackend, RegistryError> {
        find(Role::Ipam, &self.ipam, name)
    }

    /// The routing backend of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn routing(&self, name: &str) -> Result<&'static RoutingBackend, RegistryError> {
        find(Role::Routing, &self.routing, name)
    }

    /// The load-balancing backend of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn load_balancer(&self, name: &str) -> Result<&'static LoadBalancerBackend, RegistryError> {
        find(Role::LoadBalancer, &self.load_balancer, name)
    }

    /// The policy backend of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn policy(&self, name: &str) -> Result<&'static PolicyBackend, RegistryError> {
        find(Role::Policy, &self.policy, name)
    }

    /// The masquerading backend of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn masquerade(&self, name: &str) -> Result<&'static MasqueradeBackend, RegistryError> {
        find(Role::Masquerade, &self.masquerade, name)
    }

    /// The chassis of this name.
    ///
    /// # Errors
    /// `Unknown`, with what there is.
    pub fn chassis(&self, name: &str) -> Result<&'static ChassisBackend, RegistryError> {
        find(Role::Chassis, &self.chassis, name)
    }
}

#[derive(Default)]
struct Sources {
    ipam: Vec<&'static IpamBackend>,
    routing: Vec<&'static RoutingBackend>,
    load_balancer: Vec<&'static LoadBalancerBackend>,
    policy: Vec<&'static PolicyBackend>,
    masquerade: Vec<&'static MasqueradeBackend>,
    chassis: Vec<&'static ChassisBackend>,
}

type Index<T> = BTreeMap<&'static str, &'static Backend<T>>;

fn index<T: ?Sized>(role: Role, backends: Vec<&'static Backend<T>>) -> Result<Index<T>, RegistryError> {
    let mut index = BTreeMap::new();
    for backend in backends {
        if index.insert(backend.name, backend).is_some() {
            return Err(RegistryError::Duplicate { role, name: backend.name });
        }
    }
    Ok(index)
}

fn find<T: ?Sized>(role: Role, index: &Index<T>, name: &str) -> Result<&'static Backend<T>, RegistryError> {
    index.get(name).copied().ok_or_else(|| RegistryError::Unknown {
        role,
        name: name.to_owned(),
        known: index.keys().copied().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(context: &BuildContext) -> Result<Arc<dyn Ipam>, BuildError> {
        Err(BuildError::Config { backend: context.node_name.clone(), key: String::new(), reason: "test".to_owned() })
    }

    const fn ipam(name: &'static str) -> IpamBackend {
        IpamBackend { name, summary: "", provides: &[], requires: &[], overhead_bytes: 0, defaults: "", build: refuse }
    }

    static A: IpamBackend = ipam("a");
    static B: IpamBackend = ipam("b");

    #[test]
    fn empty_registry_is_an_error() {
        assert_eq!(Registry::from_backends(Sources::default()).map(|_| ()), Err(RegistryError::Empty));
    }

    #[test]
    fn one_name_registered_twice_is_an_error() {
        let sources = Sources { ipam: vec![&A, &B, &A], ..Sources::default() };
        let expected = RegistryError::Duplicate { role: Role::Ipam, name: "a" };
        assert_eq!(Registry::from_backends(sources).map(|_| ()), Err(expected));
    }

    #[test]
    fn unknown_name_is_answered_with_what_is_compiled_in() {
        let registry = Registry::from_backends(Sources { ipam: vec![&B, &A], ..Sources::default() }).expect("valid");
        let error = registry.ipam("c").map(|_| ()).expect_err("there is no c");
        assert_eq!(error.to_string(), r#"ipam backend "c" is not compiled in; this binary has: a, b"#);
        let error = registry.routing("native").map(|_| ()).expect_err("there is no routing at all");
        assert!(error.to_string().ends_with("this binary has: none of this kind"), "{error}");
    }
}
