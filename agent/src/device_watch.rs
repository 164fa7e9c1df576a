//! Wakes the reconciliation when the node's devices, addresses or default routes change.
//!
//! A changed MTU that is noticed only by the periodic pass would be a black hole until then. Pods' devices come and go with
//! every ADD and DEL, which do their own work, so they are left out; so is what the kernel tells again and again without a
//! change, such as the lifetime of an address that a router advertises (RFC 4861 section 6.3.4).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use kinesin_netlink::{Announcement, Link, Netlink, NetlinkError, Watch};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{controller::Controllers, health};

/// Name in `status`.
pub(crate) const NAME: &str = "watch-devices";
/// Wait before the kernel is asked again after the socket broke.
const RETRY: Duration = Duration::from_secs(5);

/// What is announced from now on, and how everything is now.
#[derive(Debug)]
pub(crate) struct Devices {
    watch: Watch,
    known: Known,
}

/// Begins to watch. Before the first reconciliation, so that whatever changes after that one has looked is announced.
pub(crate) async fn open() -> Result<Devices, NetlinkError> {
    // In this order, so that nothing falls between what is read and what is announced.
    let watch = Watch::new()?;
    Ok(Devices { watch, known: Known::read().await? })
}

/// Watches until the agent stops.
pub(crate) async fn run(
    mut opened: Result<Devices, NetlinkError>,
    wake: Arc<Notify>,
    controllers: Arc<Controllers>,
    stop: CancellationToken,
) {
    loop {
        let followed = async {
            let devices = opened?;
            controllers.note(NAME, Ok(()));
            follow(devices, &wake).await
        };
        let ended = tokio::select! {
            ended = followed => ended,
            () = stop.cancelled() => return,
        };
        controllers
            .note(NAME, ended.map_err(Into::into).and_then(|()| Err(anyhow::anyhow!("the kernel's socket broke"))));
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return,
        }
        opened = open().await;
        // What changed meanwhile is unknown.
        wake.notify_one();
    }
}

/// Follows one socket until it breaks.
async fn follow(devices: Devices, wake: &Notify) -> Result<(), NetlinkError> {
    let Devices { mut watch, mut known } = devices;
    while let Some(told) = watch.next().await {
        if told == Announcement::Missed {
            known = Known::read().await?;
            wake.notify_one();
        } else if known.learn(told) {
            wake.notify_one();
        }
    }
    Ok(())
}

/// What was told last.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpNet)>,
}

impl Known {
    async fn read() -> Result<Self, NetlinkError> {
        let netlink = Netlink::new()?;
        let links = netlink.links().await?;
        let addresses = netlink.addresses().await?;
        let links: BTreeMap<_, _> =
            links.into_iter().filter(|link| !is_of_a_pod(link)).map(|link| (link.index, link)).collect();
        let addresses = addresses.into_iter().filter(|(index, _)| links.contains_key(index)).collect();
        Ok(Self { links, addresses })
    }

    /// Takes over what was told; whether it may concern the datapath.
    fn learn(&mut self, told: Announcement) -> bool {
        match told {
            Announcement::Link(link) | Announcement::LinkGone(link) if is_of_a_pod(&link) => false,
            Announcement::Link(link) => self.links.insert(link.index, link.clone()).as_ref() != Some(&link),
            Announcement::LinkGone(link) => {
                self.addresses.retain(|(index, _)| *index != link.index);
                self.links.remove(&link.index).is_some()
            }
            // Those of pods' devices are link-local ones of the kernel's own making.
            Announcement::Address(index, address) => {
                self.links.contains_key(&index) && self.addresses.insert((index, address))
            }
            Announcement::AddressGone(index, address) => {
                self.addresses.remove(&(index, address)) && self.links.contains_key(&index)
            }
            Announcement::DefaultRoute(_) | Announcement::Missed => true,
            _ => false,
        }
    }
}

fn is_of_a_pod(link: &Link) -> bool {
    link.name.starts_with("lxc") && link.name != health::DEVICE
}

#[cfg(test)]
mod tests {
    use kinesin_netlink::LinkKind;

    use super::*;
    use crate::node;

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        Link { mtu, kind: LinkKind::Veth, ..node::tests::link(index, name) }
    }

    #[test]
    fn what_is_told_again_wakes_nobody() {
        let mut known = Known::default();
        let address: IpNet = "192.168.10.100/24".parse().expect("a network");
        assert!(known.learn(Announcement::Link(link(2, "eth0", 1500))));
        assert!(!known.learn(Announcement::Link(link(2, "eth0", 1500))));
        assert!(known.learn(Announcement::Link(link(2, "eth0", 1400))));
        assert!(known.learn(Announcement::Address(2, address)));
        assert!(!known.learn(Announcement::Address(2, address)));
        assert!(known.learn(Announcement::AddressGone(2, address)));
        assert!(!known.learn(Announcement::AddressGone(2, address)));
        assert!(known.learn(Announcement::DefaultRoute(2)));
        assert!(known.learn(Announcement::LinkGone(link(2, "eth0", 1400))));
        assert!(!known.learn(Announcement::LinkGone(link(2, "eth0", 1400))));
        assert_eq!(known, Known::default());
    }

    #[test]
    fn pods_are_left_out_and_the_health_endpoint_is_not() {
        let mut known = Known::default();
        assert!(!known.learn(Announcement::Link(link(7, "lxc0123456789ab", 1500))));
        assert!(!known.learn(Announcement::Address(7, "fe80::1/64".parse().expect("a network"))));
        assert!(!known.learn(Announcement::LinkGone(link(7, "lxc0123456789ab", 1500))));
        assert!(known.learn(Announcement::Link(link(8, "lxc_health", 1500))));
        assert!(known.learn(Announcement::LinkGone(link(8, "lxc_health", 1500))));
    }
}
