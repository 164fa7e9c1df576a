//! The two ports: health for the kubelet, metrics for Prometheus.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{Router, http::StatusCode, http::header, routing::get};
use tokio::net::TcpListener;

use crate::state::State;

/// Listens on an address such as `127.0.0.1:9234`, `[::1]:9234` or `:9963` (all addresses of both families).
pub(crate) async fn listen(purpose: &str, flag: &str, address: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let remedy = || format!("cannot serve {purpose} on {address:?}; free the port or give another with --{flag}");
    let listener = match address.strip_prefix(':') {
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => listener,
            // A machine without IPv6.
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await.with_context(remedy)?,
        },
        None => TcpListener::bind(address).await.with_context(remedy)?,
    };
    let bound = listener.local_addr().with_context(remedy)?;
    Ok((listener, bound))
}

/// Serves GET /healthz.
pub(crate) async fn serve_health(listener: TcpListener, state: Arc<State>) {
    let answer = async move || {
        if state.healthy() { (StatusCode::OK, "ok") } else { (StatusCode::INTERNAL_SERVER_ERROR, "the work is stuck") }
    };
    serve(listener, Router::new().route("/healthz", get(answer))).await;
}

/// Serves GET /metrics.
pub(crate) async fn serve_metrics(listener: TcpListener, state: Arc<State>) {
    let answer = async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics());
    serve(listener, Router::new().route("/metrics", get(answer))).await;
}

async fn serve(listener: TcpListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "a port is not served any more");
    }
}
