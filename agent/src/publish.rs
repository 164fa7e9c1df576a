//! What the node tells the cluster: its CiliumNode, and a CiliumEndpoint per pod.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kinesin_cluster::{ClusterError, EndpointPublication, EndpointPublisher, NodePublication};
use kinesin_core::{ipam::Owner, values::Identity};
use tokio::sync::Mutex;

use crate::{
    carriers::{Format, Said},
    endpoint::Running,
    engine::{Engine, State},
};

/// Names of the loops in `status`.
pub(crate) const NODE: &str = "publish-node";
/// How often the node is published although nothing has changed. An object that was deleted is missed far sooner.
const REPEAT: Duration = Duration::from_secs(300);
/// See [`NODE`].
pub(crate) const ENDPOINTS: &str = "publish-endpoints";

/// What the node says of itself, its ranges left out; nothing before its Node object was seen.
///
/// Said before the datapath is ready, because in most modes the operator gives blocks only to a node that is there.
pub(crate) fn node(engine: &Engine, state: &State) -> Option<NodePublication> {
    if state.node.uid.is_empty() {
        // Without the uid of its Node the publication would outlive it.
        return None;
    }
    // An agent that starts again says what its predecessor said until it knows better: peers must not lose it.
    let leased = |owner: Owner| {
        let of_owner = state.node.leases.iter().filter(move |lease| lease.owner == owner);
        of_owner.flat_map(|lease| lease.addresses.iter().map(|leased| leased.ip)).collect::<Vec<_>>()
    };
    let router = state.datapath.as_ref().map(|datapath| datapath.gateways());
    // The others may send what is announced, so only what the datapath does already; to a new node nobody sends anything.
    let said = if state.node.announced.prefers.is_some() {
        state.node.announced.clone()
    } else {
        let own = Format::new(engine.backends.routing.preferred().carrier(), engine.config.tunnel_port);
        Said { prefers: Some(own), accepts: [own].into() }
    };
    let (carrier, accepts) = said.texts();
    let health = state.health.as_ref().map(|health| health.spec.addresses.clone());
    Some(NodePublication {
        name: engine.node_name.clone(),
        node_uid: Some(state.node.uid.clone()),
        labels: state.node.labels.clone(),
        internal_ips: state.node.internal_ips.clone(),
        router: router.unwrap_or_else(|| leased(Owner::Router)),
        health: health.unwrap_or_else(|| leased(Owner::Health)),
        carrier,
        accepts,
        mtu: state.node.mtu_bytes.map(|bytes| bytes.to_string()).unwrap_or_default(),
        ipam_mode: engine.backends.ipam.preferred().source.mode().to_owned(),
        boot_id: boot_id(),
    })
}

/// What the node says of its pods.
pub(crate) fn endpoints(state: &State) -> Vec<EndpointPublication> {
    let Some(node_ip) = state.node.internal_ips.first().copied() else { return Vec::new() };
    let pods = state.endpoints.values().filter(|running| !running.record.request.k8s_pod_name.is_empty());
    pods.map(|running| publication(running, node_ip)).collect()
}

fn publication(running: &Running, node_ip: IpAddr) -> EndpointPublication {
    let record = &running.record;
    let view = running.view();
    EndpointPublication {
        namespace: record.request.k8s_namespace.clone(),
        pod_name: record.request.k8s_pod_name.clone(),
        pod_uid: record.request.k8s_uid.clone(),
        id: record.id.0,
        identity: Identity::INIT.0,
        labels: view.status.identity.labels,
        addresses: record.addresses(),
        node_ip,
        container_id: record.request.container_id.clone(),
        attachment_id: record.attachment(),
        state: serde_json::to_value(running.state)
            .ok()
            .and_then(|word| word.as_str().map(str::to_owned))
            .unwrap_or_default(),
    }
}

fn boot_id() -> String {
    // Without procfs it is not known, which the publication can say.
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Tells the cluster of the node, and remembers what it told: the same again costs no request for a while.
pub(crate) struct Node {
    engine: Arc<Engine>,
    client: kube::Client,
    last: Mutex<Option<(Instant, NodePublication)>>,
}

impl Node {
    pub(crate) fn new(engine: Arc<Engine>, client: kube::Client) -> Self {
        Self { engine, client, last: Mutex::default() }
    }

    /// Writes what has changed, and everything after [`REPEAT`], in case somebody else changed it.
    pub(crate) async fn publish(&self) -> Result<(), ClusterError> {
        let Some(publication) = node(&self.engine, &*self.engine.state().await) else { return Ok(()) };
        let mut last = self.last.lock().await;
        if self.engine.node_missing.swap(false, Ordering::SeqCst) {
            *last = None;
        }
        if last.as_ref().is_some_and(|(when, told)| when.elapsed() < REPEAT && *told == publication) {
            return Ok(());
        }
        *last = None;
        kinesin_cluster::publish_node(&self.client, &publication).await?;
        *last = Some((Instant::now(), publication));
        Ok(())
    }
}

/// Tells the cluster of the node's pods, and remembers what it told.
pub(crate) struct Endpoints {
    engine: Arc<Engine>,
    client: kube::Client,
    publisher: Mutex<Option<(IpAddr, EndpointPublisher)>>,
}

impl Endpoints {
    pub(crate) fn new(engine: Arc<Engine>, client: kube::Client) -> Self {
        Self { engine, client, publisher: Mutex::default() }
    }

    /// Writes what has changed.
    pub(crate) async fn publish(&self) -> Result<(), ClusterError> {
        let (node_ip, publications) = {
            let state = self.engine.state().await;
            if state.datapath.is_none() {
                return Ok(());
            }
            (state.node.internal_ips.first().copied(), endpoints(&state))
        };
        let Some(node_ip) = node_ip else { return Ok(()) };
        let mut known = self.publisher.lock().await;
        let mut publisher = match known.take() {
            Some((ip, publisher)) if ip == node_ip => publisher,
            _ => EndpointPublisher::new(self.client.clone(), node_ip),
        };
        let outcome = publisher.publish(&publications).await;
        if outcome.is_ok() {
            // After a failure the next one starts from what the cluster has.
            *known = Some((node_ip, publisher));
        }
        outcome.map(drop)
    }
}
