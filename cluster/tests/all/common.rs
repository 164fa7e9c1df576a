//! An API server in this process that can be stopped and started again on its port.

use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use kinesin_apiserver::{ApiServer, Config};
use kube::Client;
use tempfile::TempDir;

/// No wait is longer; the pause between two tries of a watch is 10 s at most.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

pub(crate) struct Cluster {
    server: Option<ApiServer>,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
    dir: TempDir,
}

impl Cluster {
    /// A running server.
    pub(crate) async fn start() -> Self {
        let mut cluster = Self::stopped().await;
        cluster.up().await;
        cluster
    }

    /// A server that is not there yet, and a client for it.
    pub(crate) async fn stopped() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let url = format!("http://{address}");
        let client = kinesin_cluster::connect(None, Some(&url)).await.expect("a client");
        Self { server: None, address, client, dir: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) async fn up(&mut self) {
        // The port is free for a moment between two lives; another process may hold it for as long.
        let listener = eventually("the port", async || TcpListener::bind(self.address).ok()).await;
        let data_dir = Some(self.dir.path().join("data"));
        let config = Config { listeners: vec![listener], data_dir, ..Config::default() };
        self.server = Some(ApiServer::start(config).await.expect("a server"));
    }

    pub(crate) async fn down(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
    }
}

/// Waits until `look` finds something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let found = tokio::time::timeout(LIMIT, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what} within {LIMIT:?}"))
}
