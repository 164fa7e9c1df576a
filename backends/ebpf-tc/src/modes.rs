//! How programs are attached, for each kind of device.
//!
//! A tcx link costs an RCU grace period under the lock of all network devices (`bpf_link_create`, `tcx_entry_sync`,
//! Linux 6.18). The node's own devices pay that once; a pod would pay it twice whenever one is added, which is most of the
//! time that adding it takes. So host ends of pods get filters, unless the options ask for links.

use kinesin_core::capability::KernelVersion;
use kinesin_loader::TcMode;

use crate::{config::EndpointAttach, kernel};

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modes {
    /// By links everywhere.
    Links,
    /// By links to `cilium_host` and the uplinks, by filters to the host ends of pods.
    NodeByLinks,
    /// By filters everywhere.
    Filters,
}

impl Modes {
    /// What this kernel and the options allow; the second value says what is less than was asked for.
    pub(crate) fn choose(enable_tcx: bool, endpoint: EndpointAttach, kernel: KernelVersion) -> (Self, Option<String>) {
        let has_tcx = kernel >= kernel::TCX;
        let modes = match endpoint {
            _ if !(enable_tcx && has_tcx) => Self::Filters,
            EndpointAttach::Filter => Self::NodeByLinks,
            EndpointAttach::Link => Self::Links,
        };
        let degraded = (enable_tcx && !has_tcx)
            .then(|| format!("programs are attached by clsact filters: tcx needs kernel {}", kernel::TCX));
        (modes, degraded)
    }

    /// For `cilium_host` and the uplinks.
    pub(crate) fn node(self) -> TcMode {
        match self {
            Self::Links | Self::NodeByLinks => TcMode::Tcx,
            Self::Filters => TcMode::Clsact,
        }
    }

    /// For the host ends of pods and of the health endpoint.
    pub(crate) fn endpoint(self) -> TcMode {
        match self {
            Self::Links => TcMode::Tcx,
            Self::NodeByLinks | Self::Filters => TcMode::Clsact,
        }
    }

    /// In the words of the reference, `TCX` and `Legacy TC`.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Links => "TCX",
            Self::NodeByLinks => "TCX, endpoints by Legacy TC",
            Self::Filters => "Legacy TC",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_links_only_where_asked_for_and_possible() {
        let (new, old) = (kernel::TCX, KernelVersion::new(6, 5));
        let text = |enable_tcx, endpoint, kernel| Modes::choose(enable_tcx, endpoint, kernel).0.text();
        assert_eq!(text(true, EndpointAttach::Filter, new), "TCX, endpoints by Legacy TC");
        assert_eq!(text(true, EndpointAttach::Link, new), "TCX");
        for endpoint in [EndpointAttach::Filter, EndpointAttach::Link] {
            assert_eq!(text(false, endpoint, new), "Legacy TC");
            assert_eq!(text(true, endpoint, old), "Legacy TC");
        }
    }

    #[test]
    fn only_a_kernel_without_tcx_is_less_than_asked_for() {
        let degraded = |enable_tcx, kernel| Modes::choose(enable_tcx, EndpointAttach::Filter, kernel).1;
        assert_eq!(degraded(true, kernel::TCX), None);
        assert_eq!(degraded(false, KernelVersion::new(6, 1)), None);
        assert!(degraded(true, KernelVersion::new(6, 1)).is_some_and(|text| text.contains("6.6")));
    }
}
