//! Brings the backends to what the tables say: blocks to IPAM, the node and its endpoints to the chassis, the other nodes
//! to routing.
//!
//! One pass does all of it from the beginning, at start, after every change and once a minute, so that starting,
//! reconfiguring and repairing are the same code.

mod again;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use kinesin_agent_api::types::EndpointState;
use kinesin_core::{
    chassis::{ChassisDesired, NodeSpec},
    ipam::IpamSnapshot,
    routing::{LocalNode, RoutingDesired, RoutingError},
    values::Carrier,
};
use kinesin_netlink::{Link, Netlink};

use crate::{
    carriers::Carriers,
    endpoint::{
        Record,
        follow::{Following, InKernel},
        settings::{Settings, Step},
    },
    engine::{Datapath, Engine, EngineError, State},
    health,
    ipam::own::OwnLeases,
    node::{self, NodeLinks},
    path_mtu,
    routing::{self, Former, Routed},
    store::PeerRecord,
};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "sync-datapath";
/// How often the kernel is compared with the desired state although nothing is known to have changed.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// The device by which the node's own stack reaches pods, as Cilium names it.
const HOST_DEVICE: &str = "cilium_host";
/// MTU where no device says one: Ethernet's.
const DEFAULT_MTU: u32 = 1500;

impl Engine {
    /// One pass over everything.
    pub(crate) async fn reconcile(self: &Arc<Self>) -> Result<(), EngineError> {
        let mut state = self.state().await;
        let netlink = Netlink::new()?;
        let State { followed, node: known, .. } = &mut *state;
        let links = node::links(followed, &self.config, &known.internal_ips).await?;
        let present = self.remove_vanished(&mut state, &netlink).await?;

        let (own, refused) = self.settle_ipam(&mut state, &links).await?;
        let carriers = self.carriers(&mut state);
        let mut next = self.plan(&state, links, &own, &carriers);

        // What pods send must fit by whatever carries it from here on.
        let (want, mut following) = (next.settings, Following::default());
        if let Some(last) = &mut state.datapath {
            last.settings = last.settings.narrowed(want);
        }
        let changer = InKernel { store: &self.store, node: &netlink, links: &present };
        self.step_pods(&mut state, &changer, want, Step::NARROWER, &mut following).await;
        self.prepare_move(&mut state, &mut next, &carriers).await?;
        // A node that ran before has its devices, and its peers must not vanish from the tables even for a moment.
        let routed = if state.resumed || state.datapath.is_some() {
            let routed = self.route(&state, &next, &carriers).await?;
            next.paths.clone_from(&routed.report.paths);
            Some(routed)
        } else {
            None
        };
        self.apply_chassis(&mut state, &mut next).await?;
        let routed = match routed {
            // Routes by the host device need it, and its addresses, to be there.
            Some(routed) if next.chassis.changes == 0 || next.tunnels.is_empty() => routed,
            _ => {
                let routed = self.route(&state, &next, &carriers).await?;
                self.backends.chassis.set_paths(&routed.report.paths).await?;
                next.paths.clone_from(&routed.report.paths);
                routed
            }
        };
        note_left(state.datapath.as_ref(), &routed.left);
        (next.routing, next.left) = (routed.report, routed.left);
        next.carriers.clone_from(&carriers.by_peer);
        state.node.announced = carriers.said();
        state.node.mtu_bytes = path_mtu::own(&next.links, next.device_mtu_bytes);
        state.node.carried.clone_from(&carriers.by_peer);
        let first = state.datapath.is_none();
        state.datapath = Some(next);
        self.step_pods(&mut state, &changer, want, Step::WIDER, &mut following).await;
        let is_early = self.note_following(&mut state, following);
        self.look_again_soon(&mut state, is_early);
        let made = self.apply_health(&mut state, &own.health).await;
        self.look_again_when_unused(own.waiting.clone());
        self.look_again_when_held_is_over(&state);
        // Neither the host device nor, if it was made, the health endpoint has the addresses of these leases any more.
        self.finish_ipam(&mut state, own, made.is_ok()).await?;
        drop(state);
        self.space_changed();
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

    /// Removes endpoints whose device is gone: their pods are gone, and nobody will ask for their removal. The answer is
    /// which devices there are, by index.
    async fn remove_vanished(&self, state: &mut State, netlink: &Netlink) -> Result<BTreeMap<u32, Link>, EngineError> {
        let present: BTreeMap<u32, Link> = netlink.links().await?.into_iter().map(|link| (link.index, link)).collect();
        let is_there = |record: &Record| {
            let device = present.get(&record.request.interface_index);
            device.is_some_and(|link| link.name == record.request.interface_name)
        };
        let vanished: Vec<_> = state
            .endpoints
            .values()
            .map(|running| &running.record)
            .filter(|record| !is_there(record))
            .map(|record| record.id)
            .collect();
        for id in vanished {
            tracing::info!(endpoint = %id, "its device is gone");
            self.remove(state, id).await?;
        }
        Ok(present)
    }

    fn plan(&self, state: &State, links: NodeLinks, own: &OwnLeases, carriers: &Carriers) -> Datapath {
        let detected = links.uplinks.first().map_or(DEFAULT_MTU, |link| link.mtu);
        let device_mtu_bytes = self.config.mtu_bytes.map_or(detected, u32::from);
        let overhead = u32::from(self.overhead_bytes(state, carriers));
        let route_mtu_bytes = device_mtu_bytes.saturating_sub(overhead);
        let tunnels = routing::tunnels(carriers);
        let settings = Settings {
            device_mtu: device_mtu_bytes,
            route_mtu: route_mtu_bytes,
            // Across a virtual underlay, a tunnel's UDP superpackets would arrive with a state that no socket can split.
            no_udp_segmentation: !tunnels.is_empty(),
        };
        Datapath {
            links,
            router: own.router.clone(),
            device_mtu_bytes,
            route_mtu_bytes,
            settings,
            tunnels,
            paths: state.datapath.as_ref().map(|last| last.paths.clone()).unwrap_or_default(),
            ..Datapath::default()
        }
    }

    async fn apply_chassis(&self, state: &mut State, next: &mut Datapath) -> Result<(), EngineError> {
        let tunnels = next.tunnels.clone();
        let snapshot = self.backends.ipam.snapshot();
        let peers = state.node.peers.values();
        let desired = ChassisDesired {
            node: NodeSpec {
                name: self.node_name.clone(),
                families: self.config.families,
                addresses: next.links.addresses.clone(),
                peer_addresses: peers.flat_map(|peer| peer.addresses.iter().copied()).collect(),
                narrow_peers: narrow_peers(state, next),
                router: next.router.clone(),
                pod_cidrs: pod_cidrs(&snapshot),
                uplinks: next.links.uplinks.iter().map(|link| link.name.clone()).collect(),
                device_mtu_bytes: next.device_mtu_bytes,
                route_mtu_bytes: next.route_mtu_bytes,
                // Those of every carrier at its own port as well, in every mode: other nodes may be in another.
                tunnel_ports: closed_ports(tunnels.iter().map(|tunnel| tunnel.port).chain(self.config.tunnel_port)),
                underlay: routing::first_of_each_family(&underlay_addresses(state, next)),
                tunnels,
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

    /// Makes the chassis ready for nodes that change their carrier, before any route follows: a tunnel is open before
    /// anything enters it, and known as the way to a node before the node's own stack sends that way.
    async fn prepare_move(
        &self,
        state: &mut State,
        next: &mut Datapath,
        carriers: &Carriers,
    ) -> Result<(), EngineError> {
        let Some(last) = &state.datapath else { return self.prepare_move_after_start(state, next, carriers).await };
        let last = last.clone();
        if next.tunnels.iter().any(|tunnel| !last.tunnels.contains(tunnel)) {
            next.paths.clone_from(&last.paths);
            self.apply_chassis(state, next).await?;
        }
        if routing::moves(&last.carriers, &carriers.by_peer) {
            let desired = self.routing_desired(state, next);
            let planned = self.backends.routing.plan(desired, &carriers.by_peer).await?.paths;
            self.backends.chassis.set_paths(&routing::while_moving(planned, &last.paths)).await?;
        }
        Ok(())
    }

    /// The same for nodes that changed their carrier while no agent ran here. What the kernel has then is told by what
    /// carried packets to them last.
    async fn prepare_move_after_start(
        &self,
        state: &mut State,
        next: &mut Datapath,
        carriers: &Carriers,
    ) -> Result<(), EngineError> {
        if !state.resumed || !routing::moves(&state.node.carried, &carriers.by_peer) {
            return Ok(());
        }
        let desired = self.routing_desired(state, next);
        let last = self.backends.routing.plan(desired.clone(), &state.node.carried).await?;
        let planned = self.backends.routing.plan(desired, &carriers.by_peer).await?;
        // The chassis takes the paths that it is given for all there are.
        if planned.is_whole && last.is_whole {
            next.paths = routing::while_moving(planned.paths, &last.paths);
            self.apply_chassis(state, next).await?;
        }
        Ok(())
    }

    async fn route(&self, state: &State, next: &Datapath, carriers: &Carriers) -> Result<Routed, EngineError> {
        let desired = self.routing_desired(state, next);
        let former = match &state.datapath {
            Some(last) => Former {
                carriers: last.carriers.clone(),
                unclean: last.carriers.values().chain(last.left.keys()).copied().collect(),
            },
            // An earlier run may have used any.
            None => Former { carriers: state.node.carried.clone(), unclean: Carrier::ALL.into() },
        };
        match (self.backends.routing.apply(desired, carriers, &former).await, &next.links.no_uplink) {
            // The backend was given none, and does not know what was looked for.
            (Err(RoutingError::Uplink { .. }), Some(reason)) => Err(EngineError::NoUplink(reason.clone())),
            (routed, _) => Ok(routed?),
        }
    }

    /// The cluster as routing sees it.
    fn routing_desired(&self, state: &State, next: &Datapath) -> RoutingDesired {
        let snapshot = self.backends.ipam.snapshot();
        let peers =
            state.node.peers.iter().map(|(name, record)| (name.clone(), routing::peer(record, &state.node.told_mtus)));
        RoutingDesired {
            local: LocalNode {
                name: self.node_name.clone(),
                created_unix_seconds: state.node.created_unix_seconds,
                families: self.config.families,
                addresses: underlay_addresses(state, next),
                pod_cidrs: pod_cidrs(&snapshot),
                uplinks: next.links.uplinks.iter().map(|link| link.name.clone()).collect(),
                host_device: HOST_DEVICE.to_owned(),
                router: next.router.clone(),
                mtu_bytes: next.device_mtu_bytes,
            },
            peers: peers.collect(),
        }
    }

    async fn apply_health(&self, state: &mut State, addresses: &[IpAddr]) -> Result<(), EngineError> {
        if addresses.is_empty() {
            health::remove(self, state).await
        } else {
            health::apply(self, state, addresses).await
        }
    }

    pub(crate) fn save_node(&self, state: &State) -> Result<(), EngineError> {
        Ok(self.store.save_node(&state.node)?)
    }
}

/// The node's addresses in Kubernetes; before they are known, all of its own.
fn underlay_addresses(state: &State, next: &Datapath) -> Vec<IpAddr> {
    if state.node.internal_ips.is_empty() { next.links.addresses.clone() } else { state.node.internal_ips.clone() }
}

/// MTU of the way to nodes themselves, where it is narrower than this node's.
fn narrow_peers(state: &State, next: &Datapath) -> BTreeMap<IpAddr, u32> {
    let narrow = |peer: &PeerRecord| peer.mtu_bytes.filter(|mtu| *mtu < next.device_mtu_bytes);
    let peers = state.node.peers.values().filter_map(|peer| Some((peer, narrow(peer)?)));
    peers.flat_map(|(peer, mtu)| peer.addresses.iter().map(move |ip| (*ip, mtu))).collect()
}

/// Tells once of each carrier that could not clean up.
fn note_left(last: Option<&Datapath>, left: &BTreeMap<Carrier, String>) {
    let known = |carrier| last.and_then(|last| last.left.get(carrier));
    for (carrier, reason) in left.iter().filter(|(carrier, reason)| known(carrier) != Some(reason)) {
        tracing::warn!(%carrier, reason, "a carrier that is not used any more is not wholly removed; it is tried again");
    }
}

/// The ports of every carrier, and others, each once.
fn closed_ports(others: impl Iterator<Item = u16>) -> Vec<u16> {
    let ports: BTreeSet<u16> = Carrier::ALL.into_iter().filter_map(Carrier::default_port).chain(others).collect();
    ports.into_iter().collect()
}

/// The node's blocks of all modes, each range once: two modes may know the same one while a cluster changes its mode.
fn pod_cidrs(snapshot: &IpamSnapshot) -> Vec<IpNet> {
    let mut seen = BTreeSet::new();
    snapshot.blocks.iter().map(|used| used.block.cidr).filter(|cidr| seen.insert(*cidr)).collect()
}
