//! An agent that keeps endpoints in memory and answers as the real one does: repeated requests with the same endpoint,
//! refusals as typed bodies. It looks at the devices when it is asked, since the order of steps is part of the contract.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use kinesin_agent_api::{
    AddressPair, Endpoint, EndpointBatchDeleteRequest, EndpointChangeRequest, EndpointGcRequest, EndpointIdentity,
    EndpointNetworking, EndpointState, EndpointStatus, ErrorBody, ErrorKind, StatusResponse,
};
use kinesin_netlink::{NetNs, Netlink};
use tokio::runtime::Runtime;

/// What the agent does and has seen.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Endpoints by attachment id.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    /// Method and path of every request.
    pub(crate) requests: Vec<String>,
    /// Answer to PUT instead of creating.
    pub(crate) refuse_put: Option<(u16, ErrorBody)>,
    /// Answer to DELETE instead of deleting.
    pub(crate) refuse_delete: Option<(u16, ErrorBody)>,
    /// Answer to GET of one endpoint.
    pub(crate) refuse_get: Option<(u16, ErrorBody)>,
    /// Answer to PUT that is created but cannot be used.
    pub(crate) networking: Option<EndpointNetworking>,
    /// What the pod is changed to after each answer to PUT, as by an agent whose carriers change.
    pub(crate) changes: Vec<(u32, u32, bool)>,
    /// MAC that the pod gets instead of the plugin's.
    pub(crate) mac: Option<String>,
    /// Answer of the health check.
    pub(crate) health: StatusResponse,
    /// Whether host end and pod end were up at the last PUT.
    pub(crate) up_at_put: Option<bool>,
    next: u8,
}

#[derive(Debug, Clone)]
struct Agent {
    shared: Arc<Mutex<Shared>>,
    node: Arc<NetNs>,
}

/// The running agent; it stops when dropped.
#[derive(Debug)]
pub(crate) struct FakeAgent {
    shared: Arc<Mutex<Shared>>,
    runtime: Option<Runtime>,
}

impl FakeAgent {
    /// Listens on `socket` for the node `node`.
    pub(crate) fn start(socket: &Path, node: Arc<NetNs>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let mut shared = Shared::default();
        shared.health.cilium.state = kinesin_agent_api::State::Ok;
        let shared = Arc::new(Mutex::new(shared));
        let agent = Agent { shared: Arc::clone(&shared), node };
        let router = Router::new()
            .route("/v1/endpoint/{id}", put(create).get(find))
            .route("/v1/endpoint", delete(remove).get(list))
            .route("/v1/endpoint/gc", post(collect))
            .route("/v1/healthz", get(health))
            .with_state(agent);
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(socket).expect("socket") });
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { shared, runtime: Some(runtime) }
    }

    /// What it does and has seen.
    pub(crate) fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("no handler panicked")
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Agent {
    fn seen(&self, request: String) -> MutexGuard<'_, Shared> {
        let mut shared = self.shared.lock().expect("no handler panicked");
        shared.requests.push(request);
        shared
    }
}

fn refuse(refusal: &Option<(u16, ErrorBody)>) -> Option<Response> {
    refusal
        .as_ref()
        .map(|(status, body)| (StatusCode::from_u16(*status).expect("a status"), Json(body)).into_response())
}

fn not_found(id: &str) -> Response {
    let body = ErrorBody { kind: ErrorKind::NotFound, message: format!("endpoint {id:?} not found") };
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn create(
    State(agent): State<Agent>,
    UrlPath(id): UrlPath<String>,
    Json(request): Json<EndpointChangeRequest>,
) -> Response {
    let host = Netlink::in_netns(&agent.node).expect("socket").link(&request.interface_name).await.expect("host end");
    let mut shared = agent.seen(format!("PUT {id}"));
    assert_eq!((host.index, request.attachment_id()), (request.interface_index, id.clone()));
    shared.up_at_put = Some(host.up);
    if let Some(refusal) = refuse(&shared.refuse_put) {
        return refusal;
    }
    let change = shared.endpoints.contains_key(&id).then(|| shared.changes.pop()).flatten();
    if let Some(known) = shared.endpoints.get_mut(&id) {
        let answer = Json(&*known).into_response();
        if let Some((device_mtu, route_mtu, no_udp_segmentation)) = change {
            let networking = &mut known.status.networking;
            (networking.device_mtu, networking.route_mtu) = (device_mtu, route_mtu);
            networking.no_udp_segmentation = no_udp_segmentation;
        }
        return answer;
    }
    shared.next += 1;
    let number = shared.next;
    let pair = |ip: String| AddressPair { ip: ip.parse().expect("address"), pool: "default".to_owned() };
    let networking = shared.networking.clone().unwrap_or_else(|| EndpointNetworking {
        addressing: vec![pair(format!("10.1.0.{}", 100 + number)), pair(format!("fd00:1::{number:x}:1"))],
        gateways: vec!["10.1.0.1".parse().expect("ip"), "fd00:1::1".parse().expect("ip")],
        gateway_mac: request.host_mac.clone(),
        device_mtu: 1480,
        route_mtu: 1430,
        no_udp_segmentation: true,
    });
    let mut spec = request;
    if let Some(mac) = &shared.mac {
        spec.mac.clone_from(mac);
    }
    let status = EndpointStatus {
        state: EndpointState::Ready,
        message: String::new(),
        networking,
        identity: EndpointIdentity { id: 5, labels: Vec::new() },
        restored: false,
    };
    let endpoint = Endpoint { id: u16::from(number), spec, status };
    shared.endpoints.insert(id, endpoint.clone());
    (StatusCode::CREATED, Json(endpoint)).into_response()
}

async fn find(State(agent): State<Agent>, UrlPath(id): UrlPath<String>) -> Response {
    let shared = agent.seen(format!("GET {id}"));
    refuse(&shared.refuse_get).unwrap_or_else(|| match shared.endpoints.get(&id) {
        Some(endpoint) => Json(endpoint).into_response(),
        None => not_found(&id),
    })
}

async fn list(State(agent): State<Agent>) -> Json<Vec<Endpoint>> {
    Json(agent.seen("GET all".to_owned()).endpoints.values().cloned().collect())
}

async fn remove(State(agent): State<Agent>, Json(request): Json<EndpointBatchDeleteRequest>) -> Response {
    let mut shared = agent.seen(format!("DELETE {}:{}", request.container_id, request.container_interface_name));
    if let Some(refusal) = refuse(&shared.refuse_delete) {
        return refusal;
    }
    let before = shared.endpoints.len();
    shared.endpoints.retain(|_, endpoint| {
        let spec = &endpoint.spec;
        let any = request.container_interface_name.is_empty();
        spec.container_id != request.container_id
            || !(any || spec.container_interface_name == request.container_interface_name)
    });
    if shared.endpoints.len() == before { not_found(&request.container_id) } else { StatusCode::OK.into_response() }
}

async fn collect(State(agent): State<Agent>, Json(request): Json<EndpointGcRequest>) -> StatusCode {
    let mut shared = agent.seen("POST gc".to_owned());
    shared.endpoints.retain(|_, endpoint| {
        let spec = &endpoint.spec;
        request
            .valid_attachments
            .iter()
            .any(|valid| valid.container_id == spec.container_id && valid.ifname == spec.container_interface_name)
    });
    StatusCode::OK
}

async fn health(State(agent): State<Agent>) -> Json<StatusResponse> {
    Json(agent.seen("GET healthz".to_owned()).health.clone())
}
