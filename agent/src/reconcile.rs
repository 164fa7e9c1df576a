//! Brings the backends to what the tables say: blocks to IPAM, the node and its endpoints to the chassis, the other nodes
//! to routing.
//!
//! One pass does all of it from the beginning, at start, after every change and once a minute, so that starting,
//! reconfiguring and repairing are the same code.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use kinesin_agent_api::types::EndpointState;
use kinesin_core::{
    chassis::{ChassisDesired, NodeSpec},
    ipam::{IpamDesired, IpamError, Lease, Owner},
    routing::{LocalNode, Peer, RoutingDesired, RoutingReport},
    values::Family,
};
use kinesin_netlink::{Link, Netlink};

use crate::{
    engine::{Datapath, Engine, EngineError, HEALTH, ROUTER, State},
    health,
    node::{self, NodeLinks},
};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "sync-datapath";
/// How often the kernel is compared with the desired state although nothing is known to have changed.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// IANA's ports of VXLAN as Linux and Cilium use it, and of Geneve: closed to pods in every mode.
const TUNNEL_PORTS: [u16; 2] = [8472, 6081];
/// MTU where no device says one: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

impl Engine {
    /// One pass over everything.
    pub(crate) async fn reconcile(&self) -> Result<(), EngineError> {
        let mut state = self.state().await;
        let netlink = Netlink::new()?;
        let links = node::links(&netlink, &self.config, &state.node.internal_ips).await?;
        self.remove_vanished(&mut state, &netlink).await?;

        // Blocks that are refused leave IPAM as it was; a node that has some goes on with those, and says so.
        let refused = self.apply_blocks(&mut state, &links).await.err();
        let own = match (self.own_leases(&mut state).await, refused) {
            (Err(error), refused) => return Err(refused.unwrap_or(error).into()),
            (Ok(_), Some(error)) if state.datapath.is_none() && !state.resumed => return Err(error.into()),
            (Ok(own), refused) => OwnLeases { refused, ..own },
        };
        let OwnLeases { router, health: health_lease, refused } = own;
        let mut next = self.plan(&state, links, &router);

        // A node that ran before has its devices, and its peers must not vanish from the tables even for a moment.
        let routed = if state.resumed || state.datapath.is_some() {
            let report = self.route(&state, &next).await?;
            next.paths.clone_from(&report.paths);
            Some(report)
        } else {
            None
        };
        self.apply_chassis(&mut state, &mut next).await?;
        next.routing = match routed {
            Some(report) => report,
            None => {
                let report = self.route(&state, &next).await?;
                self.backends.chassis.set_paths(&report.paths).await?;
                next.paths.clone_from(&report.paths);
                report
            }
        };
        let first = state.datapath.is_none();
        state.datapath = Some(next);
        let made = self.apply_health(&mut state, health_lease).await;
        self.save_node(&state)?;
        drop(state);
        if first {
            tracing::info!("the datapath is ready");
            self.wakes.deletes.notify_one();
        }
        self.wakes.cni.notify_one();
        self.wakes.node.notify_one();
        self.wakes.endpoints.notify_one();
        made?;
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Removes endpoints whose device is gone: their pods are gone, and nobody will ask for their removal.
    async fn remove_vanished(&self, state: &mut State, netlink: &Netlink) -> Result<(), EngineError> {
        let present: BTreeMap<u32, String> =
            netlink.links().await?.into_iter().map(|link: Link| (link.index, link.name)).collect();
        let vanished: Vec<_> = state
            .endpoints
            .values()
            .map(|running| &running.record)
            .filter(|record| present.get(&record.request.interface_index) != Some(&record.request.interface_name))
            .map(|record| record.id)
            .collect();
        for id in vanished {
            tracing::info!(endpoint = %id, "its device is gone");
            self.remove(state, id).await?;
        }
        Ok(())
    }

    async fn apply_blocks(&self, state: &mut State, links: &NodeLinks) -> Result<(), IpamError> {
        // Before the Node object was seen, an earlier run's blocks are what there is.
        let given = if state.given_blocks.is_empty() { &state.node.blocks } else { &state.given_blocks };
        if given.is_empty() {
            // Told apart from an empty list that was given: nothing has been given yet.
            return match self.config.families.iter().next() {
                Some(family) => Err(IpamError::NotReady {
                    family,
                    expected_from: format!("spec.podCIDRs of the Node object {:?}", self.node_name),
                }),
                None => Ok(()),
            };
        }
        let desired = IpamDesired {
            blocks: given.clone(),
            reserved: links.addresses.clone(),
            node_networks: links.networks.clone(),
        };
        self.backends.ipam.apply(&desired).await?;
        // Only what was accepted is saved: the next start takes it over before it can look at the node's networks.
        state.node.blocks = desired.blocks;
        Ok(())
    }

    /// The node's own leases, taken anew where they are missing.
    async fn own_leases(&self, state: &mut State) -> Result<OwnLeases, IpamError> {
        let router = self.lease(ROUTER, Owner::Router).await?;
        let health = if self.config.health.endpoint { Some(self.lease(HEALTH, Owner::Health).await?) } else { None };
        state.node.leases = [Some(router.clone()), health.clone()].into_iter().flatten().collect();
        Ok(OwnLeases { router, health, refused: None })
    }

    fn plan(&self, state: &State, links: NodeLinks, router: &Lease) -> Datapath {
        let underlay = state.node.internal_ips.first().map_or(Family::V4, Family::of);
        let detected = links.uplinks.first().map_or(DEFAULT_MTU, |link| link.mtu);
        let device_mtu_bytes = self.config.mtu_bytes.map_or(detected, u32::from);
        let overhead = u32::from(self.backends.routing.overhead_bytes(underlay));
        Datapath {
            links,
            router: router.addresses.iter().map(|leased| leased.ip).collect(),
            device_mtu_bytes,
            route_mtu_bytes: device_mtu_bytes.saturating_sub(overhead),
            paths: state.datapath.as_ref().map(|last| last.paths.clone()).unwrap_or_default(),
            ..Datapath::default()
        }
    }

    async fn apply_chassis(&self, state: &mut State, next: &mut Datapath) -> Result<(), EngineError> {
        let snapshot = self.backends.ipam.snapshot();
        let peers = state.node.peers.values();
        let desired = ChassisDesired {
            node: NodeSpec {
                name: self.node_name.clone(),
                families: self.config.families,
                addresses: next.links.addresses.clone(),
                peer_addresses: peers.flat_map(|peer| peer.addresses.iter().copied()).collect(),
                router: next.router.clone(),
                pod_cidrs: snapshot.blocks.iter().map(|found| found.block.cidr).collect(),
                uplinks: next.links.uplinks.iter().map(|link| link.name.clone()).collect(),
                device_mtu_bytes: next.device_mtu_bytes,
                route_mtu_bytes: next.route_mtu_bytes,
                tunnel_ports: TUNNEL_PORTS.into_iter().chain(self.config.tunnel_port).collect(),
            },
            endpoints: state.specs(),
            paths: next.paths.clone(),
        };
        next.chassis = self.backends.chassis.apply(&desired).await?;
        for running in state.endpoints.values_mut().filter(|running| running.leased) {
            if running.state == EndpointState::Disconnecting {
                continue;
            }
            match next.chassis.failed.get(&running.record.id) {
                None => {
                    running.state = EndpointState::Ready;
                    running.message.clear();
                }
                Some(reason) => {
                    running.state = EndpointState::NotReady;
                    running.message.clone_from(reason);
                }
            }
        }
        Ok(())
    }

    async fn route(&self, state: &State, next: &Datapath) -> Result<RoutingReport, EngineError> {
        let snapshot = self.backends.ipam.snapshot();
        let peers = state.node.peers.iter().map(|(name, peer)| {
            let peer = Peer { addresses: peer.addresses.clone(), pod_cidrs: peer.pod_cidrs.clone() };
            (name.clone(), peer)
        });
        let desired = RoutingDesired {
            local: LocalNode {
                name: self.node_name.clone(),
                families: self.config.families,
                addresses: underlay_addresses(state, next),
                pod_cidrs: snapshot.blocks.iter().map(|found| found.block.cidr).collect(),
                uplinks: next.links.uplinks.iter().map(|link| link.name.clone()).collect(),
                router: next.router.clone(),
                mtu_bytes: next.device_mtu_bytes,
            },
            peers: peers.collect(),
        };
        Ok(self.backends.routing.apply(&desired).await?)
    }

    async fn apply_health(&self, state: &mut State, lease: Option<Lease>) -> Result<(), EngineError> {
        match lease {
            Some(lease) => health::apply(self, state, &lease).await,
            None => health::remove(self, state).await,
        }
    }

    fn save_node(&self, state: &State) -> Result<(), EngineError> {
        if self.store.load_node()?.as_ref() != Some(&state.node) {
            self.store.save_node(&state.node)?;
        }
        Ok(())
    }
}

/// The node's own leases, and what was wrong with the blocks that it was given.
#[derive(Debug)]
struct OwnLeases {
    router: Lease,
    health: Option<Lease>,
    refused: Option<IpamError>,
}

/// The node's addresses in Kubernetes; before they are known, all of its own.
fn underlay_addresses(state: &State, next: &Datapath) -> Vec<IpAddr> {
    if state.node.internal_ips.is_empty() { next.links.addresses.clone() } else { state.node.internal_ips.clone() }
}
