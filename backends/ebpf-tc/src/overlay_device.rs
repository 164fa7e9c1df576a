//! `cilium_vxlan`, a VXLAN device that carries nothing. While it is up, the kernel listens on its port, and merges
//! segments that come in by VXLAN before `from_netdev` takes them out of it: for a TCP stream that is half again as much
//! throughput. What the kernel itself gives to the device is dropped by `from_overlay`.
//!
//! Nothing depends on it, so trouble with it is told and does not fail the rest.

use kinesin_core::{
    chassis::{ChassisReport, NodeSpec},
    values::Carrier,
};
use kinesin_netlink::{Link, LinkKind, Netlink, NetlinkError};

/// The device.
pub(crate) const NAME: &str = "cilium_vxlan";

/// Makes the device, down at first, or removes it where the node has no VXLAN; the answer is the device.
pub(crate) async fn ensure(netlink: &Netlink, node: &NodeSpec, report: &mut ChassisReport) -> Option<Link> {
    let port = node.tunnels.iter().find(|tunnel| tunnel.carrier == Carrier::Vxlan).map(|tunnel| tunnel.port);
    match bring(netlink, port, &mut report.changes).await {
        Ok(link) => link,
        Err(error) => {
            report.degraded.push(degraded(&error));
            None
        }
    }
}

async fn bring(netlink: &Netlink, port: Option<u16>, changes: &mut usize) -> Result<Option<Link>, NetlinkError> {
    let Some(port) = port else {
        *changes += usize::from(remove(netlink).await?);
        return Ok(None);
    };
    match netlink.find_link(NAME).await? {
        Some(link) if link.kind == (LinkKind::Vxlan { port, external: true }) => return Ok(Some(link)),
        // On another port, or none of ours at all.
        Some(link) => netlink.delete_link(link.index).await?,
        None => {}
    }
    netlink.add_vxlan(NAME, port).await?;
    *changes += 1;
    netlink.find_link(NAME).await
}

/// Raises the device, whose program is attached by now; the answer is the number of changes.
pub(crate) async fn open(netlink: &Netlink, link: &Link, degraded_by: &mut Vec<String>) -> usize {
    if link.up {
        return 0;
    }
    match netlink.set_up(link.index).await {
        Ok(()) => 1,
        // Another VXLAN device may have the port, with options that do not go together.
        Err(error) => {
            degraded_by.push(degraded(&error));
            0
        }
    }
}

/// Removes the device; the answer tells whether there was one.
pub(crate) async fn remove(netlink: &Netlink) -> Result<bool, NetlinkError> {
    netlink.delete_link_by_name(NAME).await
}

fn degraded(error: &NetlinkError) -> String {
    format!("segments that come in by VXLAN are not merged: {error}")
}
