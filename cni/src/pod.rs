//! The pod's side: its namespace, addresses, routes and settings.

use std::path::Path;

use kinesin_netlink::{Link, NetNs, Netlink, Sysctl, TABLE_MAIN};

use crate::{CniError, plan::PodPlan};

/// The loopback device's index, the same in every namespace (Linux `include/net/flow.h`, `LOOPBACK_IFINDEX`).
const LOOPBACK_INDEX: u32 = 1;

/// A pod's namespace with a socket in it.
#[derive(Debug)]
pub struct Pod {
    netns: NetNs,
    netlink: Netlink,
}

impl Pod {
    /// Opens the namespace at `path`, which must not be the caller's own.
    ///
    /// # Errors
    /// `Netns` when it is missing or no network namespace, `OwnNetns`, or `Kernel`.
    pub fn open(path: &Path) -> Result<Self, CniError> {
        let failed = |source| CniError::Netns { path: path.to_owned(), source };
        let netns = NetNs::open(path).map_err(failed)?;
        if netns.id().map_err(failed)? == NetNs::current()?.id()? {
            return Err(CniError::OwnNetns { path: path.to_owned() });
        }
        let netlink = Netlink::in_netns(&netns)?;
        Ok(Self { netns, netlink })
    }

    /// The namespace.
    #[must_use]
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// The socket in it.
    #[must_use]
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// The namespace's cookie; 0 where the kernel does not tell (before 5.14).
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.netns.cookie().unwrap_or(0)
    }

    /// Says whether the default routes are free for a new interface.
    ///
    /// # Errors
    /// `DefaultRouteTaken` when another device has one, which would silently lose it.
    pub async fn check_default_route_free(&self, ifname_index: u32) -> Result<(), CniError> {
        let routes = self.netlink.routes().await?;
        let taken = routes.iter().find(|route| {
            route.dst.prefix_len() == 0
                && route.table == TABLE_MAIN
                && ![ifname_index, LOOPBACK_INDEX].contains(&route.dev)
        });
        taken.map_or(Ok(()), |route| Err(CniError::DefaultRouteTaken { device: route.dev }))
    }

    /// Gives the pod its addresses and routes and sets its ends of `lo` and `link` up; all of it may be there already.
    ///
    /// The kernel takes routes only on a device that is up, so the device comes before them. No packet passes yet: the
    /// other end of the pair is still down, unless the pod ran before. `former` is what this run has set up before, and is
    /// to be no more.
    ///
    /// # Errors
    /// `Kernel` or `Sysctl` with what was refused.
    pub async fn configure(
        &self,
        link: &Link,
        mac: Option<[u8; 6]>,
        plan: &PodPlan,
        former: Option<&PodPlan>,
    ) -> Result<(), CniError> {
        if let Some(mac) = mac.filter(|mac| *mac != link.mac) {
            self.netlink.set_mac(link.index, mac).await?;
        }
        if link.mtu != plan.device_mtu_bytes {
            self.netlink.set_mtu(link.index, plan.device_mtu_bytes).await?;
        }
        if plan.has_ipv6() {
            self.prepare_ipv6(&link.name)?;
        }
        if plan.no_udp_segmentation || former.is_some_and(|former| former.no_udp_segmentation) {
            self.switch_udp_segmentation(&link.name, !plan.no_udp_segmentation)?;
        }
        self.netlink.set_up(LOOPBACK_INDEX).await?;
        for family in &plan.families {
            self.netlink.add_address(link.index, family.address).await?;
        }
        self.netlink.set_up(link.index).await?;
        for route in plan.routes(link.index) {
            self.netlink.replace_route(&route).await?;
        }
        Ok(())
    }

    /// What a tunnel cannot carry as one superpacket is split before it leaves the pod. A kernel that has no such feature
    /// never makes one.
    fn switch_udp_segmentation(&self, ifname: &str, on: bool) -> Result<(), CniError> {
        self.netns.run(|| kinesin_netlink::switch_features(ifname, &kinesin_netlink::BEFORE_TUNNELS, on))??;
        Ok(())
    }

    /// Some runtimes hand out namespaces with IPv6 off. Addresses are leased and the next hop is known, so neither
    /// duplicate detection nor router advertisements have a place here.
    fn prepare_ipv6(&self, ifname: &str) -> Result<(), CniError> {
        self.netns.run(|| {
            let here = Sysctl::here();
            here.set("ipv6/conf/all/disable_ipv6", "0")?;
            here.set(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")?;
            here.set(&format!("ipv6/conf/{ifname}/accept_dad"), "0")?;
            here.set(&format!("ipv6/conf/{ifname}/accept_ra"), "0")?;
            Ok(())
        })?
    }
}
