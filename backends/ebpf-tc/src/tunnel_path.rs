//! Who puts tunnels on and takes them off: our programs, or the kernel's own device.
//!
//! The bytes on the wire are the same, so that nodes may differ.

use kinesin_core::values::Carrier;
use kinesin_netlink::{Link, TUNNEL_PORTS, TUNNEL_SEGMENTATION, driver_of, has_feature};
use serde::Deserialize;

/// What the configuration asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelPath {
    /// What suits the uplinks.
    #[default]
    Auto,
    /// The kernel's device.
    Device,
    /// Programs.
    Bpf,
}

/// What counts of an uplink, or of another device that the node's packets come in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uplink {
    /// Its name.
    pub(crate) name: String,
    /// Whether its packets have an Ethernet header.
    pub(crate) has_ethernet: bool,
    /// Its driver, such as `virtio_net` or `veth`; none where the kernel does not tell.
    pub(crate) driver: Option<String>,
    /// Whether it cuts what is in a tunnel into segments itself (`tx-udp_tnl-segmentation`).
    pub(crate) segments_tunnels: bool,
    /// Whether the kernel tells it of the ports of tunnels (`rx-udp_tunnel-port-offload`).
    pub(crate) learns_ports: bool,
}

/// What was learnt of devices. The kernel is asked again only of one that is another or has changed; a feature that is
/// switched later is seen with the device's next change.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<(Link, Uplink)>);

impl Seen {
    /// What is known of these, in their order.
    pub(crate) fn look(&mut self, links: &[Link]) -> Vec<Uplink> {
        self.look_by(links, ask)
    }

    fn look_by(&mut self, links: &[Link], ask: impl Fn(&Link) -> Uplink) -> Vec<Uplink> {
        let known = |link: &Link| self.0.iter().find(|(old, _)| old == link).map(|(_, found)| found.clone());
        self.0 = links.iter().map(|link| (link.clone(), known(link).unwrap_or_else(|| ask(link)))).collect();
        self.0.iter().map(|(_, found)| found.clone()).collect()
    }
}

/// What the kernel tells of a device. What cannot be read says nothing against programs.
fn ask(link: &Link) -> Uplink {
    Uplink {
        name: link.name.clone(),
        has_ethernet: link.ethernet,
        driver: driver_of(&link.name).unwrap_or_default(),
        segments_tunnels: has_feature(&link.name, TUNNEL_SEGMENTATION).unwrap_or_default(),
        learns_ports: has_feature(&link.name, TUNNEL_PORTS).unwrap_or_default(),
    }
}

/// How one tunnel of the node is put on and taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Whether by the kernel's device.
    pub(crate) by_device: bool,
    /// The reason for each uplink, in their order.
    pub(crate) reasons: Vec<String>,
    /// What is less than was asked for, and the way out.
    pub(crate) trouble: Option<String>,
}

/// Decides for one tunnel of a node; `device` is the reason why the kernel's device cannot be used, if it cannot.
///
/// One way serves all uplinks of a node, since which of them a packet leaves by is known only after it has been wrapped:
/// what one of them needs is what all get.
///
/// `auto` takes programs wherever they can work. They take a packet from the pod's device to the uplink past the stack and
/// save its second passage through the IP layer, netfilter and a device of its own. Measured on veth (Linux 6.18), one TCP
/// stream: 16.5 to 18.3 Gbit/s by programs and 14.4 through the device; cut by the sender as by a network card and merged by
/// the receiver, 6.8 and 6.5. One byte to and fro takes 24.0 us by programs and 28.4 through the device with both ends on one
/// CPU (`other-node/tcp-rr-one-cpu` of `bench/`); on two, the wakeup of a CPU that waits takes three times as long as the way
/// and hides it. On other drivers that is reasoned, not measured: who cuts a tunnel's segments, the card or
/// the kernel before it, is told in the same words (`SKB_GSO_UDP_TUNNEL`) on either way, so that neither has an advantage.
///
/// The device is for uplinks without Ethernet header, such as those of WireGuard, PPP and tun: how a program's packet gets
/// out of all of them has not been tried, and the stack knows.
#[must_use]
pub(crate) fn choose(wanted: TunnelPath, carrier: Carrier, device: Option<&str>, uplinks: &[Uplink]) -> Decision {
    let bare: Vec<&str> = uplinks.iter().filter(|found| !found.has_ethernet).map(|found| found.name.as_str()).collect();
    let asks = wanted == TunnelPath::Device || (wanted == TunnelPath::Auto && !bare.is_empty());
    let by_device = asks && device.is_none();
    let reason = |uplink: &Uplink| match (wanted, device) {
        (TunnelPath::Device, None) => "tunnel.path is device".to_owned(),
        (TunnelPath::Device, Some(why)) => format!("tunnel.path is device, but {why}"),
        (TunnelPath::Bpf, _) => "tunnel.path is bpf".to_owned(),
        (TunnelPath::Auto, Some(why)) if asks => {
            format!("the device would be right for {}, but {why}", bare.join(", "))
        }
        (TunnelPath::Auto, _) if !uplink.has_ethernet => "it has no Ethernet header".to_owned(),
        (TunnelPath::Auto, _) if asks => format!("{} has no Ethernet header, and a node has one way", bare.join(", ")),
        (TunnelPath::Auto, _) => of_driver(uplink),
    };
    let trouble = match device {
        Some(why) if asks => Some(format!(
            "{carrier} is put on by programs and not by the kernel's device: {why}; use a kernel that has the device and let \
             nobody else have its port, or set tunnel.path to bpf"
        )),
        _ => None,
    };
    Decision { by_device, reasons: uplinks.iter().map(reason).collect(), trouble }
}

/// Why programs suit an uplink with an Ethernet header.
fn of_driver(uplink: &Uplink) -> String {
    match uplink.driver.as_deref() {
        Some("veth") => "programs skip the upper stack, which is faster on veth (measured)".to_owned(),
        driver => {
            let driver = driver.map_or_else(|| "its driver, unnamed,".to_owned(), |name| format!("its driver {name}"));
            let who = if uplink.segments_tunnels { "cuts" } else { "leaves it to the kernel to cut" };
            format!("programs skip the upper stack, and {driver} {who} segments on either way (measured on veth only)")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use kinesin_netlink::LinkKind;

    use super::*;

    fn uplink(name: &str, driver: &str) -> Uplink {
        let driver = Some(driver.to_owned()).filter(|driver| !driver.is_empty());
        Uplink { name: name.to_owned(), has_ethernet: true, driver, segments_tunnels: false, learns_ports: false }
    }

    fn bare(name: &str) -> Uplink {
        Uplink { has_ethernet: false, ..uplink(name, "") }
    }

    fn chosen(wanted: TunnelPath, device: Option<&str>, uplinks: &[Uplink]) -> Decision {
        let decision = choose(wanted, Carrier::Vxlan, device, uplinks);
        assert_eq!(decision.reasons.len(), uplinks.len());
        assert!(decision.reasons.iter().all(|reason| !reason.is_empty()));
        decision
    }

    #[test]
    fn an_uplink_is_asked_for_once_and_after_each_change() {
        let link = |index, name: &str, mtu| Link {
            index,
            name: name.to_owned(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu,
            up: true,
            loopback: false,
            noarp: false,
            ethernet: true,
            kind: LinkKind::Physical,
            peer_index: None,
            master_index: None,
        };
        let (first, second) = (link(2, "eth0", 1500), link(3, "eth1", 1500));
        // The same name and another device; the same device, changed.
        let (other, changed) = (link(4, "eth0", 1500), link(3, "eth1", 9000));
        let mut seen = Seen::default();
        let asked = RefCell::new(Vec::new());
        for (links, expected) in [
            (vec![first.clone(), second.clone()], vec![2, 3]),
            (vec![second.clone(), first.clone()], vec![]),
            (vec![other.clone(), second], vec![4]),
            (vec![other.clone(), changed.clone()], vec![3]),
            (vec![other, changed], vec![]),
            // It was gone meanwhile.
            (vec![], vec![]),
            (vec![first], vec![2]),
        ] {
            asked.borrow_mut().clear();
            let found = seen.look_by(&links, |link| {
                asked.borrow_mut().push(link.index);
                uplink(&link.name, &format!("driver of {}", link.index))
            });
            assert_eq!(*asked.borrow(), expected);
            let drivers = links.iter().map(|link| Some(format!("driver of {}", link.index)));
            assert!(found.iter().map(|uplink| uplink.driver.clone()).eq(drivers), "{found:?}");
        }
    }

    #[test]
    fn auto_takes_programs_on_every_driver() {
        for driver in ["veth", "virtio_net", "mlx5_core", "ena", ""] {
            for segments_tunnels in [false, true] {
                let decision = chosen(TunnelPath::Auto, None, &[Uplink { segments_tunnels, ..uplink("eth0", driver) }]);
                assert!(!decision.by_device && decision.trouble.is_none(), "{driver}");
                assert!(decision.reasons[0].contains(driver), "{decision:?}");
                // What was measured elsewhere says so.
                assert_eq!(decision.reasons[0].contains("on veth only"), driver != "veth", "{decision:?}");
            }
        }
    }

    #[test]
    fn an_uplink_without_ethernet_takes_the_device_and_the_others_with_it() {
        let decision = chosen(TunnelPath::Auto, None, &[uplink("eth0", "virtio_net"), bare("wg0")]);
        assert!(decision.by_device);
        assert_eq!(
            decision.reasons,
            ["wg0 has no Ethernet header, and a node has one way", "it has no Ethernet header"]
        );
    }

    #[test]
    fn what_is_asked_for_is_done() {
        let uplinks = [uplink("eth0", "veth"), bare("wg0")];
        assert!(chosen(TunnelPath::Device, None, &uplinks[..1]).by_device);
        assert!(!chosen(TunnelPath::Bpf, None, &uplinks).by_device);
        // Also before there is an uplink.
        assert!(chosen(TunnelPath::Device, None, &[]).by_device);
        assert!(!chosen(TunnelPath::Auto, None, &[]).by_device);
    }

    #[test]
    fn a_device_that_cannot_be_had_is_trouble_only_where_it_is_needed() {
        let why = Some("this kernel has no vxlan devices");
        let eth0 = [uplink("eth0", "veth")];
        for (wanted, uplinks, is_trouble) in [
            (TunnelPath::Device, &eth0[..], true),
            (TunnelPath::Auto, &[bare("wg0")][..], true),
            (TunnelPath::Auto, &eth0[..], false),
            (TunnelPath::Bpf, &eth0[..], false),
        ] {
            let decision = chosen(wanted, why, uplinks);
            assert!(!decision.by_device);
            assert_eq!(decision.trouble.is_some(), is_trouble, "{wanted:?}");
            if let Some(text) = decision.trouble {
                assert!(text.contains("no vxlan devices") && text.contains("set tunnel.path"), "{text}");
                assert!(decision.reasons[0].contains("no vxlan devices"));
            }
        }
    }
}
