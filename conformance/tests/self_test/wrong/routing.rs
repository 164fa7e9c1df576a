//! Faults of `Routing`, around the reference.

use std::sync::Arc;

use async_trait::async_trait;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{Path, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_netlink::{Netlink, NetlinkError, Route};
use tokio::sync::Mutex;

use super::{Fault, fault};
use crate::reference::routing::{Reference, overlap, refused};

/// Protocol numbers from here on are those of the reference and of nobody else in the cases.
const OWN_PROTOCOLS: u8 = 100;

/// At least one per behaviour.
pub(crate) const FAULTS: &[Fault] = &[
    fault("silent_about_the_unreachable", "ROUTING-1", &["ROUTING-5", "ROUTING-6", "ROUTING-9"]),
    fault("makes_everything_anew", "ROUTING-2", &[]),
    fault("counts_changes_it_did_not_make", "ROUTING-2", &[]),
    fault("peers_never_leave", "ROUTING-3", &["ROUTING-1", "ROUTING-2", "ROUTING-9"]),
    fault("believes_its_memory", "ROUTING-4", &[]),
    fault("adds_but_never_mends", "ROUTING-4", &[]),
    fault("one_bad_peer_fails_all", "ROUTING-5", &["ROUTING-6", "ROUTING-9"]),
    fault("clears_its_way", "ROUTING-6", &[]),
    fault("retire_sweeps_all_routes", "ROUTING-6", &[]),
    fault("retires_its_own_run_only", "ROUTING-7", &[]),
    fault("plans_by_doing", "ROUTING-8", &[]),
    fault("plans_what_it_will_not_do", "ROUTING-8", &[]),
    fault("younger_takes_over", "ROUTING-9", &[]),
    fault("overlapping_claims_cut_off_both", "ROUTING-9", &[]),
    fault("first_heard_stays", "ROUTING-9", &["ROUTING-2", "ROUTING-3"]),
];

/// The reference with a fault.
#[derive(Debug)]
struct Wrong {
    fault: &'static str,
    last: Mutex<Option<(RoutingDesired, RoutingReport)>>,
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(fault: &'static str, _: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    Ok(Arc::new(Wrong { fault, last: Mutex::new(None) }))
}

/// Removes routes of others.
async fn sweep(in_the_way: impl Fn(&Route) -> bool) -> Result<(), NetlinkError> {
    let netlink = Netlink::new()?;
    for route in netlink.routes().await?.iter().filter(|route| route.protocol < OWN_PROTOCOLS && in_the_way(route)) {
        netlink.delete_route(route).await?;
    }
    Ok(())
}

/// Whether the reference's route to a pod CIDR is there, right or wrong.
async fn routed(desired: &RoutingDesired) -> Result<bool, NetlinkError> {
    let routes = Netlink::new()?.routes().await?;
    let cidrs: Vec<_> = desired.peers.values().flat_map(|peer| &peer.pod_cidrs).collect();
    Ok(!cidrs.is_empty() && cidrs.iter().all(|cidr| routes.iter().any(|route| route.dst == **cidr)))
}

#[async_trait]
impl Routing for Wrong {
    fn carrier(&self) -> Carrier {
        Reference.carrier()
    }

    fn overhead_bytes(&self, underlay: Family) -> u16 {
        Reference.overhead_bytes(underlay)
    }

    async fn plan(&self, desired: &RoutingDesired) -> Result<Option<Vec<Path>>, RoutingError> {
        match self.fault {
            "plans_by_doing" => Ok(Some(Reference.apply(desired).await?.paths)),
            "plans_what_it_will_not_do" => Ok(Some(Vec::new())),
            _ => Ok(None),
        }
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        let mut last = self.last.lock().await;
        let mut wanted = desired.clone();
        match (self.fault, &*last) {
            ("makes_everything_anew", _) => Reference.retire().await?,
            ("believes_its_memory", Some((known, report))) if known == desired => {
                return Ok(RoutingReport { changes: 0, ..report.clone() });
            }
            ("adds_but_never_mends", Some((known, report)))
                if known == desired && routed(desired).await.map_err(refused)? =>
            {
                return Ok(RoutingReport { changes: 0, ..report.clone() });
            }
            ("peers_never_leave", Some((known, _))) => wanted.peers.extend(known.peers.clone()),
            ("younger_takes_over", _) => {
                for peer in wanted.peers.values_mut() {
                    peer.created_unix_seconds = peer.created_unix_seconds.map(|seconds| -seconds);
                }
            }
            ("overlapping_claims_cut_off_both", _) => {
                for (name, peer) in &mut wanted.peers {
                    let others = || desired.peers.iter().filter(|(other, _)| *other != name);
                    let theirs =
                        || others().flat_map(|(_, other)| &other.pod_cidrs).filter(|cidr| cidr.prefix_len() > 0);
                    peer.pod_cidrs.retain(|cidr| cidr.prefix_len() == 0 || !theirs().any(|other| overlap(cidr, other)));
                }
            }
            ("first_heard_stays", Some((known, _))) => {
                for (_, peer) in wanted.peers.iter_mut().filter(|(name, _)| !known.peers.contains_key(*name)) {
                    peer.created_unix_seconds = None;
                }
            }
            ("clears_its_way", _) => {
                let ours = |route: &Route| desired.peers.values().any(|peer| peer.pod_cidrs.contains(&route.dst));
                sweep(ours).await.map_err(refused)?;
            }
            _ => {}
        }
        let mut report = Reference.apply(&wanted).await?;
        match self.fault {
            "silent_about_the_unreachable" => report.unreachable.clear(),
            "makes_everything_anew" => report.changes = 0,
            "counts_changes_it_did_not_make" => report.changes += 1,
            "one_bad_peer_fails_all" if !report.unreachable.is_empty() => {
                let source = format!("{:?}", report.unreachable).into();
                return Err(RoutingError::Kernel { action: "route".to_owned(), source });
            }
            _ => {}
        }
        *last = Some((wanted, report.clone()));
        Ok(report)
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        if self.fault == "retire_sweeps_all_routes" {
            // Connected routes follow their addresses; the rest was made by somebody.
            sweep(|route| route.via.is_some()).await.map_err(refused)?;
        }
        if self.fault == "retires_its_own_run_only" && self.last.lock().await.is_none() {
            return Ok(());
        }
        Reference.retire().await
    }
}
