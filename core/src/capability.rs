//! What backends provide and need, as data.

use std::{fmt, fs, io, str::FromStr};

/// Something that a backend provides and another may need or exclude.
///
/// Third parties may define their own; the name is what is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(pub &'static str);

impl Capability {
    /// A chassis that runs the packet pipeline in eBPF.
    pub const CHASSIS_EBPF: Self = Self("chassis:ebpf");
    /// A chassis that forwards through the kernel's own stack.
    pub const CHASSIS_STACK: Self = Self("chassis:stack");
    /// Packets between endpoints pass the node's network stack, so that netfilter sees them.
    pub const PACKETS_PASS_STACK: Self = Self("packets-pass-stack");
    /// Per-packet verdicts on new endpoints are in place before their first packet.
    pub const POLICY_BEFORE_PACKET: Self = Self("policy-before-packet");
    /// Serves IPv4 pods.
    pub const IPV4: Self = Self("ipv4");
    /// Serves IPv6 pods.
    pub const IPV6: Self = Self("ipv6");
    /// Leases from pools that requests choose by name, not from `default` alone.
    pub const NAMED_POOLS: Self = Self("named-pools");
    /// IPAM whose blocks are the pod CIDRs of the Node object.
    pub const BLOCKS_NODE_POD_CIDRS: Self = Self("blocks:node-pod-cidrs");
    /// IPAM whose blocks are the pod CIDRs that the operator gives to the node.
    pub const BLOCKS_GIVEN_POD_CIDRS: Self = Self("blocks:given-pod-cidrs");
    /// IPAM whose blocks are cut from pools by the operator.
    pub const BLOCKS_GIVEN_POOLS: Self = Self("blocks:given-pools");
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What a backend needs before it can run.
#[derive(Debug, Clone, Copy)]
pub enum Requirement {
    /// Another chosen backend must provide it.
    Needs {
        /// What.
        capability: Capability,
        /// Why this backend cannot do without.
        reason: &'static str,
        /// The change that would fix a combination without it.
        remedy: &'static str,
    },
    /// No chosen backend may provide it.
    Excludes {
        /// What.
        capability: Capability,
        /// Why both cannot be.
        reason: &'static str,
        /// The change that would fix the combination.
        remedy: &'static str,
    },
    /// The kernel must have it.
    Kernel(KernelFeature),
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Needs { capability, .. } => capability.fmt(f),
            Self::Excludes { capability, .. } => write!(f, "no {capability}"),
            Self::Kernel(feature) => write!(f, "kernel: {} ({})", feature.name, feature.since),
        }
    }
}

/// Something that the kernel has or lacks.
#[derive(Debug, Clone, Copy)]
pub struct KernelFeature {
    /// Name, such as `bpf_redirect_peer`.
    pub name: &'static str,
    /// First kernel release that has it.
    pub since: KernelVersion,
    /// What a user can do about its absence.
    pub remedy: &'static str,
    /// Asks this kernel; by version alone when absent. The error says why it is missing.
    pub probe: Option<fn() -> Result<(), String>>,
}

/// A kernel release, such as 5.15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// Major number.
    pub major: u16,
    /// Minor number.
    pub minor: u16,
}

impl KernelVersion {
    /// A release.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The running kernel's release.
    ///
    /// # Errors
    /// When `/proc/sys/kernel/osrelease` cannot be read or does not start with two numbers.
    pub fn running() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A text that is no kernel release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kernel release such as 6.1.0-50-amd64")]
pub struct ParseKernelVersionError(pub String);

impl FromStr for KernelVersion {
    type Err = ParseKernelVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(ParseKernelVersionError(text.to_owned())),
        }
    }
}

/// The machine that backends would run on.
pub trait Machine {
    /// Whether the kernel has a feature; the error says why not.
    ///
    /// # Errors
    /// The reason, in words for a user.
    fn has(&self, feature: &KernelFeature) -> Result<(), String>;
}

/// The machine that this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisMachine {
    kernel: KernelVersion,
}

impl ThisMachine {
    /// Reads the kernel's release.
    ///
    /// # Errors
    /// See [`KernelVersion::running`].
    pub fn new() -> io::Result<Self> {
        Ok(Self { kernel: KernelVersion::running()? })
    }

    /// The kernel's release.
    #[must_use]
    pub fn kernel(&self) -> KernelVersion {
        self.kernel
    }
}

impl Machine for ThisMachine {
    fn has(&self, feature: &KernelFeature) -> Result<(), String> {
        // The probe is asked first: distributions carry features back to older releases.
        match feature.probe {
            Some(probe) => probe(),
            None if self.kernel >= feature.since => Ok(()),
            None => Err(format!("kernel {} is older than {}", self.kernel, feature.since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        for (text, version) in [
            ("6.18.44-fc-v782", KernelVersion::new(6, 18)),
            ("5.15.0-91-generic", KernelVersion::new(5, 15)),
            ("6.1.0-50-cloud-amd64", KernelVersion::new(6, 1)),
            ("7.3", KernelVersion::new(7, 3)),
        ] {
            assert_eq!(text.parse(), Ok(version), "{text}");
        }
        assert!("linux".parse::<KernelVersion>().is_err());
    }

    #[test]
    fn releases_compare_by_number_not_by_text() {
        assert!(KernelVersion::new(5, 15) > KernelVersion::new(5, 9));
    }
}
