use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use kinesin_agent_api::{
    delete_queue::DeleteQueue,
    types::{Attachment, EndpointBatchDeleteRequest, EndpointGcRequest, EndpointState},
};
use kinesin_core::{
    chassis::{AddressRow, Chassis, ChassisDesired, ChassisError, ChassisReport, Counter, EndpointSpec},
    config::{Config, Section, Sources},
    ipam::{Block, BlockSource, IpamDesired, IpamError, Owner},
    registry::{BuildContext, Registry},
    routing::{Path, Routing, RoutingDesired, RoutingError, RoutingReport},
    values::{Carrier, Family},
};
use kinesin_host_scope as _;

use super::*;
use crate::{
    endpoint::{settings::Settings, tests::record},
    engine::Datapath,
    ipam::{
        Mode, Modes,
        pool::{Known, KnownPod, PodFacts},
    },
    routing::Routings,
    selection::Backends,
    store::{NodeRecord, Store},
};

/// A chassis that notes who is attached, and refuses when it is told to.
#[derive(Debug, Default)]
pub(crate) struct NotingChassis {
    attached: Mutex<BTreeMap<EndpointId, EndpointSpec>>,
    refuses: AtomicBool,
}

impl NotingChassis {
    fn check(&self) -> Result<(), ChassisError> {
        if self.refuses.load(Ordering::SeqCst) { Err(ChassisError::NotReady) } else { Ok(()) }
    }

    fn ids(&self) -> Vec<u16> {
        self.attached.lock().expect("lock").keys().map(|id| id.0).collect()
    }
}

#[async_trait]
impl Chassis for NotingChassis {
    async fn apply(&self, desired: &ChassisDesired) -> Result<ChassisReport, ChassisError> {
        self.check()?;
        self.attached.lock().expect("lock").clone_from(&desired.endpoints);
        Ok(ChassisReport::default())
    }

    async fn attach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        self.check()?;
        self.attached.lock().expect("lock").insert(endpoint.id, endpoint.clone());
        Ok(())
    }

    async fn detach(&self, endpoint: &EndpointSpec) -> Result<(), ChassisError> {
        self.check()?;
        self.attached.lock().expect("lock").remove(&endpoint.id);
        Ok(())
    }

    async fn set_paths(&self, _: &[Path]) -> Result<(), ChassisError> {
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<AddressRow>, ChassisError> {
        Ok(Vec::new())
    }

    async fn counters(&self) -> Result<Vec<Counter>, ChassisError> {
        Ok(Vec::new())
    }

    async fn retire(&self) -> Result<(), ChassisError> {
        Ok(())
    }
}

/// Pods and their annotations, as a test writes them.
#[derive(Debug, Default)]
pub(crate) struct Pods(pub(crate) Mutex<BTreeMap<String, BTreeMap<String, String>>>);

impl PodFacts for Pods {
    fn look_up(&self, namespace: &str, name: &str) -> Known {
        let pods = self.0.lock().expect("lock");
        let annotations = pods.get(&format!("{namespace}/{name}")).cloned().unwrap_or_default();
        Known { pod: Some(KnownPod { uid: String::new(), annotations }), namespace: Some(BTreeMap::new()) }
    }

    fn is_wanted(&self, namespace: &str, name: &str) -> Option<bool> {
        Some(self.0.lock().expect("lock").contains_key(&format!("{namespace}/{name}")))
    }
}

/// A cluster of one node.
#[derive(Debug)]
pub(crate) struct NoPeers;

#[async_trait]
impl Routing for NoPeers {
    fn carrier(&self) -> Carrier {
        Carrier::Native
    }

    fn overhead_bytes(&self, _: Family) -> u16 {
        0
    }

    async fn apply(&self, _: &RoutingDesired) -> Result<RoutingReport, RoutingError> {
        Ok(RoutingReport::default())
    }

    async fn retire(&self) -> Result<(), RoutingError> {
        Ok(())
    }
}

/// An agent's run over a directory that outlives it.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    chassis: Arc<NotingChassis>,
}

pub(crate) async fn start(directory: &std::path::Path) -> Node {
    let flags = vec![
        ("state-dir".to_owned(), directory.display().to_string()),
        ("socket-path".to_owned(), directory.join("cilium.sock").display().to_string()),
    ];
    let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
    let context = BuildContext {
        node_name: "n1".to_owned(),
        families: config.families,
        state_dir: directory.to_owned(),
        bpffs: directory.to_owned(),
        enable_tcx: true,
        auto_direct_node_routes: true,
        direct_routing_skip_unreachable: false,
        underlay: kinesin_core::values::Underlay::Auto,
        section: Section::new("host_scope", serde_json::Map::new()),
    };
    let registry = Registry::collect().expect("host_scope is linked");
    let ipam = (registry.ipam("host_scope").expect("there").build)(&context).expect("built");
    let mode = Mode { name: "host_scope".to_owned(), source: BlockSource::NodePodCidrs, ipam };
    let ipam = Modes::new(mode, Vec::new());
    let chassis = Arc::new(NotingChassis::default());
    let backends = Backends { ipam, routing: Routings::new(Arc::new(NoPeers), Vec::new()), chassis: chassis.clone() };
    let store = Store::new(directory.join("state"));
    store.prepare().expect("directories");
    let engine = Engine::new(config, "n1".to_owned(), backends, store, Arc::new(Pods::default()));
    engine.restore().await.expect("restored");
    let block = Block { pool: "default".to_owned(), cidr: "10.9.0.0/29".parse().expect("a network") };
    let desired = IpamDesired { blocks: vec![block.clone()], ..IpamDesired::default() };
    engine.backends.ipam.preferred().ipam.apply(&desired).await.expect("blocks");
    let mut state = engine.state().await;
    state.datapath = Some(Datapath {
        router: vec!["10.9.0.1".parse().expect("an address")],
        device_mtu_bytes: 1500,
        route_mtu_bytes: 1450,
        settings: Settings { device_mtu: 1500, route_mtu: 1450, no_udp_segmentation: false },
        ..Datapath::default()
    });
    state.node.blocks = vec![block];
    state.node.mode = "host_scope".to_owned();
    engine.store.save_node(&state.node).expect("saved");
    drop(state);
    Node { engine, chassis }
}

pub(crate) fn request(id: u16) -> EndpointChangeRequest {
    record(id, "10.9.0.2").request
}

fn leases(node: &Node) -> usize {
    node.engine.backends.ipam.snapshot().leases.len()
}

#[tokio::test]
async fn repeated_add_gets_the_same_answer() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    let (first, how) = node.engine.create(request(1)).await.expect("added");
    assert_eq!(how, Created::New);
    assert_eq!(first.record.networking.route_mtu, 1450);
    let (again, how) = node.engine.create(request(1)).await.expect("added");
    assert_eq!((how, &again), (Created::Again, &first));
    assert_eq!((leases(&node), node.chassis.ids()), (1, vec![first.record.id.0]));

    // The plugin was killed and made its devices anew: same addresses, new device.
    let anew = EndpointChangeRequest { interface_index: 99, ..request(1) };
    let (moved, _) = node.engine.create(anew).await.expect("added");
    assert_eq!(moved.record.lease, first.record.lease);
    assert_eq!(node.chassis.attached.lock().expect("lock")[&moved.record.id].ifindex, 99);
}

#[tokio::test]
async fn failed_add_leaves_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    node.chassis.refuses.store(true, Ordering::SeqCst);
    node.engine.create(request(1)).await.map(drop).expect_err("refused by the chassis");
    assert_eq!(leases(&node), 0);
    assert!(node.engine.store.load_endpoints().expect("read").is_empty());
    node.chassis.refuses.store(false, Ordering::SeqCst);

    // A state directory that takes no file, whoever asks: a file stands in its place.
    let endpoints = directory.path().join("state/endpoints");
    std::fs::remove_dir_all(&endpoints).expect("removed");
    std::fs::write(&endpoints, "").expect("written");
    let error = node.engine.create(request(1)).await.map(drop).expect_err("refused by the disk").to_string();
    assert!(error.contains("state-dir"), "{error}");
    assert_eq!((leases(&node), node.chassis.ids()), (0, vec![]));
}

#[tokio::test]
async fn another_containers_device_is_not_taken() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    node.engine.create(request(1)).await.expect("added");
    let thief = EndpointChangeRequest { container_id: "other".to_owned(), ..request(1) };
    let error = node.engine.create(thief).await.map(drop).expect_err("taken");
    assert!(matches!(error, EngineError::DeviceTaken { .. }), "{error}");
    assert_eq!(leases(&node), 1);
}

#[tokio::test]
async fn exhaustion_keeps_its_words_and_heals() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    for id in 1..=6 {
        node.engine.create(request(id)).await.expect("added");
    }
    let error = node.engine.create(request(7)).await.map(drop).expect_err("full").to_string();
    assert!(error.starts_with("range is full: pool \"default\" of node \"n1\""), "{error}");
    assert!(error.contains("6 of 6 leased") && error.contains("delete pods on it"), "{error}");
    assert_eq!(node.engine.exhaustion.messages().len(), 1);
    let selector = Selector::Pod("default".to_owned(), "web-3".to_owned());
    assert!(node.engine.delete(&selector).await.expect("deleted"));
    assert!(!node.engine.delete(&selector).await.expect("deleted twice"));
    node.engine.create(request(7)).await.expect("added when there is room");
}

#[tokio::test]
async fn address_of_an_attached_endpoint_is_not_released() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    let (added, _) = node.engine.create(request(1)).await.expect("added");
    node.chassis.refuses.store(true, Ordering::SeqCst);
    node.engine.delete(&Selector::Id(added.record.id)).await.map(drop).expect_err("still attached");
    assert_eq!(leases(&node), 1);
    node.chassis.refuses.store(false, Ordering::SeqCst);
    assert!(node.engine.delete(&Selector::Id(added.record.id)).await.expect("deleted"));
    assert_eq!(leases(&node), 0);
}

#[tokio::test]
async fn next_run_takes_endpoints_and_own_leases_over() {
    let directory = tempfile::tempdir().expect("directory");
    let first = start(directory.path()).await;
    let router = first.engine.lease_pools("router", &Owner::Router, &PoolChoice::default()).await.expect("leased");
    let (added, _) = first.engine.create(request(1)).await.expect("added");
    let saved = NodeRecord { leases: vec![router.clone()], ..first.engine.state().await.node.clone() };
    first.engine.store.save_node(&saved).expect("saved");
    drop(first);

    let second = start(directory.path()).await;
    let state = second.engine.state().await;
    let restored = &state.endpoints[&added.record.id];
    assert_eq!((restored.state, restored.restored), (EndpointState::Restoring, true));
    assert_eq!(state.specs().len(), 1);
    drop(state);
    let snapshot = second.engine.backends.ipam.snapshot();
    assert_eq!(snapshot.leases["router"].addresses, router.addresses);
    assert_eq!(snapshot.leases[&added.record.attachment()].addresses, added.record.lease.addresses);
}

#[tokio::test]
async fn deletion_before_the_datapath_is_ready_forgets_the_endpoint() {
    let directory = tempfile::tempdir().expect("directory");
    let first = start(directory.path()).await;
    let (added, _) = first.engine.create(request(1)).await.expect("added");
    drop(first);

    let second = start(directory.path()).await;
    second.engine.state().await.datapath = None;
    second.chassis.refuses.store(true, Ordering::SeqCst);
    let batch = EndpointBatchDeleteRequest {
        container_id: added.record.request.container_id.clone(),
        container_interface_name: String::new(),
    };
    assert_eq!(second.engine.delete_batch(&batch).await.expect("removed"), 1);
    assert_eq!(leases(&second), 0);
    assert!(second.engine.store.load_endpoints().expect("read").is_empty());
}

#[tokio::test]
async fn two_saved_endpoints_with_one_address_are_not_both_attached() {
    let directory = tempfile::tempdir().expect("directory");
    let first = start(directory.path()).await;
    for id in [1, 2] {
        let mut record = record(id, "10.9.0.2");
        record.lease.addresses[0].block.cidr = "10.9.0.0/29".parse().expect("a network");
        first.engine.store.save_endpoint(&record).expect("saved");
    }
    drop(first);
    let second = start(directory.path()).await;
    let state = second.engine.state().await;
    assert_eq!(state.specs().len(), 1);
    let refused = &state.endpoints[&EndpointId(2)];
    assert_eq!(refused.state, EndpointState::NotReady);
    assert!(refused.message.contains("10.9.0.2"), "{}", refused.message);
}

#[tokio::test]
async fn a_saved_block_that_is_refused_costs_no_lease_of_another() {
    let directory = tempfile::tempdir().expect("directory");
    let first = start(directory.path()).await;
    // The second and third name a block around the first one's that is larger than any node's.
    for (id, ip, block) in
        [(1, "10.9.0.2", "10.9.0.0/29"), (2, "10.9.0.3", "10.0.0.0/7"), (3, "11.0.0.5", "10.0.0.0/7")]
    {
        let mut record = record(id, ip);
        record.lease.addresses[0].block.cidr = block.parse().expect("a network");
        first.engine.store.save_endpoint(&record).expect("saved");
    }
    drop(first);
    let second = start(directory.path()).await;
    let state = second.engine.state().await;
    let leased = [1, 2, 3].map(|id| state.endpoints[&EndpointId(id)].leased);
    assert_eq!(leased, [true, true, false], "the address of the second lies in a block that is there");
    let message = &state.endpoints[&EndpointId(3)].message;
    assert!(message.contains("11.0.0.5 is in none of this node's blocks"), "{message}");
}

#[tokio::test]
async fn garbage_collection_keeps_what_the_runtime_knows() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    for id in 1..=3 {
        node.engine.create(request(id)).await.expect("added");
    }
    let known = Attachment { container_id: "c2".to_owned(), ifname: "eth0".to_owned() };
    let removed = node.engine.collect_garbage(&EndpointGcRequest { valid_attachments: vec![known] }).await;
    assert_eq!(removed.expect("collected"), 2);
    let state = node.engine.state().await;
    assert!(state.endpoints.values().map(|running| running.record.attachment()).eq(["c2:eth0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_deletions_are_performed_and_nonsense_is_dropped() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    node.engine.replay_deletes().await.expect("nothing to do");
    node.engine.create(request(1)).await.expect("added");
    let queue = DeleteQueue::beside(&node.engine.config.socket_path);
    let lock = queue.lock_shared(std::time::Duration::from_secs(1)).expect("lock");
    let deletion =
        EndpointBatchDeleteRequest { container_id: "c1".to_owned(), ..EndpointBatchDeleteRequest::default() };
    queue.push(&lock, &deletion).expect("queued");
    std::fs::write(queue.directory().join("nonsense.delete"), "{").expect("written");
    drop(lock);
    node.engine.replay_deletes().await.expect("replayed");
    assert_eq!(leases(&node), 0);
    let left = std::fs::read_dir(queue.directory()).expect("there");
    assert!(left.flatten().all(|file| !file.file_name().to_string_lossy().ends_with(".delete")));
}

#[tokio::test]
async fn nothing_is_added_before_the_datapath_is_ready() {
    let directory = tempfile::tempdir().expect("directory");
    let node = start(directory.path()).await;
    node.engine.state().await.datapath = None;
    let waiting = IpamError::NotReady { family: Family::V4, expected_from: "the Node".to_owned() };
    node.engine.controllers.note(crate::reconcile::NAME, Err(waiting.into()));
    let error = node.engine.create(request(1)).await.map(drop).expect_err("starting").to_string();
    assert!(error.contains("still starting") && error.contains("the Node"), "{error}");
}
