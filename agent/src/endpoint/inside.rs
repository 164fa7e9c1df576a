//! Changes what a running pod's kernel was told: routes, device and offloads, in the pod's own network namespace.
//!
//! The namespace is found by the path that the runtime gave to ADD (`CNI_NETNS`). Paths are used again, and this agent may
//! see another file there than the runtime does, so a namespace counts as the pod's only if it says so itself: by its
//! cookie (Linux 5.14), or else by the pod's addresses, and in any case by a device that is the other end of the pod's pair.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use kinesin_core::causes::with_causes;
use kinesin_netlink::{BEFORE_TUNNELS, Link, LinkKind, NetNs, Netlink, NetlinkError, TABLE_MAIN, switch_features};

use super::{
    Record,
    settings::{Settings, settled},
};

/// The least MTU of a device that keeps its IPv6 addresses (`IPV6_MIN_MTU`, RFC 8200 section 5).
const IPV6_MIN_MTU: u32 = 1280;

/// Both names of one directory: the runtime may write the one, and this agent's image have the other.
const NETNS_DIRS: [&str; 2] = ["/var/run/netns", "/run/netns"];

/// Why a running pod could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InsideError {
    /// The plugin has not ended yet: what it was told would overwrite this.
    #[error("its network is still being set up")]
    NotUp,
    /// ADD came without a path.
    #[error("the runtime has told no path of its network namespace")]
    NoPath,
    /// Nothing can be opened at the path.
    #[error("its network namespace cannot be opened: {0}")]
    Open(NetlinkError),
    /// Another namespace is there.
    #[error("{} is not its network namespace: {reason}", .path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What tells.
        reason: String,
    },
    /// The runtime has told it by a process, and that is another one here, or none.
    #[error(
        "the runtime has told its network namespace by a process ({}), which this agent does not see: {reason}; a pod that is \
         restarted gets the present MTU, and a runtime that keeps namespaces in /var/run/netns has no such pods",
        .path.display()
    )]
    ByProcess {
        /// The path.
        path: PathBuf,
        /// What came of trying.
        reason: String,
    },
    /// It took too long.
    #[error("its network namespace did not answer in time")]
    Slow,
    /// There was no time for it.
    #[error("other pods' network namespaces did not answer, and it has not had its turn")]
    NotReached,
    /// The kernel refused something in it.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
}

/// A running pod's namespace, once it is known to be that.
#[derive(Debug)]
pub(crate) struct Inside {
    netns: NetNs,
    netlink: Netlink,
    link: Link,
}

impl Inside {
    /// Finds the namespace of the pod whose host end is `host`.
    pub(crate) async fn find(record: &Record, host: &Link) -> Result<Self, InsideError> {
        if !host.up {
            // The plugin sets it up last.
            return Err(InsideError::NotUp);
        }
        let mut first_error = None;
        for path in places(&record.request.container_netns_path) {
            match Self::open(&path, record, host).await {
                Ok(found) => return Ok(found),
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        let told = Path::new(&record.request.container_netns_path);
        match first_error {
            // An agent in a container has a `/proc` of its own.
            Some(error @ (InsideError::Open(_) | InsideError::Foreign { .. })) if told.starts_with("/proc") => {
                Err(InsideError::ByProcess { path: told.to_owned(), reason: with_causes(&error) })
            }
            error => Err(error.unwrap_or(InsideError::NoPath)),
        }
    }

    async fn open(path: &Path, record: &Record, host: &Link) -> Result<Self, InsideError> {
        let netns = NetNs::open(path).map_err(InsideError::Open)?;
        let foreign = |reason: String| InsideError::Foreign { path: path.to_owned(), reason };
        if netns.id()? == NetNs::current()?.id()? {
            return Err(foreign("it is this node's own".to_owned()));
        }
        let cookie = record.request.netns_cookie;
        if cookie != 0 {
            let found = netns.cookie()?;
            if found != cookie {
                return Err(foreign(format!("its cookie is {found}, and the pod's {cookie}")));
            }
        }
        let netlink = Netlink::in_netns(&netns)?;
        let name = &record.request.container_interface_name;
        let link = netlink.find_link(name).await?.ok_or_else(|| foreign(format!("it has no device {name:?}")))?;
        let is_pair =
            link.kind == LinkKind::Veth && link.peer_index == Some(host.index) && host.peer_index == Some(link.index);
        if !is_pair {
            return Err(foreign(format!("its device {name:?} is not the other end of {:?}", host.name)));
        }
        if cookie == 0 {
            let present = netlink.addresses_of(link.index).await?;
            if let Some(ip) = record.addresses().into_iter().find(|ip| !present.contains(&IpNet::from(*ip))) {
                return Err(foreign(format!("its device {name:?} has not the address {ip}")));
            }
        }
        Ok(Self { netns, netlink, link })
    }

    /// Brings the pod from one of `ours`, or something in between, to `to`.
    ///
    /// Only what the plugin sets is touched, and only where it is still there: the default routes by the pod's next hops,
    /// the pair's MTU, and the offloads.
    pub(crate) async fn change(
        &self,
        node: &Netlink,
        record: &Record,
        host: &Link,
        ours: &[Settings],
        to: Settings,
    ) -> Result<(), InsideError> {
        if ours.iter().any(|had| had.no_udp_segmentation != to.no_udp_segmentation) {
            let name = self.link.name.as_str();
            self.netns.run(|| switch_features(name, &BEFORE_TUNNELS, !to.no_udp_segmentation))??;
        }
        let device_mtus: Vec<u32> = ours.iter().map(|had| had.device_mtu).collect();
        let has_ipv6 = record.addresses().iter().any(IpAddr::is_ipv6);
        // Below it the kernel takes every IPv6 address from the device, and nobody would give them back.
        let least = if has_ipv6 { IPV6_MIN_MTU } else { 0 };
        let wanted = to.device_mtu.max(least);
        let device_mtu = settled(self.link.mtu, &device_mtus, wanted);
        let route_mtu = to.route_mtu.min(device_mtu);
        self.set_route_mtu(record, ours, route_mtu).await?;
        if device_mtu != self.link.mtu {
            self.netlink.set_mtu(self.link.index, device_mtu).await?;
        }
        // Read anew: an earlier step of the same pass may have changed it.
        let host_mtu = node.find_link_by_index(host.index).await?.map_or(wanted, |link| link.mtu);
        let wanted = settled(host_mtu, &device_mtus, wanted);
        if wanted != host_mtu {
            node.set_mtu(host.index, wanted).await?;
        }
        Ok(())
    }

    async fn set_route_mtu(&self, record: &Record, ours: &[Settings], to: u32) -> Result<(), InsideError> {
        let mtus: Vec<u32> = ours.iter().map(|had| had.route_mtu.min(self.link.mtu)).collect();
        for mut route in self.netlink.routes().await? {
            let is_plugins = route.dst == everything(route.dst.addr().is_ipv4())
                && route.table == TABLE_MAIN
                && route.dev == self.link.index
                && route.via.is_some_and(|hop| record.networking.gateways.contains(&hop));
            let found = route.mtu.unwrap_or(u32::MAX);
            let mtu = settled(found, &mtus, to);
            if is_plugins && mtu != found {
                route.mtu = Some(mtu);
                self.netlink.replace_route(&route).await?;
            }
        }
        Ok(())
    }
}

/// Where the namespace may be: as the runtime said, and in the same directory by its other name.
fn places(told: &str) -> Vec<PathBuf> {
    if told.is_empty() {
        return Vec::new();
    }
    let path = PathBuf::from(told);
    let [one, other] = NETNS_DIRS;
    let twin = [(one, other), (other, one)]
        .into_iter()
        .find_map(|(from, to)| path.strip_prefix(from).ok().map(|name| Path::new(to).join(name)));
    std::iter::once(path).chain(twin).collect()
}

/// The default destination.
fn everything(is_ipv4: bool) -> IpNet {
    let unspecified: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // 0 is a valid prefix length of both families.
    IpNet::new_assert(unspecified, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{endpoint::tests::record, node::tests::link};

    #[tokio::test]
    async fn a_namespace_that_is_told_by_a_process_of_another_view_is_named_with_the_way_out() {
        let host = Link { peer_index: Some(2), kind: LinkKind::Veth, ..link(7, "lxc7") };
        let mut record = record(7, "10.0.0.7");
        for (path, parts) in [
            ("/proc/0/ns/net", &["by a process (/proc/0/ns/net)", "No such file", "restarted", "/var/run/netns"][..]),
            ("/run/netns/none-such", &["cannot be opened", "/run/netns/none-such"]),
        ] {
            path.clone_into(&mut record.request.container_netns_path);
            let told = with_causes(&Inside::find(&record, &host).await.expect_err("no such file"));
            assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        }
    }

    #[test]
    fn a_namespace_is_looked_for_under_both_names_of_its_directory() {
        let texts = |told: &str| places(told).iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        assert_eq!(texts("/var/run/netns/cni-1"), ["/var/run/netns/cni-1", "/run/netns/cni-1"]);
        assert_eq!(texts("/run/netns/cni-1"), ["/run/netns/cni-1", "/var/run/netns/cni-1"]);
        assert_eq!(texts("/proc/7/ns/net"), ["/proc/7/ns/net"]);
        assert!(texts("").is_empty());
    }
}
