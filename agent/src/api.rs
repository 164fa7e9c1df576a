//! The REST API on the agent's socket: paths and answers.

mod answer;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use kinesin_agent_api::types::{
    BASE_PATH, BpfEndpoint, BpfMetric, ClusterNode, ConfigEntry, EndpointBatchDeleteRequest, EndpointChangeRequest,
    EndpointGcRequest,
};
use kinesin_core::registry::Registry;

use crate::{
    endpoint::{lifecycle::Created, selector::Selector},
    engine::{Engine, EngineError},
    listing, metrics, status,
    watches::Watches,
};
use answer::{Refused, body, created, ok};

/// A garbage collection names every attachment of a node: some hundred bytes each.
const MAX_BODY_BYTES: usize = 16 << 20;

/// What handlers work on.
#[derive(Debug, Clone)]
struct App {
    engine: Arc<Engine>,
    watches: Arc<Watches>,
}

/// Everything on the socket.
pub(crate) fn router(engine: Arc<Engine>, watches: Arc<Watches>) -> Router {
    let endpoint = get(endpoint_get).put(endpoint_put).delete(endpoint_delete);
    let paths = Router::new()
        .route("/healthz", get(healthz))
        .route("/config", get(config))
        .route("/backends", get(backends))
        .route("/cluster/nodes", get(nodes))
        .route("/endpoint", get(endpoints).delete(endpoint_batch_delete))
        .route("/endpoint/gc", post(endpoint_gc))
        .route("/endpoint/{id}", endpoint)
        .route("/bpf/endpoint", get(bpf_endpoints))
        .route("/bpf/metrics", get(bpf_metrics))
        .route("/metrics", get(figures))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(App { engine, watches });
    Router::new().nest(BASE_PATH, paths).fallback(no_such_path)
}

/// Kubernetes' probes: whether the agent serves. Beside them the figures for Prometheus.
pub(crate) fn probes(engine: Arc<Engine>) -> Router {
    let ready = |State(engine): State<Arc<Engine>>| async move {
        let state = engine.state().await;
        match state.datapath(&engine.controllers) {
            Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        }
    };
    // Alive is who answers at all: killing an agent that waits for its pod CIDR would not help.
    let alive = || async { "ok\n" };
    let figures = |State(engine): State<Arc<Engine>>| async move { metrics::text(&engine).await };
    Router::new()
        .route("/readyz", get(ready))
        .route("/healthz", get(alive))
        .route("/metrics", get(figures))
        .with_state(engine)
}

type Answer = Result<Response, Refused>;

async fn healthz(State(app): State<App>) -> Answer {
    ok(&status::response(&app.engine, &app.watches).await)
}

async fn config(State(app): State<App>) -> Answer {
    let entries = app.engine.config.entries().iter().map(|entry| ConfigEntry {
        key: entry.key.clone(),
        value: entry.value.clone(),
        source: entry.source.clone(),
    });
    ok(&entries.collect::<Vec<_>>())
}

async fn backends(State(app): State<App>) -> Answer {
    let registry = Registry::collect().map_err(|error| Refused::internal(error.to_string()))?;
    ok(&listing::backends(&registry, &app.engine.config.selection))
}

async fn nodes(State(app): State<App>) -> Answer {
    let nodes = app.watches.nodes().into_iter().map(|node| ClusterNode {
        local: node.name == app.engine.node_name,
        addresses: node.addresses,
        pod_cidrs: node.pod_cidrs.iter().map(ToString::to_string).collect(),
        health: node.health,
        name: node.name,
    });
    ok(&nodes.collect::<Vec<_>>())
}

async fn endpoints(State(app): State<App>) -> Answer {
    let state = app.engine.state().await;
    let pods = state.endpoints.values().map(|running| running.view());
    ok(&pods.chain(state.health.iter().map(|health| health.view(&app.engine))).collect::<Vec<_>>())
}

async fn endpoint_get(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let selector = selector(&id)?;
    let state = app.engine.state().await;
    if let Some(health) = state.health.iter().find(|health| selector == Selector::Id(health.spec.id)) {
        return ok(&health.view(&app.engine));
    }
    let found = state.endpoints.values().find(|running| selector.matches(&running.record));
    ok(&found.ok_or_else(|| EngineError::NoEndpoint(selector.to_string()))?.view())
}

async fn endpoint_put(State(app): State<App>, Path(id): Path<String>, bytes: Bytes) -> Answer {
    let request: EndpointChangeRequest = body(&bytes)?;
    let expected = request.attachment_id();
    if id != expected {
        return Err(Refused::invalid(format!("the path names {id:?}, the body {expected:?}")));
    }
    // A client that goes away does not stop an ADD half-way.
    let engine = app.engine.clone();
    let outcome = tokio::spawn(async move { engine.create(request).await }).await;
    let (running, how) = outcome.map_err(|error| Refused::internal(error.to_string()))??;
    match how {
        Created::New => created(&running.view()),
        Created::Again => ok(&running.view()),
    }
}

async fn endpoint_delete(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let selector = selector(&id)?;
    let engine = app.engine.clone();
    let name = selector.to_string();
    let outcome = tokio::spawn(async move { engine.delete(&selector).await }).await;
    let found = outcome.map_err(|error| Refused::internal(error.to_string()))??;
    if found { ok(&()) } else { Err(EngineError::NoEndpoint(name).into()) }
}

async fn endpoint_batch_delete(State(app): State<App>, bytes: Bytes) -> Answer {
    let request: EndpointBatchDeleteRequest = body(&bytes)?;
    if request.container_id.is_empty() {
        return Err(Refused::invalid("container-id is empty; name the container".to_owned()));
    }
    let engine = app.engine.clone();
    let outcome = tokio::spawn(async move { engine.delete_batch(&request).await }).await;
    ok(&outcome.map_err(|error| Refused::internal(error.to_string()))??)
}

async fn endpoint_gc(State(app): State<App>, bytes: Bytes) -> Answer {
    let request: EndpointGcRequest = body(&bytes)?;
    let engine = app.engine.clone();
    let outcome = tokio::spawn(async move { engine.collect_garbage(&request).await }).await;
    ok(&outcome.map_err(|error| Refused::internal(error.to_string()))??)
}

async fn bpf_endpoints(State(app): State<App>) -> Answer {
    let rows = app.engine.backends.chassis.addresses().await.map_err(EngineError::from)?;
    let rows = rows.into_iter().map(|row| BpfEndpoint {
        ip: row.ip.to_string(),
        host: row.host,
        id: row.id,
        sec_id: row.identity.0,
        flags: row.flags,
        ifindex: row.ifindex,
        mac: row.mac.to_string(),
        nodemac: row.host_mac.to_string(),
    });
    ok(&rows.collect::<Vec<_>>())
}

async fn bpf_metrics(State(app): State<App>) -> Answer {
    let rows = app.engine.backends.chassis.counters().await.map_err(EngineError::from)?;
    let rows = rows.into_iter().map(|row| BpfMetric {
        reason: row.text,
        direction: row.direction.to_owned(),
        packets: row.packets,
        bytes: row.bytes,
    });
    ok(&rows.collect::<Vec<_>>())
}

async fn figures(State(app): State<App>) -> String {
    metrics::text(&app.engine).await
}

async fn no_such_path(request: axum::extract::Request) -> Response {
    Refused::not_found(format!("there is no {} {}", request.method(), request.uri().path())).into_response()
}

fn selector(id: &str) -> Result<Selector, Refused> {
    id.parse().map_err(|error: crate::endpoint::selector::SelectorError| Refused::invalid(error.to_string()))
}
