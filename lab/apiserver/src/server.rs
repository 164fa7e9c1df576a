//! Starting and stopping: listeners, connections, controllers.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::controllers;
use crate::error::StartError;
use crate::http::{Server, handle, stopped};
use crate::ops::Api;
use crate::store::{Disk, Store, WINDOW};

/// How long open requests may take to end at shutdown.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(2);

/// A range from which nodes get their pod CIDRs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodCidrRange {
    /// The range of the cluster, of either family.
    pub cidr: IpNet,
    /// Prefix length of each node's part.
    pub node_prefix: u8,
}

/// What a server is started with.
#[derive(Debug, Default)]
pub struct Config {
    /// Bound sockets, all served alike.
    pub listeners: Vec<TcpListener>,
    /// Where the state is kept; `None` is memory only. A killed server restarts with its state.
    pub data_dir: Option<PathBuf>,
    /// Ranges for the pod CIDRs of nodes, at most one per family.
    pub pod_cidrs: Vec<PodCidrRange>,
    /// Whether the cluster's controllers run. Without them, only namespaces and CRDs are looked
    /// after, since nothing works without those.
    pub controllers: bool,
}

/// A running server; dropping it stops it without waiting.
#[derive(Debug)]
pub struct ApiServer {
    addresses: Vec<SocketAddr>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl ApiServer {
    /// Starts serving; when this returns, the cluster has its namespaces and takes requests.
    ///
    /// # Errors
    /// [`StartError`] says which part of the configuration cannot be used.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        if config.listeners.is_empty() {
            return Err(StartError::NoListener);
        }
        let cidrs = controllers::NodeCidrs::new(&config.pod_cidrs)?;
        let store = match &config.data_dir {
            None => Store::in_memory(WINDOW),
            Some(dir) => {
                let (disk, revision, objects) = Disk::open(dir)?;
                Store::on_disk(WINDOW, disk, revision, objects)
            }
        };
        let (stopping, stopped) = watch::channel(false);
        let mut listeners = Vec::new();
        for listener in config.listeners {
            let wrap = |source| StartError::Listener { source };
            listener.set_nonblocking(true).map_err(wrap)?;
            listeners.push(tokio::net::TcpListener::from_std(listener).map_err(wrap)?);
        }
        let addresses = listeners.iter().filter_map(|l| l.local_addr().ok()).collect::<Vec<_>>();

        let api = Arc::new(Api::new(store));
        let mut tasks = JoinSet::new();
        controllers::start(&mut tasks, &api, cidrs, &addresses, config.controllers, &stopped);
        let server = Server { api, refusals: Arc::default(), stopping: stopped };
        for listener in listeners {
            tasks.spawn(accept(listener, server.clone()));
        }
        Ok(Self { addresses, stopping, tasks })
    }

    /// The addresses that are served, in the order of the listeners.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops: watches end, open requests are finished, and the listeners are closed.
    pub async fn shutdown(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: tokio::net::TcpListener, server: Server) {
    let mut connections = JoinSet::new();
    let mut stopping = server.stopping.clone();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => continue,
        };
        // Small answers must not wait for acknowledgements.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        connections.spawn(serve(stream, server.clone()));
    }
    // A client that never finishes its request must not hold the server up.
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        tracing::debug!("connections were cut off at shutdown");
    }
}

async fn serve(stream: tokio::net::TcpStream, server: Server) {
    let mut stopping = server.stopping.clone();
    let service = service_fn(move |request| handle(server.clone(), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended");
    }
}
