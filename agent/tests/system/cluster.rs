//! The API servers of a test: the lab's, and one that answers nonsense.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use k8s_openapi::api::core::v1::Node as NodeObject;
use kinesin_apiserver::{ApiServer, Config};
use kinesin_cluster::{CiliumEndpoint, CiliumNode};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use tempfile::TempDir;

use crate::node::{ADDRESSES, API, NAME, Node, until};

/// Name, addresses and pod CIDRs of another node.
pub(crate) const PEER: &str = "n2";
pub(crate) const PEER_ADDRESSES: [&str; 2] = ["192.168.10.101", "fd00:192:168:10::101"];
pub(crate) const PEER_CIDRS: [&str; 2] = ["10.244.2.0/24", "fd00:10:244:2::/64"];
/// Pod CIDRs of a usual node.
pub(crate) const CIDRS: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

/// An API server that keeps its objects over restarts.
pub(crate) struct Cluster {
    server: Option<ApiServer>,
    client: Option<kube::Client>,
    data: TempDir,
}

impl Cluster {
    /// A cluster with the definitions, and without nodes.
    pub(crate) fn empty(node: &Node) -> Self {
        let data = tempfile::tempdir().expect("directory");
        let mut cluster = Self { server: None, client: None, data };
        cluster.start(node);
        let client = cluster.client();
        node.runtime.block_on(kinesin_cluster::install_crds(client)).expect("definitions");
        cluster
    }

    /// A cluster in which the node has these pod CIDRs.
    pub(crate) fn new(node: &Node, cidrs: &[&str]) -> Self {
        let cluster = Self::empty(node);
        cluster.create_node(node, cidrs);
        cluster
    }

    /// Serves, with the objects of before.
    pub(crate) fn start(&mut self, node: &Node) {
        let inside = listen(node);
        // The test does not live on the node.
        let beside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let url = format!("http://{}", beside.local_addr().expect("address"));
        let config = Config {
            listeners: vec![inside, beside],
            data_dir: Some(self.data.path().to_owned()),
            pod_cidrs: Vec::new(),
            controllers: false,
        };
        node.runtime.block_on(async {
            self.server = Some(ApiServer::start(config).await.expect("API server"));
            self.client = Some(kinesin_cluster::connect(None, Some(&url)).await.expect("client"));
        });
    }

    /// Is gone from now on: connections break, new ones are refused.
    pub(crate) fn stop(&mut self, node: &Node) {
        self.client = None;
        let server = self.server.take().expect("it serves");
        node.runtime.block_on(server.shutdown());
    }

    fn client(&self) -> &kube::Client {
        self.client.as_ref().expect("it serves")
    }

    /// Creates the Node object; no `cidrs` means that nobody has given it any yet.
    pub(crate) fn create_node(&self, node: &Node, cidrs: &[&str]) {
        let spec = if cidrs.is_empty() { json!({}) } else { json!({"podCIDR": cidrs[0], "podCIDRs": cidrs}) };
        let addresses = ADDRESSES.map(|address| json!({"type": "InternalIP", "address": address}));
        let object: NodeObject = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME},
            "spec": spec, "status": {"addresses": addresses},
        }))
        .expect("a Node");
        let nodes: Api<NodeObject> = Api::all(self.client().clone());
        node.runtime.block_on(async {
            let mut made = nodes.create(&PostParams::default(), &object).await.expect("created");
            made.status = object.status;
            nodes.replace_status(NAME, &PostParams::default(), &made).await.expect("status");
        });
    }

    /// The node leaves the cluster and joins it again with other pod CIDRs, the only way in which they change.
    pub(crate) fn replace_node(&self, node: &Node, cidrs: &[&str]) {
        let nodes: Api<NodeObject> = Api::all(self.client().clone());
        node.runtime.block_on(nodes.delete(NAME, &DeleteParams::default())).expect("deleted");
        self.create_node(node, cidrs);
    }

    /// Another node, which is to be reached by `carrier`, and accepts it and `native`.
    pub(crate) fn set_peer(&self, node: &Node, carrier: &str) {
        let object: CiliumNode = serde_json::from_value(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode",
            "metadata": {"name": PEER, "annotations": {
                "routing.kinesin.io/prefers": carrier, "routing.kinesin.io/accepts": format!("native,{carrier}"),
            }},
            "spec": {
                "addresses": PEER_ADDRESSES.map(|ip| json!({"type": "InternalIP", "ip": ip})),
                "ipam": {"podCIDRs": PEER_CIDRS},
            },
        }))
        .expect("a CiliumNode");
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        node.runtime.block_on(async {
            if nodes.get_opt(PEER).await.expect("asked").is_none() {
                nodes.create(&PostParams::default(), &object).await.expect("created");
            } else {
                nodes.patch(PEER, &PatchParams::default(), &Patch::Merge(&object)).await.expect("changed");
            }
        });
    }

    /// Writes an annotation of the other node's CiliumNode.
    pub(crate) fn annotate_peer(&self, node: &Node, key: &str, value: &str) {
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        let patch = json!({"metadata": {"annotations": {key: value}}});
        node.runtime
            .block_on(nodes.patch(PEER, &PatchParams::default(), &Patch::Merge(&patch)))
            .expect("the other node is there");
    }

    /// An annotation of the CiliumNode that the agent has published.
    pub(crate) fn annotation(&self, node: &Node, key: &str) -> Option<String> {
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        let found = node.runtime.block_on(nodes.get_opt(NAME)).expect("asked");
        found?.metadata.annotations?.remove(key)
    }

    /// Creates a node that says nothing of carriers.
    pub(crate) fn create_other(&self, node: &Node, name: &str, ips: &[String], cidrs: &[&str]) {
        let addresses: Vec<_> = ips.iter().map(|ip| json!({"type": "InternalIP", "ip": ip})).collect();
        let object: CiliumNode = serde_json::from_value(json!({
            "apiVersion": "cilium.io/v2", "kind": "CiliumNode", "metadata": {"name": name},
            "spec": {"addresses": addresses, "ipam": {"podCIDRs": cidrs}},
        }))
        .expect("a CiliumNode");
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        node.runtime.block_on(nodes.create(&PostParams::default(), &object)).expect("created");
    }

    /// Deletes such a node.
    pub(crate) fn delete_other(&self, node: &Node, name: &str) {
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        node.runtime.block_on(nodes.delete(name, &DeleteParams::default())).expect("deleted");
    }

    /// Pod CIDRs that the agent has published; none before it has.
    pub(crate) fn published_cidrs(&self, node: &Node) -> Vec<String> {
        let nodes: Api<CiliumNode> = Api::all(self.client().clone());
        let found = node.runtime.block_on(nodes.get_opt(NAME)).expect("asked");
        found.and_then(|found| found.spec.ipam).and_then(|ipam| ipam.pod_cidrs).unwrap_or_default()
    }

    /// Names of the published endpoints.
    pub(crate) fn published_endpoints(&self, node: &Node) -> Vec<String> {
        let endpoints: Api<CiliumEndpoint> = Api::all(self.client().clone());
        let found = node.runtime.block_on(endpoints.list(&ListParams::default())).expect("asked");
        found.items.into_iter().filter_map(|found| found.metadata.name).collect()
    }
}

/// Listens where the node looks for the API server.
fn listen(node: &Node) -> TcpListener {
    let mut listener = None;
    // A program that is being started keeps copies of open sockets for a moment, those of an earlier server as well.
    until("the port is free", || {
        listener = node.netns.run(|| TcpListener::bind(API)).expect("enter").ok();
        listener.is_some()
    });
    listener.expect("until it is there")
}

/// A server that answers every request with the same bytes.
pub(crate) struct Nonsense {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Nonsense {
    /// Starts to answer where the API server should be.
    pub(crate) fn start(node: &Node, answer: &'static [u8]) -> Self {
        let listener = listen(node);
        listener.set_nonblocking(true).expect("socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(2));
                    continue;
                };
                // Whoever it was may be gone already.
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Nonsense {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
