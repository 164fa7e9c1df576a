//! The veth pair of an attachment: made, found again, removed.

use kinesin_netlink::{Link, LinkKind, Netlink, VethSpec};

use crate::{CniError, log::Log, pod::Pod};

/// The two ends of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The end in the node's namespace.
    pub host: Link,
    /// The end in the pod's namespace.
    pub pod: Link,
    /// Whether this run made it; only then may this run take it away again.
    pub fresh: bool,
}

/// Makes the pair, both ends down, or finds the one that an earlier ADD of the same attachment made.
///
/// A host end whose other end is not the pod's interface was left by an interrupted ADD in a namespace of the past;
/// it is removed and made anew.
///
/// # Errors
/// `NameTaken` when the pod's interface belongs to something else, or `Kernel`.
pub async fn ensure(node: &Netlink, pod: &Pod, log: &Log, host_end: &str, ifname: &str) -> Result<Pair, CniError> {
    let spec = VethSpec {
        name: host_end,
        mac: None,
        peer_name: ifname,
        peer_mac: None,
        peer_netns: Some(pod.netns()),
        mtu: None,
    };
    match node.add_veth(&spec).await {
        Ok(()) => return made(node, pod, host_end, ifname).await,
        Err(error) if !error.is_existing() => return Err(error.into()),
        Err(_) => {}
    }
    let in_pod = pod.netlink().find_link(ifname).await?;
    match (node.find_link(host_end).await?, in_pod) {
        (Some(host), Some(pod)) if are_one_pair(&host, &pod) => Ok(Pair { host, pod, fresh: false }),
        (_, Some(_)) => Err(CniError::NameTaken { ifname: ifname.to_owned() }),
        (stale, None) => {
            if let Some(stale) = stale {
                log.error(&format!("device {host_end} was left by an interrupted ADD and is made anew"));
                node.delete_link(stale.index).await?;
            }
            node.add_veth(&spec).await?;
            made(node, pod, host_end, ifname).await
        }
    }
}

async fn made(node: &Netlink, pod: &Pod, host_end: &str, ifname: &str) -> Result<Pair, CniError> {
    let found = async { Ok((node.link(host_end).await?, pod.netlink().link(ifname).await?)) };
    match found.await {
        Ok((host, pod)) => Ok(Pair { host, pod, fresh: true }),
        Err(error) => {
            // The error that led here is the one to tell.
            let _ = node.delete_link_by_name(host_end).await;
            Err(CniError::Kernel(error))
        }
    }
}

/// Whether two devices of different namespaces are each other's peer.
#[must_use]
pub fn are_one_pair(host: &Link, pod: &Link) -> bool {
    host.kind == LinkKind::Veth
        && pod.kind == LinkKind::Veth
        && host.peer_index == Some(pod.index)
        && pod.peer_index == Some(host.index)
}
