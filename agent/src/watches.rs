//! What the agent watches of the cluster, and what it takes from it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use kinesin_agent_api::types::{State as Word, Status};
use kinesin_cluster::{ClusterNode, OwnCiliumNode, OwnNode, Table, WatchHealth};
use tokio_util::sync::CancellationToken;

use crate::{
    carriers::Said,
    engine::Engine,
    ipam::{
        self,
        pool::{Known, PodFacts, PodTables},
    },
    path_mtu,
    store::PeerRecord,
};

/// What the agent watches and has to say of it.
#[derive(Debug)]
pub(crate) struct Watches {
    pub(crate) own_node: Table<OwnNode>,
    pub(crate) nodes: Table<ClusterNode>,
    own_cilium_node: Table<OwnCiliumNode>,
    /// Watched only for modes in which Pods name pools.
    pub(crate) pods: Option<Arc<PodTables>>,
    server_version: RwLock<String>,
    cni_file: RwLock<Status>,
}

impl Watches {
    /// Begins to watch, Pods and their pools only if a mode `has_pools`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn new(client: &kube::Client, node_name: &str, has_pools: bool) -> Self {
        let pods = has_pools.then(|| {
            Arc::new(PodTables {
                pods: kinesin_cluster::watch_local_pods(client.clone(), node_name),
                namespaces: kinesin_cluster::watch_namespaces(client.clone()),
                pools: kinesin_cluster::watch_pod_ip_pools(client.clone()),
            })
        });
        Self {
            own_node: kinesin_cluster::watch_own_node(client.clone(), node_name),
            nodes: kinesin_cluster::watch_cluster_nodes(client.clone()),
            own_cilium_node: kinesin_cluster::watch_own_cilium_node(client.clone(), node_name),
            pods,
            server_version: RwLock::default(),
            cni_file: RwLock::new(Status {
                state: Word::Disabled,
                msg: "not written yet: the agent is starting".to_owned(),
            }),
        }
    }

    /// Where the annotations of Pods are looked up.
    pub(crate) fn pod_facts(&self) -> Arc<dyn PodFacts> {
        self.pods.clone().map_or_else(|| Arc::new(NoPools) as _, |tables| tables as _)
    }

    /// Whether each watch is kept up to date.
    pub(crate) fn health(&self) -> Vec<WatchHealth> {
        let mut all = vec![self.own_node.health(), self.nodes.health(), self.own_cilium_node.health()];
        all.extend(
            self.pods
                .iter()
                .flat_map(|tables| [tables.pods.health(), tables.namespaces.health(), tables.pools.health()]),
        );
        all
    }

    /// `1.32 (v1.32.0) [linux/amd64]`; empty before the API server told.
    pub(crate) fn server_version(&self) -> String {
        self.server_version.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the CNI configuration is.
    pub(crate) fn cni_file(&self) -> Status {
        self.cni_file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what the API server told of itself.
    pub(crate) fn note_server_version(&self, version: String) {
        *self.server_version.write().unwrap_or_else(PoisonError::into_inner) = version;
    }

    /// Notes what became of the CNI configuration.
    pub(crate) fn note_cni_file(&self, status: Status) {
        *self.cni_file.write().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The watch of the nodes that this node knows.
    pub(crate) fn cluster_nodes(&self) -> Table<ClusterNode> {
        self.nodes.clone()
    }

    /// The nodes that this node knows.
    pub(crate) fn nodes(&self) -> Vec<ClusterNode> {
        self.nodes.snapshot().items.values().cloned().collect()
    }

    /// Takes over what the tables say; what they do not know yet stays as it was. The answer is whether the node's blocks are
    /// others than before.
    pub(crate) async fn take(&self, engine: &Engine) -> bool {
        let own = self.own_node.snapshot();
        let nodes = self.nodes.snapshot();
        let cilium = self.own_cilium_node.snapshot();
        let mut state = engine.state().await;
        let before = state.said.clone();
        // One that cannot be read at all says nothing; what it said before holds.
        if cilium.synced && cilium.rejected.is_empty() {
            let own = cilium.items.get(&engine.node_name).cloned().unwrap_or_default();
            if state.said.own.as_ref() != Some(&own) {
                for problem in &own.problems {
                    tracing::warn!(problem, "an entry of this node's CiliumNode cannot be used");
                }
                state.said.own = Some(own);
            }
        }
        if let Some(node) = own.items.get(&engine.node_name) {
            state.said.node_cidrs = Some(node.pod_cidrs.clone());
            state.node.internal_ips.clone_from(&node.internal_ips);
            state.node.uid.clone_from(&node.uid);
            state.node.labels.clone_from(&node.labels);
        }
        state.said.pools = self.pods.as_ref().and_then(|tables| tables.existing_pools());
        ipam::publish::take(engine, &mut state);
        // What is known now is enough to tell the cluster of this node, and the operator may have to hear of it first.
        engine.wakes.node.notify_one();
        if nodes.synced {
            let own = nodes.items.get(&engine.node_name);
            state.node.created_unix_seconds = own.and_then(|node| node.created_unix_seconds);
            let peers = nodes.items.iter().filter(|(name, _)| **name != engine.node_name);
            let mut refused = BTreeMap::new();
            let peers = peers.map(|(name, node)| {
                let mtu_bytes = path_mtu::parse(&node.mtu, engine.config.families).unwrap_or_else(|reason| {
                    refused.insert(name.clone(), reason);
                    None
                });
                let record = PeerRecord {
                    addresses: node.addresses.clone(),
                    pod_cidrs: node.pod_cidrs.clone(),
                    health: node.health.clone(),
                    carriers: Said::parse(&node.carrier, &node.accepts),
                    created_unix_seconds: node.created_unix_seconds,
                    mtu_bytes,
                };
                (name.clone(), record)
            });
            state.node.peers = peers.collect();
            path_mtu::note_refused(&mut state, refused);
        }
        state.said.has_other_blocks(&before)
    }
}

/// Knows no Pod, and is never asked: the mode has no pools.
#[derive(Debug)]
struct NoPools;

impl PodFacts for NoPools {
    fn look_up(&self, _: &str, _: &str) -> Known {
        Known::default()
    }
}

/// Wakes whom a change of the node's CiliumNode concerns: most are this agent's own words, which need no pass over the
/// datapath.
pub(crate) async fn follow_own_cilium_node(engine: Arc<Engine>, watches: Arc<Watches>, stop: CancellationToken) {
    let mut table = watches.own_cilium_node.clone();
    loop {
        tokio::select! {
            () = table.changed() => {}
            () = stop.cancelled() => return,
        }
        if watches.take(&engine).await {
            engine.wakes.datapath.notify_one();
        } else {
            engine.space_changed();
        }
    }
}
