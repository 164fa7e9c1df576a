//! `cilium_vxlan` and `cilium_geneve`, the kernel's own devices for tunnels.
//!
//! Where the kernel puts tunnels on and takes them off (`tunnel_path.rs`), packets go through them. Elsewhere they carry
//! hardly anything, and are there all the same: while one is up, the kernel listens on its port, and merges segments that
//! come in by the tunnel (GRO) before `from_netdev` takes them out of it, which makes a TCP stream faster (`README.md`). What
//! is not meant for a device and reaches it is dropped by `from_overlay`.
//!
//! Some kernels have no Geneve devices (CONFIG_GENEVE). There a VXLAN device listens on Geneve's port, [`STAND_IN`]. It makes
//! the kernel merge too, since a Geneve header without options, which is what nodes send, is as long as VXLAN's, has the
//! network number in the same place, and an Ethernet frame behind it; and since the kernel compares the first word of these
//! headers and does not read it (`vxlan_gro_receive`, Linux 6.1 to 6.18 `drivers/net/vxlan/`), unless remote checksum offload
//! is on, which it is not. Behind options the kernel looks for the frame where they are, finds none, and merges nothing;
//! options made to look like segments spoil the packets of their own sender's flow, who must be a known node to be heard at
//! all. Of itself the device takes nothing out of Geneve: to its eyes such a packet is VXLAN without a network, and ends there.
//! Superpackets of UDP, which the kernel alone can take out of a tunnel, programs make VXLAN of before (`disguise` in
//! `datapath/packet/src/tunnel/device.rs`).
//! Network cards that the kernel tells of tunnels' ports would hear that this one is VXLAN's (`udp_tunnel_notify_add_rx_port`).
//! What they make of Geneve then is not known, so where there is such a card the node does without.
//!
//! Nothing depends on an idle one, so trouble with it is told and does not fail the rest.

use std::collections::BTreeMap;

use kinesin_abi::tunnel::{INNER_DESTINATION, SOURCE_PORTS};
use kinesin_core::{
    chassis::{NodeSpec, Tunnel},
    values::Carrier,
};
use kinesin_netlink::{Link, LinkKind, Netlink, NetlinkError, TUNNEL_PORTS, TunnelKind, TunnelSpec};

use crate::tunnel_path::{Seen, Uplink};

/// The devices.
const DEVICES: [(Carrier, &str, TunnelKind); 2] =
    [(Carrier::Vxlan, "cilium_vxlan", TunnelKind::Vxlan), (Carrier::Geneve, "cilium_geneve", TunnelKind::Geneve)];

/// The VXLAN device on Geneve's port, where the kernel has no Geneve devices: it merges segments (GRO).
const STAND_IN: &str = "cilium_gro";

/// What the kernel has for one tunnel of the node.
#[derive(Debug)]
pub(crate) enum Overlay {
    /// Its device, which is up from [`open`] on.
    Ready(Link),
    /// No such device, for this reason, and one in its place through which no tunnel goes; up from [`open`] on.
    StandIn(Link, String),
    /// Nothing: the reason why.
    Failed(String),
}

impl Overlay {
    /// Why the tunnel cannot go through a device.
    pub(crate) fn why_not_carrying(&self) -> Option<&str> {
        match self {
            Self::Ready(_) => None,
            Self::StandIn(_, reason) | Self::Failed(reason) => Some(reason),
        }
    }

    /// Why segments are not merged.
    pub(crate) fn why_not_merging(&self) -> Option<&str> {
        match self {
            Self::Ready(_) | Self::StandIn(..) => None,
            Self::Failed(reason) => Some(reason),
        }
    }

    /// What programs are told of it; `is_used` says whether the tunnel goes through it.
    pub(crate) fn for_programs(&self, is_used: bool) -> Option<TunnelDevice> {
        match self {
            Self::Ready(link) if is_used => Some(TunnelDevice::Used(link.index)),
            Self::Ready(_) => Some(TunnelDevice::Idle),
            Self::StandIn(..) => Some(TunnelDevice::StandIn),
            Self::Failed(_) => None,
        }
    }

    /// The device that is there, whatever it is for.
    fn device(&self) -> Option<&Link> {
        match self {
            Self::Ready(link) | Self::StandIn(link, _) => Some(link),
            Self::Failed(_) => None,
        }
    }
}

/// What programs are told of a tunnel's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunnelDevice {
    /// Packets go through the one with this index.
    Used(u32),
    /// Only those go through it that the kernel alone can take out of a tunnel.
    Idle,
    /// The same, and it is a VXLAN device at Geneve's port.
    StandIn,
}

/// The devices of the node's tunnels.
pub(crate) type Overlays = BTreeMap<Carrier, Overlay>;

/// Makes those of the node's tunnels, down at first, and removes the others; `changes` counts, `cards` is what is known of
/// network cards.
pub(crate) async fn ensure(
    netlink: &Netlink,
    node: &NodeSpec,
    cards: &mut Seen,
    changes: &mut usize,
) -> Result<Overlays, NetlinkError> {
    let mut overlays = Overlays::new();
    for (carrier, name, kind) in DEVICES {
        match node.tunnels.iter().find(|tunnel| tunnel.carrier == carrier) {
            Some(tunnel) => {
                let overlay = of_tunnel(netlink, tunnel, (name, kind), cards, changes).await?;
                overlays.insert(carrier, overlay);
            }
            None => *changes += usize::from(netlink.delete_link_by_name(name).await?),
        }
    }
    if !overlays.values().any(|overlay| matches!(overlay, Overlay::StandIn(..))) {
        // Before the devices are raised: a Geneve device that the kernel has by now needs the port.
        *changes += usize::from(netlink.delete_link_by_name(STAND_IN).await?);
    }
    Ok(overlays)
}

/// Makes the device of one tunnel, or what stands in for it.
async fn of_tunnel(
    netlink: &Netlink,
    tunnel: &Tunnel,
    (name, kind): (&str, TunnelKind),
    cards: &mut Seen,
    changes: &mut usize,
) -> Result<Overlay, NetlinkError> {
    let spec = |name, kind| {
        let (port, source_ports, mac) = (tunnel.port, SOURCE_PORTS, Some(INNER_DESTINATION));
        TunnelSpec { name, kind, port, source_ports, mac }
    };
    let lacking = match bring(netlink, &spec(name, kind), changes).await {
        Ok(link) => return Ok(Overlay::Ready(link)),
        Err(error) if error.is_unsupported() => lacking(kind),
        Err(error) => return Ok(Overlay::Failed(error.to_string())),
    };
    if kind == TunnelKind::Vxlan {
        return Ok(Overlay::Failed(lacking));
    }
    let links = netlink.links().await?;
    let physical: Vec<_> = links.into_iter().filter(|link| link.kind == LinkKind::Physical && !link.loopback).collect();
    if let Some(hindrance) = hindrance(&cards.look(&physical)) {
        return Ok(Overlay::Failed(format!("{lacking}, and {hindrance}")));
    }
    Ok(match bring(netlink, &spec(STAND_IN, TunnelKind::Vxlan), changes).await {
        Ok(link) => Overlay::StandIn(link, lacking),
        Err(error) => Overlay::Failed(format!("{lacking}, and no VXLAN device in their place: {error}")),
    })
}

/// Why no VXLAN device may listen on Geneve's port, and the way out.
fn hindrance(cards: &[Uplink]) -> Option<String> {
    let card = cards.iter().find(|card| card.learns_ports)?;
    Some(format!(
        "{name} would take what comes to the port of a VXLAN device in their place for VXLAN; use a kernel that has them, or \
         `ethtool -K {name} {TUNNEL_PORTS} off` and restart the agent",
        name = card.name
    ))
}

/// That the kernel has no devices of a kind.
fn lacking(kind: TunnelKind) -> String {
    let (name, option) = match kind {
        TunnelKind::Vxlan => (Carrier::Vxlan, "VXLAN"),
        TunnelKind::Geneve => (Carrier::Geneve, "GENEVE"),
    };
    format!("this kernel has no {name} devices (CONFIG_{option})")
}

async fn bring(netlink: &Netlink, spec: &TunnelSpec<'_>, changes: &mut usize) -> Result<Link, NetlinkError> {
    match netlink.find_link(spec.name).await? {
        Some(link) if is_right(&link, spec) => return Ok(link),
        // On another port, of an older version, or none of ours at all.
        Some(link) => netlink.delete_link(link.index).await?,
        None => {}
    }
    netlink.add_tunnel(spec).await?;
    *changes += 1;
    netlink.link(spec.name).await
}

fn is_right(link: &Link, spec: &TunnelSpec<'_>) -> bool {
    let (port, source_ports) = (spec.port, spec.source_ports);
    let kind = match spec.kind {
        TunnelKind::Vxlan => LinkKind::Vxlan { port, external: true, source_ports },
        TunnelKind::Geneve => LinkKind::Geneve { port, external: true },
    };
    link.kind == kind && Some(link.mac) == spec.mac
}

/// Raises the devices, whose programs are attached by now; the answer is the number of changes.
pub(crate) async fn open(netlink: &Netlink, overlays: &mut Overlays) -> usize {
    let mut changes = 0;
    for overlay in overlays.values_mut() {
        let (Overlay::Ready(link) | Overlay::StandIn(link, _)) = overlay else { continue };
        if link.up {
            continue;
        }
        match netlink.set_up(link.index).await {
            Ok(()) => {
                link.up = true;
                changes += 1;
            }
            // Somebody else may have the port, with options that do not go together.
            Err(error) => {
                let before = overlay.why_not_carrying().map(|why| format!("{why}, and ")).unwrap_or_default();
                *overlay = Overlay::Failed(format!("{before}{error}"));
            }
        }
    }
    changes
}

/// Names and indices of those that are there.
pub(crate) fn devices(overlays: &Overlays) -> Vec<(String, u32)> {
    overlays.values().filter_map(Overlay::device).map(|link| (link.name.clone(), link.index)).collect()
}

/// Removes all of them.
pub(crate) async fn remove(netlink: &Netlink) -> Result<(), NetlinkError> {
    for name in DEVICES.map(|(_, name, _)| name).into_iter().chain([STAND_IN]) {
        netlink.delete_link_by_name(name).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_that_learns_ports_is_not_told_that_geneve_is_vxlan() {
        let card = |name: &str, learns_ports| Uplink {
            name: name.to_owned(),
            has_ethernet: true,
            driver: None,
            segments_tunnels: true,
            learns_ports,
        };
        assert_eq!(hindrance(&[]), None);
        assert_eq!(hindrance(&[card("eth0", false)]), None);
        let why = hindrance(&[card("eth0", false), card("eth1", true)]).expect("it is told");
        assert!(why.contains("eth1 would") && why.contains("ethtool -K eth1 rx-udp_tunnel-port-offload off"), "{why}");
    }
}
