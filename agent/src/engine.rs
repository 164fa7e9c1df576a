//! The state of the node under one lock, and what everything works on.
//!
//! ADD, DEL and the datapath's reconciliation take turns: a reconciliation that did not know an endpoint yet would
//! detach it again. None of them waits for the network while it holds the lock, only for the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, RwLock, atomic::AtomicBool},
    time::Instant,
};

use kinesin_agent_api::types::EndpointNetworking;
use kinesin_core::{
    chassis::{ChassisError, ChassisReport, EndpointSpec, Tunnel},
    config::Config,
    ipam::{Block, IpamError, Lease, Owner},
    routing::{Path, RoutingError, RoutingReport},
    values::{Carrier, EndpointId, Families, Family},
};
use kinesin_netlink::{Mirror, NetlinkError};
use tokio::sync::{Mutex, MutexGuard, Notify, watch};

use crate::{
    carriers::Format,
    config_watch::Degradation,
    connectivity::Connectivity,
    controller::Controllers,
    endpoint::{RequestError, Running, inside::InsideError, settings::Settings},
    health::HealthEndpoint,
    ipam::{
        blocks::Said,
        exhaustion::Exhaustion,
        pool::{PodFacts, UnknownPod},
    },
    metrics::Counters,
    node::NodeLinks,
    selection::Backends,
    store::{NodeRecord, Store, StoreError},
};

/// Key of the router's lease.
pub(crate) const ROUTER: &str = "router";
/// Key of the health endpoint's lease.
pub(crate) const HEALTH: &str = "health";

/// Everything that a part of the agent may need.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) node_name: String,
    pub(crate) backends: Backends,
    pub(crate) store: Store,
    pub(crate) controllers: Arc<Controllers>,
    pub(crate) wakes: Wakes,
    /// What is wrong with the configuration that lies there now, while the accepted one runs.
    pub(crate) degradation: RwLock<Degradation>,
    /// Where the annotations of Pods are looked up.
    pub(crate) pods: Arc<dyn PodFacts>,
    /// Pools without a free address.
    pub(crate) exhaustion: Exhaustion,
    /// Counted since the start.
    pub(crate) counters: Counters,
    /// What is known of the paths to all nodes.
    pub(crate) connectivity: Connectivity,
    /// Whether the node's CiliumNode was found missing since it was published last.
    pub(crate) node_missing: AtomicBool,
    /// Whether somebody looks for sockets that use a router address that was replaced.
    pub(crate) is_waiting_for_sockets: AtomicBool,
    /// Whether somebody waits until a carrier that nobody wants any more can go.
    pub(crate) is_waiting_for_hold: AtomicBool,
    /// Whether another pass is to follow soon.
    pub(crate) is_looking_again: AtomicBool,
    /// Changes whenever an address may have become free.
    pub(crate) space: watch::Sender<u64>,
    state: Mutex<State>,
}

/// What to wake when something has changed.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    /// Nodes, devices or endpoints changed: the datapath may have to follow.
    pub(crate) datapath: Arc<Notify>,
    /// What the node publishes of itself changed.
    pub(crate) node: Arc<Notify>,
    /// The datapath became ready: the runtime may be told.
    pub(crate) cni: Arc<Notify>,
    /// Endpoints came or went.
    pub(crate) endpoints: Arc<Notify>,
    /// Queued deletions may succeed now.
    pub(crate) deletes: Arc<Notify>,
    /// What the node needs of the operator may have changed.
    pub(crate) ipam: Arc<Notify>,
}

/// What may only change in turn.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// What the node was given; saved.
    pub(crate) node: NodeRecord,
    /// Blocks that the node's objects name, which IPAM may still refuse; absent before they were seen.
    pub(crate) given_blocks: Option<Vec<Block>>,
    /// Whether it comes from an earlier run, whose datapath may still forward.
    pub(crate) resumed: bool,
    /// Endpoints by number.
    pub(crate) endpoints: BTreeMap<EndpointId, Running>,
    /// The health endpoint, once it is made.
    pub(crate) health: Option<HealthEndpoint>,
    /// What the last successful reconciliation achieved; absent before the first one.
    pub(crate) datapath: Option<Datapath>,
    /// Devices, addresses and default routes, as the kernel announced them.
    pub(crate) followed: Option<Mirror>,
    /// When each carrier was last wanted by a node.
    pub(crate) wanted: BTreeMap<Format, Instant>,
    /// What nodes announce of their MTU and cannot be right, each with the reason.
    pub(crate) refused_mtus: BTreeMap<String, String>,
    /// Running pods that keep an earlier MTU, each with the reason.
    pub(crate) lagging: BTreeMap<EndpointId, String>,
    /// Running pods that did not answer in time, with a number that is larger the later that was.
    pub(crate) slow_pods: BTreeMap<EndpointId, u64>,
    /// Passes in a row after which another was to follow soon.
    pub(crate) unsettled_passes: u32,
    /// What the API objects of the node say of its blocks.
    pub(crate) said: Said,
    /// Blocks that the preferred mode has given up and the CiliumNode lists still: nothing is leased from them.
    pub(crate) given_back: BTreeSet<Block>,
}

/// What the last successful reconciliation achieved.
#[derive(Debug, Clone, Default)]
pub(crate) struct Datapath {
    pub(crate) links: NodeLinks,
    pub(crate) router: Vec<IpAddr>,
    pub(crate) device_mtu_bytes: u32,
    pub(crate) route_mtu_bytes: u32,
    /// What pods get that start now: the above, or less while the node is on its way to another state.
    pub(crate) settings: Settings,
    pub(crate) paths: Vec<Path>,
    pub(crate) chassis: ChassisReport,
    pub(crate) routing: RoutingReport,
    /// What carries packets to each node.
    pub(crate) carriers: BTreeMap<String, Carrier>,
    /// What carriers that are not used any more have left on this node, with the reason.
    pub(crate) left: BTreeMap<Carrier, String>,
    /// The tunnels that are open.
    pub(crate) tunnels: Vec<Tunnel>,
}

/// Why something could not be done on this node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EngineError {
    /// The first reconciliation has not succeeded yet.
    #[error("the agent is still starting: {0}")]
    Starting(String),
    /// The request is wrong.
    #[error("the request is refused: {0}")]
    Request(#[from] RequestError),
    /// An endpoint of another container has the device.
    #[error("device {device:?} belongs to endpoint {id} of {owner}")]
    DeviceTaken {
        /// The device.
        device: String,
        /// The endpoint.
        id: EndpointId,
        /// Its owner.
        owner: Owner,
    },
    /// There is no such endpoint.
    #[error("there is no endpoint {0}")]
    NoEndpoint(String),
    /// There is no address; the message tells pool, node, counts and the way out.
    #[error("{message}")]
    NoAddress {
        /// Everything that is known of it.
        message: String,
        /// What IPAM said; no cause to print, because the message contains it.
        refusal: IpamError,
    },
    /// The Pod's annotations are not known yet.
    #[error(transparent)]
    UnknownPod(#[from] UnknownPod),
    /// Every endpoint number is taken.
    #[error("all 65535 endpoint numbers of this node are taken; delete pods on it")]
    NoNumber,
    /// IPAM refused.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The chassis refused.
    #[error(transparent)]
    Chassis(#[from] ChassisError),
    /// No device leads to other nodes.
    #[error("this node has no uplink, and reaches no pods of other nodes: {0}")]
    NoUplink(String),
    /// Routing failed as a whole.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The state directory refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel's devices could not be read or changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A running pod could not be changed.
    #[error(transparent)]
    Inside(#[from] InsideError),
    /// Some parts of an endpoint are left.
    #[error("endpoint {id} is not wholly removed: {}", .left.join("; "))]
    Left {
        /// The endpoint.
        id: EndpointId,
        /// Each with its reason.
        left: Vec<String>,
    },
}

impl Engine {
    pub(crate) fn new(
        config: Config,
        node_name: String,
        backends: Backends,
        store: Store,
        pods: Arc<dyn PodFacts>,
    ) -> Self {
        Self {
            config,
            node_name,
            backends,
            store,
            controllers: Arc::default(),
            wakes: Wakes::default(),
            degradation: RwLock::default(),
            pods,
            exhaustion: Exhaustion::default(),
            counters: Counters::default(),
            connectivity: Connectivity::default(),
            node_missing: AtomicBool::new(false),
            is_waiting_for_sockets: AtomicBool::new(false),
            is_waiting_for_hold: AtomicBool::new(false),
            is_looking_again: AtomicBool::new(false),
            space: watch::Sender::new(0),
            state: Mutex::default(),
        }
    }

    /// Waits for its turn.
    pub(crate) async fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().await
    }

    /// Tells whoever waits for an address that one may be free.
    pub(crate) fn space_changed(&self) {
        self.space.send_modify(|version| *version = version.wrapping_add(1));
        self.wakes.ipam.notify_one();
    }
}

impl State {
    /// The datapath, or why there is none yet.
    pub(crate) fn datapath(&self, controllers: &Controllers) -> Result<&Datapath, EngineError> {
        self.datapath.as_ref().ok_or_else(|| {
            let report = controllers.report();
            let failing =
                report.iter().find(|found| found.consecutive_errors > 0 && found.name == crate::reconcile::NAME);
            EngineError::Starting(
                failing.map_or_else(|| "the datapath is being set up".to_owned(), |found| found.message.clone()),
            )
        })
    }

    /// The chassis' view of every endpoint, the health endpoint included.
    pub(crate) fn specs(&self) -> BTreeMap<EndpointId, EndpointSpec> {
        let leased = self.endpoints.values().filter(|running| running.leased);
        let pods = leased.filter_map(|running| running.record.spec().ok());
        pods.chain(self.health.iter().map(|health| health.spec.clone())).map(|spec| (spec.id, spec)).collect()
    }

    /// A number that no endpoint has, starting at a random one so that numbers are not reused at once.
    pub(crate) fn free_number(&self) -> Result<EndpointId, EngineError> {
        let taken = |id: u16| {
            self.endpoints.contains_key(&EndpointId(id))
                || self.health.as_ref().is_some_and(|found| found.spec.id.0 == id)
        };
        let start = rand::random_range(1..=u16::MAX);
        (start..=u16::MAX).chain(1..start).find(|id| !taken(*id)).map(EndpointId).ok_or(EngineError::NoNumber)
    }
}

impl Datapath {
    /// The router address of each family that is in use: the first one. Another may only wait for its last socket.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        let first = |family| self.router.iter().find(|ip| Family::of(ip) == family).copied();
        Family::ALL.into_iter().filter_map(first).collect()
    }

    /// What the plugin must set up in a pod with this lease.
    pub(crate) fn networking(&self, lease: &Lease, host_mac: String) -> EndpointNetworking {
        let has = |family: Family| lease.address(family).is_some();
        let families = Families { v4: has(Family::V4), v6: has(Family::V6) };
        EndpointNetworking {
            addressing: crate::endpoint::addressing(lease),
            gateways: self.gateways().into_iter().filter(|ip| families.contains(Family::of(ip))).collect(),
            gateway_mac: host_mac,
            device_mtu: self.settings.device_mtu,
            route_mtu: self.settings.route_mtu,
            no_udp_segmentation: self.settings.no_udp_segmentation,
        }
    }
}
