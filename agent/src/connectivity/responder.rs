//! The node's own answer to probes: `GET /hello` on its addresses in Kubernetes, and only on those.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};

use axum::{Router, routing::get};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Engine;

/// Where the node listens.
#[derive(Debug, Default)]
pub(super) struct Responders {
    listening: BTreeMap<IpAddr, AbortOnDropHandle<()>>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for probes of other nodes: {source}; free the port, or choose another with the key cluster-health-port"
)]
pub(super) struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

impl Responders {
    /// Listens on the addresses that the node has now, and no longer on others.
    pub(super) async fn keep(&mut self, engine: &Engine) -> Result<(), ListenError> {
        let addresses = engine.state().await.node.internal_ips.clone();
        self.listening.retain(|address, _| addresses.contains(address));
        let mut failed = None;
        for ip in addresses {
            if self.listening.contains_key(&ip) {
                continue;
            }
            let address = SocketAddr::new(ip, engine.config.health.port);
            match TcpListener::bind(address).and_then(answer_hello) {
                Ok(task) => drop(self.listening.insert(ip, task)),
                Err(source) => failed = Some(ListenError { address, source }),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Answers on a listener as cilium-health's responder does, until the handle is dropped.
pub(crate) fn answer_hello(listener: TcpListener) -> io::Result<AbortOnDropHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        let app = Router::new().route("/hello", get(|| async {}));
        // Ends with the task only: accept errors are retried inside.
        let _ = axum::serve(listener, app).await;
    })))
}
