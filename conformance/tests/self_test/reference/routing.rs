//! One route per pod CIDR over the uplink, known again by its protocol number.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use async_trait::async_trait;
use ipnet::IpNet;
use kinesin_core::{
    registry::{BuildContext, BuildError},
    routing::{LocalNode, Path, Peer, Routing, RoutingDesired, RoutingError, RoutingReport, seniority},
    values::{Carrier, Family},
};
use kinesin_netlink::{Netlink, NetlinkError, Route};

/// Number of the reference's routes, from those that are free for programs.
const PROTOCOL: u8 = 222;

#[derive(Debug)]
pub(crate) struct Reference;

#[expect(clippy::unnecessary_wraps, reason = "the shape of a registered constructor")]
pub(crate) fn build(_: &BuildContext) -> Result<Arc<dyn Routing>, BuildError> {
    Ok(Arc::new(Reference))
}

#[async_trait]
impl Routing for Reference {
    fn carrier(&self) -> Carrier {
        Carrier::Native
    }

    fn overhead_bytes(&self, _: Family) -> u16 {
        0
    }

    async fn apply(&self, desired: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        let netlink = Netlink::new().map_err(refused)?;
        let uplink = netlink.link(&desired.local.uplinks[0]).await.map_err(refused)?.index;
        let mut report = RoutingReport::default();
        let mut wanted: BTreeMap<IpNet, (String, Route)> = BTreeMap::new();
        let mut peers: Vec<(&String, &Peer)> = desired.peers.iter().collect();
        peers.sort_by_key(|(name, peer)| seniority(name, peer.created_unix_seconds));
        for (name, peer) in peers {
            if peer.pod_cidrs.is_empty() {
                report.unreachable.insert(name.clone(), "it has no pod CIDR".to_owned());
            }
            for cidr in &peer.pod_cidrs {
                let in_the_way = wanted.iter().find(|(other, (owner, _))| owner != name && overlap(cidr, other));
                let elder = in_the_way.map(|(_, (owner, _))| owner);
                match next_hop(&desired.local, peer, cidr) {
                    Ok(_) if elder.is_some() => {
                        let elder = elder.map_or("", String::as_str);
                        report.unreachable.insert(name.clone(), format!("{cidr} is that of {elder}"));
                    }
                    Ok(hop) => {
                        let metric = if hop.is_ipv6() { 1024 } else { 0 };
                        let route = Route { via: Some(hop), metric, ..Route::new(*cidr, uplink, PROTOCOL) };
                        wanted.insert(*cidr, (name.clone(), route));
                    }
                    Err(reason) => {
                        report.unreachable.insert(name.clone(), reason);
                    }
                }
            }
        }

        let there = netlink.routes().await.map_err(refused)?;
        let routes: BTreeSet<&Route> = wanted.values().map(|(_, route)| route).collect();
        for route in there.iter().filter(|route| route.protocol == PROTOCOL && !routes.contains(route)) {
            netlink.delete_route(route).await.map_err(refused)?;
            report.changes += 1;
        }
        for (cidr, (name, route)) in &wanted {
            if !there.contains(route) {
                if let Err(error) = netlink.add_route(route).await {
                    report.unreachable.insert(name.clone(), error.to_string());
                    continue;
                }
                report.changes += 1;
            }
            let node = route.via.unwrap_or(cidr.addr());
            report.paths.push(Path {
                prefix: *cidr,
                node,
                carrier: Carrier::Native,
                next_hop: Some(node),
                mtu_bytes: None,
            });
        }
        Ok(report)
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        let netlink = Netlink::new().map_err(refused)?;
        for route in netlink.routes().await.map_err(refused)?.iter().filter(|route| route.protocol == PROTOCOL) {
            netlink.delete_route(route).await.map_err(refused)?;
        }
        Ok(())
    }
}

pub(crate) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn next_hop(local: &LocalNode, peer: &Peer, cidr: &IpNet) -> Result<IpAddr, String> {
    if local.pod_cidrs.iter().any(|own| own.contains(cidr) || cidr.contains(own)) {
        return Err(format!("{cidr} overlaps this node's own pod CIDR"));
    }
    let hop = peer.addresses.iter().copied().find(|ip| Family::of(ip) == Family::of_net(cidr));
    match hop {
        None => Err(format!("it has no address for {cidr}")),
        Some(hop) if local.addresses.contains(&hop) => Err(format!("{hop} is this node's own")),
        Some(hop) => Ok(hop),
    }
}

pub(crate) fn refused(error: NetlinkError) -> RoutingError {
    RoutingError::Kernel { action: "use netlink".to_owned(), source: Box::new(error) }
}
