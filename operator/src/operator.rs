//! One replica: ports, election, and the work of a leader.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use kinesin_cluster::install_crds;
use kube::Client;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::{
    collect::{Collector, EndpointCollector, NodeCollector, Scoped},
    election::{Elector, Holder, LEASE, Timing},
    http,
    ipam::{self, IpamSettings},
    reload,
    state::{Collected, State},
};

/// Between two tries of work that failed.
const RETRY: Duration = Duration::from_secs(5);

/// What an operator is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of this replica in the lease.
    pub identity: String,
    /// Durations of the election.
    pub timing: Timing,
    /// Between two looks for CiliumNodes without a Node; `None` is never.
    pub nodes_interval: Option<Duration>,
    /// Between two looks for CiliumEndpoints without a Pod; `None` is never.
    pub endpoints_interval: Option<Duration>,
    /// For how long an object must have been found orphaned before it is deleted.
    pub grace: Duration,
    /// What nodes get addresses of.
    pub ipam: IpamSettings,
    /// The mounted ConfigMap, which is followed.
    pub config_dir: Option<PathBuf>,
    /// Whether the definitions are installed.
    pub install_crds: bool,
    /// Address of the health port.
    pub health_address: String,
    /// Address of the metrics port, if there is one.
    pub metrics_address: Option<String>,
}

/// Requests of IPAM, counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writes {
    /// Writes of PodCIDRClaims.
    pub claims: u64,
    /// Writes of the lists of CiliumNodes.
    pub nodes: u64,
    /// Writes of the status of CiliumNodes.
    pub reports: u64,
    /// CiliumNodes read and written so that nobody can publish by an old version.
    pub fences: u64,
    /// Reads.
    pub reads: u64,
    /// Writes that were refused because another had written.
    pub conflicts: u64,
    /// Requests that failed otherwise.
    pub failures: u64,
}

/// A running replica. Dropping it stops it at once, as a kill does: the lease is not given back.
#[derive(Debug)]
pub struct Operator {
    health: SocketAddr,
    metrics: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    election: JoinHandle<()>,
    ports: JoinSet<()>,
    state: Arc<State>,
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.election.abort();
    }
}

impl Operator {
    /// Opens the ports and takes part in the election. An API server that is away is waited for.
    ///
    /// # Errors
    /// If a port cannot be opened.
    pub async fn start(client: Client, settings: Settings) -> anyhow::Result<Self> {
        let state = Arc::new(State::new());
        let mut ports = JoinSet::new();
        let (listener, health) = http::listen("health", "operator-api-serve-addr", &settings.health_address).await?;
        ports.spawn(http::serve_health(listener, Arc::clone(&state)));
        let mut metrics = None;
        if let Some(address) = &settings.metrics_address {
            let (listener, bound) = http::listen("metrics", "operator-prometheus-serve-addr", address).await?;
            ports.spawn(http::serve_metrics(listener, Arc::clone(&state)));
            metrics = Some(bound);
        }
        let (stop, stopping) = watch::channel(false);
        let (ipam, follow) = watch::channel(settings.ipam.clone());
        match &settings.config_dir {
            Some(directory) => drop(ports.spawn(reload::follow(directory.clone(), ipam, Arc::clone(&state)))),
            // Kept, so that there is somebody who could send.
            None => drop(ports.spawn(async move { ipam.closed().await })),
        }
        let election = tokio::spawn(elect(client, settings, follow, Arc::clone(&state), stopping));
        Ok(Self { health, metrics, stop, election, ports, state })
    }

    /// Where health is served.
    #[must_use]
    pub fn health_address(&self) -> SocketAddr {
        self.health
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Whether this replica leads now.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.state.leader.load(Relaxed)
    }

    /// Requests of IPAM so far.
    #[must_use]
    pub fn writes(&self) -> Writes {
        let written = &self.state.ipam.written;
        Writes {
            claims: written.claims.load(Relaxed),
            nodes: written.nodes.load(Relaxed),
            reports: written.reports.load(Relaxed),
            fences: written.fences.load(Relaxed),
            reads: written.reads.load(Relaxed),
            conflicts: written.conflicts.load(Relaxed),
            failures: written.failures.load(Relaxed),
        }
    }

    /// Stops the work, then gives the lease back.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.election).await {
            tracing::error!(%error, "the election ended by itself");
        }
        self.ports.shutdown().await;
    }
}

async fn elect(
    client: Client,
    settings: Settings,
    ipam: watch::Receiver<IpamSettings>,
    state: Arc<State>,
    mut stopping: watch::Receiver<bool>,
) {
    let timing = settings.timing;
    let mut elector = Elector::new(client.clone(), &settings.namespace, &settings.identity, timing);
    tracing::info!(
        identity = settings.identity,
        namespace = settings.namespace,
        lease = LEASE,
        "taking part in the election"
    );
    loop {
        let won = tokio::select! {
            won = acquire(&mut elector, timing, &state) => won,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        tracing::info!("leading");
        state.set_term_end(won + timing.renew);
        state.leader.store(true, Relaxed);
        state.terms.fetch_add(1, Relaxed);
        // Whichever ends first drops the others, so no work goes on without the lease.
        let stopped = tokio::select! {
            () = renew(&mut elector, timing, &state, won) => false,
            () = lead(&client, &settings, &ipam, &state) => false,
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        state.leader.store(false, Relaxed);
        if stopped {
            break;
        }
        tracing::warn!("not leading any more; the work is stopped");
    }
    match elector.release().await {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::warn!(error = error.line(), "the lease could not be given back; it expires by itself"),
    }
}

/// Tries until the lease is ours; answers the moment before the request that got it.
async fn acquire(elector: &mut Elector, timing: Timing, state: &State) -> Instant {
    let mut said = String::new();
    loop {
        state.beat();
        let before = Instant::now();
        let news = match elector.take().await {
            Ok(Holder::Us) => return before,
            Ok(Holder::Other(holder)) => format!("waiting: {holder} leads"),
            Err(error) => {
                state.lease_failures.fetch_add(1, Relaxed);
                format!("waiting for the API server: {}", error.line())
            }
        };
        // Once for each reason, not every two seconds.
        if news != said {
            tracing::info!("{news}");
            said = news;
        }
        tokio::time::sleep(timing.retry).await;
    }
}

/// Renews the lease for as long as that works; ends when it is lost.
async fn renew(elector: &mut Elector, timing: Timing, state: &State, mut renewed: Instant) {
    loop {
        tokio::time::sleep(timing.retry).await;
        state.beat();
        let before = Instant::now();
        let deadline = renewed + timing.renew;
        match tokio::time::timeout_at(deadline, elector.take()).await {
            Ok(Ok(Holder::Us)) => {
                renewed = before;
                state.set_term_end(renewed + timing.renew);
            }
            Ok(Ok(Holder::Other(holder))) => {
                tracing::warn!(holder, "the lease was lost");
                return;
            }
            Ok(Err(error)) => {
                state.lease_failures.fetch_add(1, Relaxed);
                tracing::warn!(error = error.line(), "the lease could not be renewed");
            }
            Err(_) => drop(state.lease_failures.fetch_add(1, Relaxed)),
        }
        if Instant::now() >= deadline {
            tracing::warn!(limit = ?timing.renew, "the lease was not renewed in time");
            return;
        }
    }
}

/// The work of a leader. Never ends by itself.
async fn lead(client: &Client, settings: &Settings, ipam: &watch::Receiver<IpamSettings>, state: &Arc<State>) {
    if settings.install_crds {
        while let Err(error) = define(client).await {
            tracing::warn!(error = error.line(), "cannot install the definitions");
            tokio::time::sleep(RETRY).await;
        }
    }
    let nodes = collect(NodeCollector::new(), "CiliumNode", settings.nodes_interval, client, settings, &state.nodes);
    let endpoints = collect(
        EndpointCollector::new(),
        "CiliumEndpoint",
        settings.endpoints_interval,
        client,
        settings,
        &state.endpoints,
    );
    tokio::join!(nodes, endpoints, ipam::run(client, ipam.clone(), state));
}

async fn define(client: &Client) -> Result<(), kinesin_cluster::ClusterError> {
    for (name, outcome) in install_crds(client).await? {
        tracing::info!(name, ?outcome, "definition");
    }
    Ok(())
}

/// Runs a collector at each interval, sooner after a failure.
async fn collect<O: Scoped, K: Scoped>(
    mut collector: Collector<O, K>,
    kind: &str,
    interval: Option<Duration>,
    client: &Client,
    settings: &Settings,
    counters: &Collected,
) {
    let Some(interval) = interval else { return std::future::pending().await };
    loop {
        let pause = match collector.run(client, settings.grace).await {
            Ok(deleted) => {
                counters.succeeded.fetch_add(1, Relaxed);
                counters.deleted.fetch_add(u64::try_from(deleted).unwrap_or(u64::MAX), Relaxed);
                interval
            }
            Err(error) => {
                counters.failed.fetch_add(1, Relaxed);
                tracing::warn!(kind, error = error.line(), "the collection failed and is tried again");
                interval.min(RETRY)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
