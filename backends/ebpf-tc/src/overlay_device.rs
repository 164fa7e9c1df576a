//! `cilium_vxlan` and `cilium_geneve`, the kernel's own devices for tunnels.
//!
//! Where the kernel puts tunnels on and takes them off (`tunnel_path.rs`), packets go through them. Elsewhere they carry
//! nothing, and are there all the same: while one is up, the kernel listens on its port, and merges segments that come in
//! by the tunnel before `from_netdev` takes them out of it. For a TCP stream that is half again as much throughput. What is
//! not meant for a device and reaches it is dropped by `from_overlay`.
//!
//! Nothing depends on an idle one, so trouble with it is told and does not fail the rest.

use std::collections::BTreeMap;

use kinesin_core::{chassis::NodeSpec, values::Carrier};
use kinesin_netlink::{Link, LinkKind, Netlink, NetlinkError, TunnelKind, TunnelSpec};

/// The devices.
const DEVICES: [(Carrier, &str, TunnelKind); 2] =
    [(Carrier::Vxlan, "cilium_vxlan", TunnelKind::Vxlan), (Carrier::Geneve, "cilium_geneve", TunnelKind::Geneve)];

/// The source ports, and the Ethernet address to which our frames go inside, as programs write them: `PORT_RANGE` in
/// `datapath/packet/src/tunnel/device.rs`, `INNER_ETH` in `datapath/packet/src/tunnel.rs`. The kernel then takes frames for
/// ones to the node.
const SOURCE_PORTS: (u16, u16) = (0xc000, 0xffff);
const MAC: [u8; 6] = [0x02, 0x4b, 0x49, 0x4e, 0x00, 0x01];

/// The device of one tunnel of the node.
#[derive(Debug)]
pub(crate) enum Overlay {
    /// It is there, and up from [`open`] on.
    Ready(Link),
    /// This kernel has none of its kind.
    Unsupported(String),
    /// It could not be made or raised.
    Failed(String),
}

impl Overlay {
    /// The device, where it can be used.
    pub(crate) fn link(&self) -> Option<&Link> {
        match self {
            Self::Ready(link) => Some(link),
            Self::Unsupported(_) | Self::Failed(_) => None,
        }
    }

    /// Why it cannot be used.
    pub(crate) fn trouble(&self) -> Option<&str> {
        match self {
            Self::Ready(_) => None,
            Self::Unsupported(reason) | Self::Failed(reason) => Some(reason),
        }
    }
}

/// The devices of the node's tunnels.
pub(crate) type Overlays = BTreeMap<Carrier, Overlay>;

/// Makes those of the node's tunnels, down at first, and removes the others; `changes` counts.
pub(crate) async fn ensure(netlink: &Netlink, node: &NodeSpec, changes: &mut usize) -> Result<Overlays, NetlinkError> {
    let mut overlays = Overlays::new();
    for (carrier, name, kind) in DEVICES {
        let Some(tunnel) = node.tunnels.iter().find(|tunnel| tunnel.carrier == carrier) else {
            *changes += usize::from(netlink.delete_link_by_name(name).await?);
            continue;
        };
        let spec = TunnelSpec { name, kind, port: tunnel.port, source_ports: SOURCE_PORTS, mac: Some(MAC) };
        let overlay = match bring(netlink, &spec, changes).await {
            Ok(link) => Overlay::Ready(link),
            Err(error) if error.is_unsupported() => {
                Overlay::Unsupported(format!("this kernel has no {carrier} devices (CONFIG_{})", config_of(kind)))
            }
            Err(error) => Overlay::Failed(error.to_string()),
        };
        overlays.insert(carrier, overlay);
    }
    Ok(overlays)
}

fn config_of(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Vxlan => "VXLAN",
        TunnelKind::Geneve => "GENEVE",
    }
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
        let Overlay::Ready(link) = overlay else { continue };
        if link.up {
            continue;
        }
        match netlink.set_up(link.index).await {
            Ok(()) => {
                link.up = true;
                changes += 1;
            }
            // Another device may have the port, with options that do not go together.
            Err(error) => *overlay = Overlay::Failed(error.to_string()),
        }
    }
    changes
}

/// Names and indices of those that can be used.
pub(crate) fn devices(overlays: &Overlays) -> Vec<(String, u32)> {
    overlays.values().filter_map(Overlay::link).map(|link| (link.name.clone(), link.index)).collect()
}

/// Removes both devices.
pub(crate) async fn remove(netlink: &Netlink) -> Result<(), NetlinkError> {
    for (_, name, _) in DEVICES {
        netlink.delete_link_by_name(name).await?;
    }
    Ok(())
}
