//! What the agent does over and over, and what wakes it.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use kinesin_agent_api::types::{State as Word, Status};
use kinesin_cluster::Table;
use kinesin_core::config::Sources;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    cni_conf, config_watch, connectivity,
    controller::Loop,
    endpoint::replay,
    engine::Engine,
    ipam, path_mtu, publish, reconcile,
    watches::{self, Watches},
};

/// How often what is published is compared with the API although nothing is known to have changed.
const PUBLISH_PERIOD: Duration = Duration::from_secs(300);
/// How often the CNI configuration, the delete queue and the API server's version are looked at.
const UPKEEP_PERIOD: Duration = Duration::from_secs(10);

/// Starts all of them; each ends at `stop`.
pub(crate) fn start(
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
            watches.take(&engine).await;
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
    tasks.spawn(watches::follow_own_cilium_node(engine.clone(), watches.clone(), stop.clone()));
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
    watches.note_cni_file(status);
    written.map(drop).map_err(Into::into)
}

async fn ask_version(watches: &Watches, client: &kube::Client) -> anyhow::Result<()> {
    let found = client.apiserver_version().await.context("the API server does not tell its version")?;
    let text = format!("{}.{} ({}) [{}]", found.major, found.minor, found.git_version, found.platform);
    watches.note_server_version(text);
    Ok(())
}
