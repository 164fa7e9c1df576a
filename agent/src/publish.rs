//! What the node tells the cluster: its CiliumNode, and a CiliumEndpoint per pod.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use kinesin_cluster::{ClusterError, ClusterNode, EndpointPublication, EndpointPublisher, NodePublication, Table};
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
/// How long the watch may take to tell what was published.
const ECHO: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(100);
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
    /// What the cluster sees of it.
    nodes: Table<ClusterNode>,
    last: Mutex<Option<(Instant, NodePublication)>>,
}

impl Node {
    pub(crate) fn new(engine: Arc<Engine>, client: kube::Client, nodes: Table<ClusterNode>) -> Self {
        Self { engine, client, nodes, last: Mutex::default() }
    }

    /// Writes what has changed, what somebody else has written over, and everything after [`REPEAT`].
    pub(crate) async fn publish(&self) -> Result<(), ClusterError> {
        let Some(publication) = node(&self.engine, &*self.engine.state().await) else { return Ok(()) };
        let mut last = self.last.lock().await;
        if self.engine.node_missing.swap(false, Ordering::SeqCst) {
            *last = None;
        }
        if let Some((when, told)) = last.as_ref().filter(|(when, told)| when.elapsed() < REPEAT && *told == publication)
        {
            if !self.is_written_over(*when, told).await {
                return Ok(());
            }
            tracing::warn!(
                node = publication.name,
                "somebody has written over what this node says of itself; it is said again"
            );
        }
        *last = None;
        kinesin_cluster::publish_node(&self.client, &publication).await?;
        *last = Some((Instant::now(), publication));
        Ok(())
    }
}

impl Node {
    /// Whether the cluster sees something else than it was told. What was told a moment ago may not have come back yet, and
    /// is waited for as long as there is no news, which has a turn of its own.
    async fn is_written_over(&self, when: Instant, told: &NodePublication) -> bool {
        loop {
            if is_seen(told, self.nodes.snapshot().items.get(&told.name)) {
                return false;
            }
            if when.elapsed() >= ECHO {
                return true;
            }
            tokio::time::sleep(LOOK).await;
            if node(&self.engine, &*self.engine.state().await).as_ref() != Some(told) {
                return false;
            }
        }
    }
}

/// Whether the cluster sees the node as it told of itself. One that is not there, or not yet, is somebody else's concern.
fn is_seen(told: &NodePublication, seen: Option<&ClusterNode>) -> bool {
    let same =
        |one: &[IpAddr], other: &[IpAddr]| one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>();
    seen.is_none_or(|seen| {
        same(&told.internal_ips, &seen.addresses)
            && same(&told.router, &seen.router)
            && same(&told.health, &seen.health)
            // What the node does not tell belongs to whoever does.
            && [(&told.carrier, &seen.carrier), (&told.accepts, &seen.accepts), (&told.mtu, &seen.mtu)]
                .into_iter()
                .all(|(told, seen)| told.is_empty() || told == seen)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_written_over_is_seen() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let told = NodePublication {
            name: "w1".to_owned(),
            internal_ips: vec![ip("10.0.0.1"), ip("fd00::1")],
            router: vec![ip("10.244.0.1")],
            carrier: "vxlan:8472".to_owned(),
            ..NodePublication::default()
        };
        let seen = ClusterNode {
            name: "w1".to_owned(),
            // In another order, and with what the node does not tell.
            addresses: vec![ip("fd00::1"), ip("10.0.0.1")],
            router: told.router.clone(),
            health: Vec::new(),
            pod_cidrs: vec!["10.244.0.0/24".parse().expect("a network")],
            carrier: told.carrier.clone(),
            accepts: String::new(),
            mtu: "1400".to_owned(),
            created_unix_seconds: None,
            boot_id: String::new(),
            problems: Vec::new(),
        };
        assert!(is_seen(&told, None) && is_seen(&told, Some(&seen)));
        for other in [
            ClusterNode { addresses: vec![ip("10.0.0.1")], ..seen.clone() },
            ClusterNode { router: Vec::new(), ..seen.clone() },
            ClusterNode { health: vec![ip("10.244.0.2")], ..seen.clone() },
            ClusterNode { carrier: "nonsense".to_owned(), ..seen.clone() },
        ] {
            assert!(!is_seen(&told, Some(&other)), "{other:?}");
        }
    }
}
