//! What the chassis needs of the kernel, as data and probes.

use std::path::Path;

use kinesin_core::capability::{Capability, KernelFeature, KernelVersion, Requirement};

/// The kernel programs themselves, which a build without their toolchain lacks.
const PROGRAMS: Capability = Capability("kernel-programs");

/// What a build without the kernel programs says.
pub(crate) const NO_PROGRAMS: &str = "this binary was built without the kernel programs";
/// What to do about it.
pub(crate) const BUILD_PROGRAMS: &str =
    "build it with `./x build` or start it with `./x up`, which fetch what compiles them";

/// What the chassis provides.
pub(crate) const PROVIDES: &[Capability] = &[
    Capability::CHASSIS_EBPF,
    Capability::POLICY_BEFORE_PACKET,
    Capability::IPV4,
    Capability::IPV6,
    #[cfg(kernel_programs)]
    PROGRAMS,
];

/// The oldest kernel that is supported on this architecture.
const FLOOR: KernelVersion =
    if cfg!(target_arch = "aarch64") { KernelVersion::new(6, 1) } else { KernelVersion::new(5, 15) };

/// What the chassis needs.
pub(crate) const REQUIRES: &[Requirement] = &[
    // Met by itself, if at all: so the check of the combination tells before anything is touched.
    Requirement::Needs { capability: PROGRAMS, reason: NO_PROGRAMS, remedy: BUILD_PROGRAMS },
    // The newest that the programs use is older (5.10: bpf_redirect_peer and bpf_redirect_neigh), and 5.10 does load them
    // (docs/kernels.md). It counts maps as locked memory, though, so that an agent without a limit of its own gets none.
    Requirement::Kernel(KernelFeature {
        name: "a supported release",
        since: FLOOR,
        remedy: "run a newer kernel",
        probe: None,
    }),
    Requirement::Kernel(KernelFeature {
        name: "BTF",
        since: FLOOR,
        remedy: "run a kernel built with CONFIG_DEBUG_INFO_BTF",
        probe: Some(probe_btf),
    }),
];

/// First kernel whose tunnel devices can be told the source address of a packet (`bpf_tunnel_key`, Linux 26101f5ab6bd).
pub(crate) const TUNNEL_SOURCE: KernelVersion = KernelVersion::new(6, 0);

/// First kernel with tcx.
pub(crate) const TCX: KernelVersion = KernelVersion::new(6, 6);

fn probe_btf() -> Result<(), String> {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() { Ok(()) } else { Err(format!("{path} does not exist")) }
}
