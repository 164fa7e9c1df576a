//! From the arguments to a running node.
//!
//! Order: configuration and backends are checked before anything is touched; then the state directory is locked, the
//! earlier run's state is taken over, the socket answers, and the loops start. Nothing waits for the API server: a node
//! that ran before forwards and serves CNI without it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use kinesin_agent_api::types::{State as Word, Status};
use kinesin_cluster::{ClusterNode, OwnCiliumNode, OwnNode, Table, WatchHealth};
use kinesin_core::{
    capability::ThisMachine,
    combination::Selection,
    config::{Config, Sources},
    registry::Registry,
};
use kinesin_loader::OwnerLock;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    api,
    args::{Asked, Task},
    carriers::Said,
    cni_conf, config_watch, connectivity,
    controller::Loop,
    device_watch,
    endpoint::replay,
    engine::Engine,
    ipam::{
        self,
        pool::{Known, PodFacts, PodTables},
    },
    listing, memory, path_mtu, publish, reconcile,
    selection::{self, Backends},
    store::{PeerRecord, Store},
};

/// Where Kubernetes' probes ask for the agent's health (Cilium: `agent-health-port`).
const HEALTH_ADDRESS: &str = "127.0.0.1:9879";
/// How often what is published is compared with the API although nothing is known to have changed.
const PUBLISH_PERIOD: Duration = Duration::from_secs(300);
/// How often the CNI configuration, the delete queue and the API server's version are looked at.
const UPKEEP_PERIOD: Duration = Duration::from_secs(10);
/// How long open requests may take to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(3);

/// Does what was asked.
pub(crate) fn answer(asked: Asked) -> anyhow::Result<()> {
    match asked.command {
        Task::Backends => {
            // A configuration that is refused chooses nothing; what is compiled in can be listed all the same.
            let selection = Config::load(&asked.sources).map_or_else(|_| Selection::default(), |found| found.selection);
            listing::print(&listing::backends(&Registry::collect()?, &selection))
        }
        Task::Doctor => {
            let machine = ThisMachine::new().context("cannot read the kernel's release")?;
            listing::print(&listing::doctor(&Registry::collect()?, &machine))
        }
        Task::Cleanup => runtime()?.block_on(cleanup(asked)),
        Task::Run => runtime()?.block_on(run(asked)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // Two workers: the agent waits for the kernel and for peers, it computes little.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// What the agent watches and has to say of it.
#[derive(Debug)]
pub(crate) struct Watches {
    own_node: Table<OwnNode>,
    nodes: Table<ClusterNode>,
    own_cilium_node: Table<OwnCiliumNode>,
    /// Watched only for modes in which Pods name pools.
    pods: Option<Arc<PodTables>>,
    server_version: RwLock<String>,
    cni_file: RwLock<Status>,
}

impl Watches {
    /// Whether each watch is kept up to date.
    pub(crate) fn health(&self) -> Vec<WatchHealth> {
        let mut all = vec![self.own_node.health(), self.nodes.health(), self.own_cilium_node.health()];
        all.extend(
            self.pods
                .iter()
                .flat_map(|tables| [tables.pods.health(), tables.namespaces.health(), tables.pools.health()]),
        );
        all
    }

    /// `1.32 (v1.32.0) [linux/amd64]`; empty before the API server told.
    pub(crate) fn server_version(&self) -> String {
        self.server_version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the CNI configuration is.
    pub(crate) fn cni_file(&self) -> Status {
        self.cni_file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The watch of the nodes that this node knows.
    pub(crate) fn cluster_nodes(&self) -> Table<ClusterNode> {
        self.nodes.clone()
    }

    /// The nodes that this node knows.
    pub(crate) fn nodes(&self) -> Vec<ClusterNode> {
        self.nodes.snapshot().items.values().cloned().collect()
    }
}

/// Knows no Pod, and is never asked: the mode has no pools.
#[derive(Debug)]
struct NoPools;

impl PodFacts for NoPools {
    fn look_up(&self, _: &str, _: &str) -> Known {
        Known::default()
    }
}

async fn run(asked: Asked) -> anyhow::Result<()> {
    let node_name = node_name(&asked)?;
    let (config, backends, refused) = configuration(&asked.sources, &node_name)?;
    log_to_stderr(config.debug);
    for notice in config.notices() {
        tracing::warn!("{notice}");
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node = node_name, selection = ?config.selection, "starting");

    let store = Store::new(selection::state_dir(&config));
    store.prepare()?;
    let _lock = OwnerLock::acquire(&store.directory().join("agent.lock"))
        .context("only one agent may run on a node; stop the other one first")?;
    if let Some(reason) = &refused {
        tracing::error!(reason, "the configuration is refused; the one accepted before runs");
    }
    let k8s = &config.k8s;
    let client = kinesin_cluster::connect(k8s.kubeconfig_path.as_deref(), k8s.api_server.as_deref()).await?;
    // Only now: a kubeconfig that cannot be used is a refusal as well.
    if let Err(error) = config_watch::remember(&store, &config) {
        tracing::warn!(%error, "the accepted configuration is not saved");
    }
    let pods = backends.ipam.preferred().source.has_pools().then(|| {
        Arc::new(PodTables {
            pods: kinesin_cluster::watch_local_pods(client.clone(), &node_name),
            namespaces: kinesin_cluster::watch_namespaces(client.clone()),
            pools: kinesin_cluster::watch_pod_ip_pools(client.clone()),
        })
    });
    let facts: Arc<dyn PodFacts> = pods.clone().map_or_else(|| Arc::new(NoPools) as _, |tables| tables as _);
    let watches = Arc::new(Watches {
        own_node: kinesin_cluster::watch_own_node(client.clone(), &node_name),
        nodes: kinesin_cluster::watch_cluster_nodes(client.clone()),
        own_cilium_node: kinesin_cluster::watch_own_cilium_node(client.clone(), &node_name),
        pods,
        server_version: RwLock::default(),
        cni_file: RwLock::new(Status {
            state: Word::Disabled,
            msg: "not written yet: the agent is starting".to_owned(),
        }),
    });
    let engine = Arc::new(Engine::new(config, node_name, backends, store, facts));
    if let Some(reason) = refused {
        engine.degradation.write().unwrap_or_else(PoisonError::into_inner).refused = Some(reason);
    }
    engine.restore().await?;

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    serve(&engine, &watches, &mut tasks, &stop).await?;
    let devices = device_watch::open().await;
    tasks.spawn(device_watch::run(devices, engine.wakes.datapath.clone(), engine.controllers.clone(), stop.clone()));
    start_loops(&engine, &watches, &client, asked.sources, &mut tasks, &stop);
    tasks.spawn(memory::give_back(stop.clone()));

    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    tokio::select! {
        _ = terminate.recv() => {}
        outcome = tokio::signal::ctrl_c() => outcome.context("cannot wait for SIGINT")?,
    }
    tracing::info!("stopping; the datapath goes on");
    stop.cancel();
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::warn!("requests were cut off");
    }
    Ok(())
}

/// The configuration that shall run, and why the present one does not, if an earlier one has to.
fn configuration(sources: &Sources, node_name: &str) -> anyhow::Result<(Config, Backends, Option<String>)> {
    let refusal = match config_watch::load(sources, node_name) {
        Ok((config, backends)) => return Ok((config, backends, None)),
        Err(refusal) => refusal,
    };
    // Whatever else is refused, the sources may still say where the state is.
    let flags = sources.written("state-dir").map(|directory| ("state-dir".to_owned(), directory)).into_iter().collect();
    let place = Config::load(&Sources { flags, ..Sources::default() }).map(|config| selection::state_dir(&config));
    let recalled = place.ok().and_then(|directory| config_watch::recall(&Store::new(directory), node_name));
    match recalled {
        Some((config, backends)) => Ok((config, backends, Some(refusal.to_string()))),
        None => Err(refusal.into()),
    }
}

fn node_name(asked: &Asked) -> anyhow::Result<String> {
    if let Some(name) = &asked.node_name {
        return Ok(name.clone());
    }
    let name = nix::unistd::gethostname().context("cannot read the host's name; give --k8s-node-name")?;
    Ok(name.to_string_lossy().into_owned())
}

fn log_to_stderr(debug: bool) {
    let level = if debug { "debug" } else { "info" };
    let quiet = format!("{level},hyper=warn,tower=warn,kube=warn,netlink_proto=warn,aya=warn");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    // Fails only when somebody has set a subscriber already, whose log is then the one to use.
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Where nobody reads the log, telling that on stderr would be a panic.
    let _ = subscriber.log_internal_errors(false).try_init();
}

async fn serve(
    engine: &Arc<Engine>,
    watches: &Arc<Watches>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let app = api::router(engine.clone(), watches.clone());
    let listener = listen(&engine.config.socket_path)?;
    let stopped = stop.clone();
    tasks.spawn(async move {
        let served = axum::serve(listener, app).with_graceful_shutdown(async move { stopped.cancelled().await }).await;
        if let Err(error) = served {
            tracing::error!(%error, "the socket is no longer served");
        }
    });
    match TcpListener::bind(HEALTH_ADDRESS).await {
        Ok(listener) => {
            let app = api::probes(engine.clone());
            let stopped = stop.clone();
            tasks.spawn(async move {
                let stopping = async move { stopped.cancelled().await };
                // It is served or the agent ends; accept errors are retried inside.
                let _ = axum::serve(listener, app).with_graceful_shutdown(stopping).await;
            });
        }
        Err(error) => tracing::warn!(address = HEALTH_ADDRESS, %error, "health probes are not answered"),
    }
    Ok(())
}

/// Listens where an earlier agent may have left its socket; the lock says that it is gone.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let place = || format!("cannot listen on {} (key socket-path)", path.display());
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(place)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(place),
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(place)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).with_context(place)?;
    Ok(listener)
}

fn start_loops(
    engine: &Arc<Engine>,
    watches: &Arc<Watches>,
    client: &kube::Client,
    sources: Sources,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    let spec = |name, wake: &Arc<Notify>, period| Loop {
        name,
        wake: wake.clone(),
        period,
        controllers: engine.controllers.clone(),
        stop: stop.clone(),
    };
    let (e, w) = (engine.clone(), watches.clone());
    tasks.spawn(spec(reconcile::NAME, &engine.wakes.datapath, reconcile::PERIOD).run(move || {
        let (engine, watches) = (e.clone(), w.clone());
        async move {
            take_tables(&engine, &watches).await;
            engine.reconcile().await
        }
    }));
    let e = engine.clone();
    tasks.spawn(spec(path_mtu::NAME, &Arc::default(), path_mtu::PERIOD).run(move || {
        let engine = e.clone();
        async move { engine.follow_told_mtus().await }
    }));
    forward(watches.own_node.clone(), &engine.wakes.datapath, tasks, stop);
    forward(watches.nodes.clone(), &engine.wakes.datapath, tasks, stop);
    tasks.spawn(follow_own_cilium_node(engine.clone(), watches.clone(), stop.clone()));
    if let Some(tables) = &watches.pods {
        forward(tables.pools.clone(), &engine.wakes.datapath, tasks, stop);
    }
    if engine.config.health.enabled {
        tasks.spawn(connectivity::run(engine.clone(), watches.clone(), stop.clone()));
    }

    let node = Arc::new(publish::Node::new(engine.clone(), client.clone(), watches.cluster_nodes()));
    tasks.spawn(spec(publish::NODE, &engine.wakes.node, PUBLISH_PERIOD).run(move || {
        let node = node.clone();
        async move { node.publish().await }
    }));
    let needs = Arc::new(ipam::publish::Needs::new(engine.clone(), client.clone()));
    tasks.spawn(spec(ipam::publish::NAME, &engine.wakes.ipam, ipam::publish::PERIOD).run(move || {
        let needs = needs.clone();
        async move { needs.publish().await }
    }));
    let endpoints = Arc::new(publish::Endpoints::new(engine.clone(), client.clone()));
    tasks.spawn(spec(publish::ENDPOINTS, &engine.wakes.endpoints, PUBLISH_PERIOD).run(move || {
        let endpoints = endpoints.clone();
        async move { endpoints.publish().await }
    }));
    let e = engine.clone();
    tasks.spawn(spec(replay::NAME, &engine.wakes.deletes, UPKEEP_PERIOD).run(move || {
        let engine = e.clone();
        async move { engine.replay_deletes().await }
    }));
    let (e, w) = (engine.clone(), watches.clone());
    tasks.spawn(spec("write-cni-file", &engine.wakes.cni, UPKEEP_PERIOD).run(move || {
        let (engine, watches) = (e.clone(), w.clone());
        async move { write_cni_file(&engine, &watches).await }
    }));
    let (w, c) = (watches.clone(), client.clone());
    tasks.spawn(spec("kubernetes-version", &Arc::default(), PUBLISH_PERIOD).run(move || {
        let (watches, client) = (w.clone(), c.clone());
        async move { ask_version(&watches, &client).await }
    }));
    let e = engine.clone();
    tasks.spawn(spec(config_watch::NAME, &Arc::default(), config_watch::PERIOD).run(move || {
        let (engine, sources) = (e.clone(), sources.clone());
        async move {
            let found = config_watch::compare(&engine, &sources);
            let message = found.message();
            let mut known = engine.degradation.write().unwrap_or_else(PoisonError::into_inner);
            if *known != found {
                tracing::warn!(message = message.as_deref().unwrap_or("none"), "the configuration's state changed");
                *known = found;
            }
            message.filter(|_| known.refused.is_some()).map_or(Ok(()), |reason| Err(anyhow::anyhow!(reason)))
        }
    }));
}

/// Wakes `wake` whenever the table changes.
fn forward<T: Send + Sync + 'static>(
    mut table: Table<T>,
    wake: &Arc<Notify>,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) {
    let (wake, stop) = (wake.clone(), stop.clone());
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = table.changed() => wake.notify_one(),
                () = stop.cancelled() => return,
            }
        }
    });
}

/// Wakes whom a change of the node's CiliumNode concerns: most are this agent's own words, which need no pass over the
/// datapath.
async fn follow_own_cilium_node(engine: Arc<Engine>, watches: Arc<Watches>, stop: CancellationToken) {
    let mut table = watches.own_cilium_node.clone();
    loop {
        tokio::select! {
            () = table.changed() => {}
            () = stop.cancelled() => return,
        }
        if take_tables(&engine, &watches).await {
            engine.wakes.datapath.notify_one();
        } else {
            engine.space_changed();
        }
    }
}

/// Takes over what the tables say; what they do not know yet stays as it was. The answer is whether the node's blocks are
/// others than before.
async fn take_tables(engine: &Engine, watches: &Watches) -> bool {
    let own = watches.own_node.snapshot();
    let nodes = watches.nodes.snapshot();
    let cilium = watches.own_cilium_node.snapshot();
    let mut state = engine.state().await;
    let before = state.said.clone();
    // One that cannot be read at all says nothing; what it said before holds.
    if cilium.synced && cilium.rejected.is_empty() {
        let own = cilium.items.get(&engine.node_name).cloned().unwrap_or_default();
        if state.said.own.as_ref() != Some(&own) {
            for problem in &own.problems {
                tracing::warn!(problem, "an entry of this node's CiliumNode cannot be used");
            }
            state.said.own = Some(own);
        }
    }
    if let Some(node) = own.items.get(&engine.node_name) {
        state.said.node_cidrs = Some(node.pod_cidrs.clone());
        state.node.internal_ips.clone_from(&node.internal_ips);
        state.node.uid.clone_from(&node.uid);
        state.node.labels.clone_from(&node.labels);
    }
    state.said.pools = watches.pods.as_ref().and_then(|tables| tables.existing_pools());
    ipam::publish::take(engine, &mut state);
    // What is known now is enough to tell the cluster of this node, and the operator may have to hear of it first.
    engine.wakes.node.notify_one();
    if nodes.synced {
        let own = nodes.items.get(&engine.node_name);
        state.node.created_unix_seconds = own.and_then(|node| node.created_unix_seconds);
        let peers = nodes.items.iter().filter(|(name, _)| **name != engine.node_name);
        let mut refused = BTreeMap::new();
        let peers = peers.map(|(name, node)| {
            let mtu_bytes = path_mtu::parse(&node.mtu, engine.config.families).unwrap_or_else(|reason| {
                refused.insert(name.clone(), reason);
                None
            });
            let record = PeerRecord {
                addresses: node.addresses.clone(),
                pod_cidrs: node.pod_cidrs.clone(),
                health: node.health.clone(),
                carriers: Said::parse(&node.carrier, &node.accepts),
                created_unix_seconds: node.created_unix_seconds,
                mtu_bytes,
            };
            (name.clone(), record)
        });
        state.node.peers = peers.collect();
        path_mtu::note_refused(&mut state, refused);
    }
    state.said.has_other_blocks(&before)
}

async fn write_cni_file(engine: &Engine, watches: &Watches) -> anyhow::Result<()> {
    if engine.state().await.datapath.is_none() {
        // Without it the runtime would start pods that cannot be given a network.
        return Ok(());
    }
    let written = cni_conf::apply(&engine.config);
    let status = match &written {
        Ok(message) => Status { state: Word::Ok, msg: message.clone() },
        Err(error) => Status { state: Word::Failure, msg: format!("{error}") },
    };
    *watches.cni_file.write().unwrap_or_else(PoisonError::into_inner) = status;
    written.map(drop).map_err(Into::into)
}

async fn ask_version(watches: &Watches, client: &kube::Client) -> anyhow::Result<()> {
    let found = client.apiserver_version().await.context("the API server does not tell its version")?;
    let text = format!("{}.{} ({}) [{}]", found.major, found.minor, found.git_version, found.platform);
    *watches.server_version.write().unwrap_or_else(PoisonError::into_inner) = text;
    Ok(())
}

/// Removes what the agent and its backends made on this node.
async fn cleanup(asked: Asked) -> anyhow::Result<()> {
    let node_name = node_name(&asked)?;
    let (config, backends, _) = configuration(&asked.sources, &node_name)?;
    log_to_stderr(config.debug);
    let store = Store::new(selection::state_dir(&config));
    store.prepare()?;
    let _lock = OwnerLock::acquire(&store.directory().join("agent.lock")).context("stop the agent first")?;
    let mut left = Vec::new();
    left.extend(backends.routing.retire().await);
    if let Err(error) = backends.chassis.retire().await {
        left.push(error.to_string());
    }
    match kinesin_netlink::Netlink::new() {
        Ok(netlink) => {
            for device in netlink.links().await?.into_iter().filter(|link| link.name.starts_with("lxc")) {
                if let Err(error) = netlink.delete_link(device.index).await {
                    left.push(error.to_string());
                }
            }
        }
        Err(error) => left.push(error.to_string()),
    }
    if let Err(error) = store.remove_all() {
        left.push(error.to_string());
    }
    anyhow::ensure!(left.is_empty(), "some things are left: {}", left.join("; "));
    Ok(())
}
