//! From the arguments to a running node.
//!
//! Order: configuration and backends are checked before anything is touched; then the state directory is locked, the
//! earlier run's state is taken over, the socket answers, and the loops start. Nothing waits for the API server: a node
//! that ran before forwards and serves CNI without it.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use kinesin_core::{
    capability::ThisMachine,
    combination::Selection,
    config::{Config, Sources},
    registry::Registry,
};
use kinesin_loader::OwnerLock;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    args::{Asked, Task},
    config_watch, device_watch,
    engine::Engine,
    listing, loops, memory, node,
    selection::{self, Backends},
    serve,
    store::Store,
    watches::Watches,
};

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
    let watches = Arc::new(Watches::new(&client, &node_name, backends.ipam.preferred().source.has_pools()));
    let facts = watches.pod_facts();
    let engine = Arc::new(Engine::new(config, node_name, backends, store, facts));
    if let Some(reason) = refused {
        engine.degradation.write().unwrap_or_else(PoisonError::into_inner).refused = Some(reason);
    }
    engine.restore().await?;

    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    serve::start(&engine, &watches, &mut tasks, &stop).await?;
    let devices = device_watch::open().await;
    tasks.spawn(device_watch::run(devices, engine.wakes.datapath.clone(), engine.controllers.clone(), stop.clone()));
    loops::start(&engine, &watches, &client, asked.sources, &mut tasks, &stop);
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
            for device in netlink.links().await?.into_iter().filter(|link| node::is_pod_device(&link.name)) {
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
