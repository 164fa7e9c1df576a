//! A node over a cluster that changes its mind: real modes, a fake CiliumNode and operator, agents that die anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use ipnet::IpNet;
use kinesin_agent_api::types::{EndpointBatchDeleteRequest, EndpointChangeRequest};
use kinesin_cluster::{NodeIpamChange, OwnCiliumNode, PoolNeed};
use kinesin_cluster_pool as _;
use kinesin_core::{
    config::{Config, Sources},
    registry::{BuildContext, Registry},
    values::{EndpointId, Family},
};
use kinesin_host_scope as _;
use kinesin_multi_pool as _;
use proptest::prelude::*;

use super::{blocks::Said, publish};
use crate::{
    endpoint::{
        lifecycle::tests::{NoPeers, NotingChassis, Pods},
        selector::Selector,
        tests::record,
    },
    engine::{Datapath, Engine, EngineError},
    ipam::is_own,
    node::NodeLinks,
    routing::Routings,
    selection::{Backends, modes},
    store::Store,
};

const MODES: [&str; 3] = ["kubernetes", "cluster-pool", "multi-pool"];
const NODE_CIDR: &str = "10.244.1.0/27";

/// The API objects of the node, and an operator that never gives the same block twice.
#[derive(Debug, Default)]
struct World {
    own: OwnCiliumNode,
    next: u16,
    /// Blocks that were given back: somebody else's by now.
    foreign: Vec<IpNet>,
    /// Pools that were deleted.
    deleted: BTreeSet<String>,
}

impl World {
    fn said(&self) -> Said {
        let pools = ["default", "vac"].map(str::to_owned).into_iter().filter(|pool| !self.deleted.contains(pool));
        Said {
            node_cidrs: Some(vec![NODE_CIDR.parse().expect("a network")]),
            own: Some(self.own.clone()),
            pools: Some(pools.collect()),
        }
    }

    fn fresh(&mut self) -> IpNet {
        self.next += 1;
        format!("10.1.{}.{}/29", self.next / 32, self.next % 32 * 8).parse().expect("a network")
    }

    /// What the API server makes of the agent's write.
    fn write(&mut self, change: NodeIpamChange) {
        let own = &mut self.own;
        own.pod_cidrs.retain(|cidr| !change.remove_pod_cidrs.contains(cidr));
        own.pod_cidrs.extend(change.add_pod_cidrs);
        own.allocated.retain(|entry| !change.remove_allocated.contains(entry));
        self.foreign.extend(change.remove_allocated.iter().map(|(_, cidr)| *cidr));
        own.allocated.extend(change.add_allocated);
        if let Some(requested) = change.requested {
            own.requested = requested;
        }
        if let Some(states) = change.cidr_status {
            own.cidr_status = states;
        }
    }

    /// One round of an operator that serves the node by its mode.
    fn operate(&mut self, mode: &str) {
        let state = |cidr: &IpNet| self.own.cidr_status.get(&cidr.to_string()).map(String::as_str);
        let of_node = |cidr: &IpNet| cidr.to_string() == NODE_CIDR;
        let gone: Vec<IpNet> =
            self.own.pod_cidrs.iter().filter(|cidr| state(cidr) == Some("released")).copied().collect();
        let active: Vec<&IpNet> =
            self.own.pod_cidrs.iter().filter(|cidr| !of_node(cidr) && !gone.contains(cidr)).collect();
        let wants = mode == "cluster-pool" && active.iter().all(|cidr| state(cidr) == Some("depleted"));
        self.own.pod_cidrs.retain(|cidr| !gone.contains(cidr));
        self.own.cidr_status.retain(|cidr, _| !gone.iter().any(|found| found.to_string() == *cidr));
        self.foreign.extend(gone);
        if wants {
            let cidr = self.fresh();
            self.own.pod_cidrs.push(cidr);
        }
        if mode == "multi-pool" {
            let there = |need: &PoolNeed| !self.deleted.contains(&need.pool);
            for need in self.own.requested.clone().into_iter().filter(there).collect::<Vec<_>>() {
                let count =
                    |world: &Self| world.own.allocated.iter().filter(|(pool, _)| *pool == need.pool).count() as u64;
                while count(self) * 6 < need.ipv4 {
                    let cidr = self.fresh();
                    self.own.allocated.push((need.pool.clone(), cidr));
                }
            }
        }
    }

    fn lists(&self, cidr: &IpNet) -> bool {
        self.own.pod_cidrs.contains(cidr) || self.own.allocated.iter().any(|(_, found)| found == cidr)
    }
}

/// One life of the agent.
struct Agent {
    engine: Engine,
    pods: Arc<Pods>,
}

impl Agent {
    async fn start(directory: &Path, mode: &str) -> Self {
        let set = |key: &str, value: String| (key.to_owned(), value);
        let flags = vec![
            set("state-dir", directory.display().to_string()),
            set("socket-path", directory.join("cilium.sock").display().to_string()),
            set("ipam", mode.to_owned()),
            set("enable-health-checking", "false".to_owned()),
            set("backend.cluster_pool.releaseAfterSeconds", "0".to_owned()),
            set("backend.multi_pool.releaseAfterSeconds", "0".to_owned()),
        ];
        let config = Config::load(&Sources { flags, ..Sources::default() }).expect("valid");
        let context = |section| BuildContext {
            node_name: "n1".to_owned(),
            families: config.families,
            state_dir: directory.to_owned(),
            bpffs: directory.to_owned(),
            enable_tcx: true,
            auto_direct_node_routes: true,
            direct_routing_skip_unreachable: false,
            underlay: kinesin_core::values::Underlay::Auto,
            section,
        };
        let ipam = modes(&config, &Registry::collect().expect("linked"), &context).expect("built");
        let backends = Backends {
            ipam,
            routing: Routings::new(Arc::new(NoPeers), Vec::new()),
            chassis: Arc::new(NotingChassis::default()),
        };
        let store = Store::new(directory.join("state"));
        store.prepare().expect("directories");
        let pods = Arc::new(Pods::default());
        let engine = Engine::new(config, "n1".to_owned(), backends, store, pods.clone());
        engine.restore().await.expect("restored");
        Self { engine, pods }
    }

    /// A reconciliation, as far as addresses are concerned; without a world the API server does not answer.
    async fn settle(&self, world: Option<&World>) -> Result<(), EngineError> {
        let mut state = self.engine.state().await;
        if let Some(world) = world {
            state.said = world.said();
        }
        publish::take(&self.engine, &mut state);
        let (own, refused) = self.engine.settle_ipam(&mut state, &NodeLinks::default()).await?;
        state.datapath = Some(Datapath { router: own.router.clone(), ..Datapath::default() });
        self.engine.finish_ipam(&mut state, own, true).await?;
        drop(state);
        self.engine.space_changed();
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Tells the world; a crash in between leaves it unsaid.
    async fn publish(&self, world: &mut World, crash: bool) {
        let facts = self.engine.ipam_facts(&mut *self.engine.state().await).await.expect("saved");
        let change = self.engine.ipam_change(&world.own, &facts);
        if !crash {
            world.write(change);
        }
    }

    async fn add(&self, id: u16, pool: Option<&str>) -> Result<crate::endpoint::Running, EngineError> {
        let mut annotations = BTreeMap::new();
        if let Some(pool) = pool {
            annotations.insert("ipam.cilium.io/ip-pool".to_owned(), pool.to_owned());
        }
        self.pods.0.lock().expect("lock").insert(format!("default/web-{id}"), annotations);
        self.engine.create(request(id)).await.map(|(running, _)| running)
    }

    async fn delete(&self, id: u16) -> bool {
        let pod = Selector::Pod("default".to_owned(), format!("web-{id}"));
        self.engine.delete(&pod).await.expect("deleted")
    }

    /// The runtime deletes the sandbox of a pod that found no address.
    async fn delete_sandbox(&self, id: u16) {
        let EndpointChangeRequest { container_id, .. } = request(id);
        let batch = EndpointBatchDeleteRequest { container_id, ..EndpointBatchDeleteRequest::default() };
        assert_eq!(self.engine.delete_batch(&batch).await.expect("nothing to delete"), 0);
    }

    /// What must hold at any time.
    async fn check(&self, world: &World, mode: &str, pods: &BTreeMap<u16, (String, String)>) {
        let state = self.engine.state().await;
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (_, snapshot) in self.engine.backends.ipam.snapshots() {
            for lease in snapshot.leases.values() {
                for leased in &lease.addresses {
                    let cidr = leased.block.cidr;
                    let before = seen.insert(leased.ip.to_string(), lease.attachment.clone());
                    assert_eq!(before, None, "{} is leased twice", leased.ip);
                    assert!(!world.foreign.contains(&cidr), "{} of {cidr}, which was given back, in {mode}", leased.ip);
                    let is_copied = cidr.to_string() == NODE_CIDR;
                    assert!(world.lists(&cidr) || is_copied, "{cidr} of {} is not listed in {mode}", lease.owner);
                }
            }
        }
        assert_eq!(state.endpoints.len(), pods.len());
        for running in state.endpoints.values() {
            let id = running.record.request.container_id[1..].parse::<u16>().expect("a number");
            let lease = &running.record.lease;
            let now = (lease.mode.clone(), lease.address(Family::V4).expect("an address").to_string());
            assert!(running.leased, "{}", running.message);
            assert_eq!(Some(&now), pods.get(&id), "the address of a running pod changed");
        }
    }
}

fn request(id: u16) -> EndpointChangeRequest {
    record(id, "10.0.0.1").request
}

fn registry_name(mode: &str) -> String {
    if mode == "kubernetes" { "host_scope".to_owned() } else { mode.replace('-', "_") }
}

#[derive(Debug, Clone)]
enum Step {
    Add(u16, bool),
    Delete(u16),
    Publish,
    Operate,
    Settle,
    /// The pool that some pods name is deleted, or made again.
    Pool,
    /// Another agent takes over, in this mode, and hears from the API server or does not.
    Restart {
        mode: usize,
        crash: bool,
        api: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1_u16..16, any::<bool>()).prop_map(|(id, vac)| Step::Add(id, vac)),
        3 => (1_u16..16).prop_map(Step::Delete),
        4 => Just(Step::Publish),
        3 => Just(Step::Operate),
        4 => Just(Step::Settle),
        1 => Just(Step::Pool),
        2 => (0..MODES.len(), any::<bool>(), any::<bool>())
            .prop_map(|(mode, crash, api)| Step::Restart { mode, crash, api }),
    ];
    prop::collection::vec(step, 1..50)
}

async fn history(first: usize, steps: Vec<Step>, last: usize) {
    let directory = tempfile::tempdir().expect("directory");
    let (mut world, mut mode) = (World::default(), MODES[first]);
    let mut agent = Agent::start(directory.path(), mode).await;
    let mut pods: BTreeMap<u16, (String, String)> = BTreeMap::new();
    // Whether this agent has heard that the pool is gone.
    let mut told = false;
    for step in steps {
        match step {
            Step::Add(id, vac) => {
                if let Ok(running) = agent.add(id, vac.then_some("vac")).await {
                    let lease = &running.record.lease;
                    let ip = lease.address(Family::V4).expect("an address").to_string();
                    if !pods.contains_key(&id) {
                        assert_eq!(lease.mode, registry_name(mode), "new leases are of the preferred mode");
                        let pool = if vac && mode == "multi-pool" { "vac" } else { "default" };
                        assert_eq!(lease.addresses[0].block.pool, pool);
                        assert!(pool != "vac" || !told, "a pool that was deleted gave a lease");
                    }
                    pods.insert(id, (lease.mode.clone(), ip));
                }
            }
            Step::Delete(id) => assert_eq!(agent.delete(id).await, pods.remove(&id).is_some()),
            Step::Publish => agent.publish(&mut world, false).await,
            Step::Operate => world.operate(mode),
            Step::Settle => {
                drop(agent.settle(Some(&world)).await);
                told = world.deleted.contains("vac");
            }
            Step::Pool => {
                if !world.deleted.remove("vac") {
                    world.deleted.insert("vac".to_owned());
                }
            }
            Step::Restart { mode: to, crash, api } => {
                if crash {
                    agent.publish(&mut world, true).await;
                }
                mode = MODES[to];
                agent = Agent::start(directory.path(), mode).await;
                drop(agent.settle(api.then_some(&world)).await);
                // What the last one was told outlives it, as long as nobody says anything else.
                told = if api { world.deleted.contains("vac") } else { told && MODES[to] == "multi-pool" };
            }
        }
        agent.check(&world, mode, &pods).await;
    }

    // Left alone in one mode, with the old pods gone, everything comes to rest there.
    mode = MODES[last];
    agent = Agent::start(directory.path(), mode).await;
    let old: Vec<u16> = pods.iter().filter(|(_, (of, _))| *of != registry_name(mode)).map(|(id, _)| *id).collect();
    for id in old {
        assert!(agent.delete(id).await);
        pods.remove(&id);
    }
    for _ in 0..12 {
        drop(agent.settle(Some(&world)).await);
        agent.publish(&mut world, false).await;
        world.operate(mode);
        agent.check(&world, mode, &pods).await;
    }
    agent.settle(Some(&world)).await.expect("at rest");
    let snapshots = agent.engine.backends.ipam.snapshots();
    assert_eq!(snapshots.len(), 1, "old modes are retired");
    assert!(snapshots[0].1.leases.values().any(is_own), "the router has moved");
    let copied = world.own.pod_cidrs.iter().any(|cidr| cidr.to_string() == NODE_CIDR);
    let given = world.own.pod_cidrs.iter().any(|cidr| cidr.to_string() != NODE_CIDR);
    let listed = (copied, given, !world.own.allocated.is_empty());
    assert_eq!(listed, (mode == MODES[0], mode == MODES[1], mode == MODES[2]), "only the mode's own blocks are left");
    agent.add(200, None).await.expect("a pod starts in the end");
}

fn run<F: Future<Output = ()>>(history: F) {
    // The clock is stopped: an ADD that waits for a block does so at no cost.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(history);
}

#[test]
fn every_mode_changes_to_every_other_and_back_under_running_pods() {
    for first in 0..MODES.len() {
        for second in (0..MODES.len()).filter(|second| *second != first) {
            let settle =
                || vec![Step::Settle, Step::Publish, Step::Operate, Step::Settle, Step::Publish, Step::Operate];
            let mut steps: Vec<Step> = settle();
            steps.extend(settle());
            steps.extend((1..5).map(|id| Step::Add(id, false)));
            steps.push(Step::Restart { mode: second, crash: false, api: true });
            steps.extend(settle());
            steps.extend(settle());
            steps.extend((5..9).map(|id| Step::Add(id, false)));
            steps.push(Step::Restart { mode: first, crash: true, api: false });
            steps.extend(settle());
            steps.extend((9..12).map(|id| Step::Add(id, false)));
            run(history(first, steps.clone(), first));
            run(history(first, steps, second));
        }
    }
}

proptest! {
    #[test]
    fn no_address_changes_is_given_twice_or_lost(first in 0..3_usize, steps in steps(), last in 0..3_usize) {
        run(history(first, steps, last));
    }
}

#[test]
fn a_saved_lease_of_a_mode_that_is_gone_is_named_and_attached_to_nobody() {
    run(async {
        let directory = tempfile::tempdir().expect("directory");
        let agent = Agent::start(directory.path(), "kubernetes").await;
        let mut saved = record(1, "10.0.0.3");
        saved.lease.mode = "third_party".to_owned();
        agent.engine.store.save_endpoint(&saved).expect("saved");
        let agent = Agent::start(directory.path(), "kubernetes").await;
        let state = agent.engine.state().await;
        let found = &state.endpoints[&EndpointId(1)];
        assert!(!found.leased && found.message.contains("\"third_party\" is not compiled"), "{}", found.message);
    });
}

#[test]
fn an_add_waits_for_a_block_that_is_on_its_way_and_no_longer() {
    run(async {
        let directory = tempfile::tempdir().expect("directory");
        let (mut world, agent) = node_with_pools(directory.path()).await;
        // The operator refuses: it fails at once, and says why.
        world.own.operator_error = "cannot allocate from non-existing pool: \"nowhere\"".to_owned();
        agent.settle(Some(&world)).await.expect("blocks");
        let started = tokio::time::Instant::now();
        let error = agent.add(2, Some("nowhere")).await.map(drop).expect_err("no such pool").to_string();
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "it waited for nothing");
        assert!(error.contains("pool not (yet) available") && error.contains("create the CiliumPodIPPool"), "{error}");
        // No other pool takes its place, and its need is told.
        agent.publish(&mut world, false).await;
        assert!(world.own.requested.iter().any(|need| need.pool == "nowhere" && need.ipv4 == 1));
    });
}

/// A node in multi-pool with a first block, and a pod of the pool "vac".
async fn node_with_pools(directory: &Path) -> (World, Agent) {
    let mut world = World::default();
    let agent = Agent::start(directory, "multi-pool").await;
    for _ in 0..3 {
        drop(agent.settle(Some(&world)).await);
        agent.publish(&mut world, false).await;
        world.operate("multi-pool");
    }
    agent.settle(Some(&world)).await.expect("blocks");
    let (added, ()) = tokio::join!(agent.add(1, Some("vac")), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        agent.publish(&mut world, false).await;
        world.operate("multi-pool");
        agent.settle(Some(&world)).await.expect("blocks");
    });
    assert_eq!(added.expect("it waited").record.lease.addresses[0].block.pool, "vac");
    (world, agent)
}

#[test]
fn a_deleted_pool_gives_nothing_new_and_goes_with_its_last_lease() {
    run(async {
        let directory = tempfile::tempdir().expect("directory");
        let (mut world, mut agent) = node_with_pools(directory.path()).await;
        let of_vac = |world: &World| world.own.allocated.iter().filter(|(pool, _)| pool == "vac").count();
        world.deleted.insert("vac".to_owned());
        agent.settle(Some(&world)).await.expect("settled");
        let started = tokio::time::Instant::now();
        let error = agent.add(2, Some("vac")).await.map(drop).expect_err("no such pool").to_string();
        assert!(started.elapsed() < std::time::Duration::from_secs(1), "it waited for nothing");
        assert!(
            error.contains("it was deleted") && error.contains("create the CiliumPodIPPool \"vac\" again"),
            "{error}"
        );
        agent.add(3, None).await.expect("other pools give");
        // The pod that has an address keeps it, over a restart without the API server too.
        for settled in [None, Some(&world)] {
            agent = Agent::start(directory.path(), "multi-pool").await;
            agent.settle(settled).await.expect("settled");
            agent.add(2, Some("vac")).await.map(drop).expect_err("no such pool");
            let held = agent.engine.backends.ipam.snapshot().leases;
            assert!(held.values().any(|lease| lease.addresses[0].block.pool == "vac"), "{held:?}");
        }
        agent.publish(&mut world, false).await;
        assert_eq!(of_vac(&world), 1, "peers route what is listed");

        // Made again, it gives from the block that is still here.
        world.deleted.clear();
        agent.settle(Some(&world)).await.expect("settled");
        agent.add(2, Some("vac")).await.expect("the pool is back");
        assert_eq!(of_vac(&world), 1);

        world.deleted.insert("vac".to_owned());
        agent.settle(Some(&world)).await.expect("settled");
        for id in [1, 2] {
            assert!(agent.delete(id).await);
        }
        agent.publish(&mut world, false).await;
        assert_eq!(of_vac(&world), 0, "its last lease is gone");
        assert!(world.own.requested.iter().all(|need| need.pool != "vac"), "{:?}", world.own.requested);
    });
}

#[test]
fn a_pod_that_is_deleted_while_it_waits_is_asked_for_no_longer() {
    run(async {
        let directory = tempfile::tempdir().expect("directory");
        let (mut world, agent) = node_with_pools(directory.path()).await;
        let asked = |world: &World| {
            let need = world.own.requested.iter().find(|need| need.pool == "nowhere");
            need.map_or(0, |need| need.ipv4)
        };
        world.own.operator_error = "cannot allocate from non-existing pool: \"nowhere\"".to_owned();
        agent.settle(Some(&world)).await.expect("settled");
        for id in [2, 3] {
            agent.add(id, Some("nowhere")).await.map(drop).expect_err("no such pool");
            // A runtime does so after each ADD that failed, and the kubelet tries the Pod again.
            agent.delete_sandbox(id).await;
        }
        for _ in 0..2 {
            agent.publish(&mut world, false).await;
            assert_eq!(asked(&world), 2, "both are wanted");
        }
        agent.pods.0.lock().expect("lock").remove("default/web-2");
        agent.publish(&mut world, false).await;
        assert_eq!((asked(&world), agent.engine.exhaustion.messages().len()), (1, 1));
        agent.pods.0.lock().expect("lock").remove("default/web-3");
        agent.publish(&mut world, false).await;
        assert_eq!((asked(&world), agent.engine.exhaustion.messages().len()), (0, 0), "nobody lacks anything");
    });
}

#[test]
fn a_replaced_router_address_stays_beside_the_new_one_for_a_pass() {
    run(async {
        let directory = tempfile::tempdir().expect("directory");
        let mut world = World::default();
        let agent = Agent::start(directory.path(), "kubernetes").await;
        agent.settle(Some(&world)).await.expect("blocks");
        agent.publish(&mut world, false).await;
        drop(agent);
        let agent = Agent::start(directory.path(), "multi-pool").await;
        let mut seen = Vec::new();
        for _ in 0..8 {
            drop(agent.settle(Some(&world)).await);
            let state = agent.engine.state().await;
            seen.push(state.datapath.as_ref().map(|datapath| datapath.router.clone()).unwrap_or_default());
            drop(state);
            agent.publish(&mut world, false).await;
            world.operate("multi-pool");
        }
        seen.dedup();
        let [old, both, new] = &seen[..] else { panic!("one, both, the other: {seen:?}") };
        assert_eq!((old.len(), new.len()), (1, 1));
        assert_eq!(*both, [new[0], old[0]], "the new one comes first");
    });
}
