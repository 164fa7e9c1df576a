//! What travels over the agent's socket, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Base path of every request.
pub const BASE_PATH: &str = "/v1";

/// A request to create one endpoint: the body of `PUT /v1/endpoint/{id}`.
///
/// `{id}` is `cni-attachment-id:CONTAINERID:IFNAME`. Repeating the request with the same id is answered with the same
/// endpoint (CNI 1.1, section "ADD": a runtime may repeat).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointChangeRequest {
    /// The runtime's sandbox id, from `CNI_CONTAINERID`.
    pub container_id: String,
    /// Name of the interface inside the pod, from `CNI_IFNAME`.
    pub container_interface_name: String,
    /// Path of the pod's network namespace, from `CNI_NETNS`; informational.
    #[serde(default)]
    pub container_netns_path: String,
    /// Name of the host end (`lxc` + 12 hex digits).
    pub interface_name: String,
    /// Index of the host end in the node's namespace.
    pub interface_index: u32,
    /// MAC of the host end, `aa:bb:cc:dd:ee:ff`.
    pub host_mac: String,
    /// MAC of the pod's end.
    pub mac: String,
    /// Cookie of the pod's network namespace (`SO_NETNS_COOKIE`); 0 if the kernel does not tell.
    #[serde(default)]
    pub netns_cookie: u64,
    /// Namespace of the Pod, from `K8S_POD_NAMESPACE`; empty outside Kubernetes.
    #[serde(default)]
    pub k8s_namespace: String,
    /// Name of the Pod, from `K8S_POD_NAME`; empty outside Kubernetes.
    #[serde(default)]
    pub k8s_pod_name: String,
    /// UID of the Pod, from `K8S_POD_UID`; empty outside Kubernetes.
    #[serde(default)]
    pub k8s_uid: String,
}

impl EndpointChangeRequest {
    /// The id under which this endpoint is created and found: `cni-attachment-id:CONTAINERID:IFNAME`.
    #[must_use]
    pub fn attachment_id(&self) -> String {
        attachment_id(&self.container_id, &self.container_interface_name)
    }
}

/// Builds the id of an attachment as it stands in paths.
#[must_use]
pub fn attachment_id(container_id: &str, interface: &str) -> String {
    format!("cni-attachment-id:{container_id}:{interface}")
}

/// Path of an attachment's endpoint below [`BASE_PATH`], with what may not stand in a path percent-encoded.
///
/// Linux allows almost any byte in the name of an interface (RFC 3986 section 2.3 lists what needs no encoding).
///
/// # Examples
/// ```
/// let path = kinesin_agent_api::attachment_path("4f5e", "a?b");
/// assert_eq!(path, "/endpoint/cni-attachment-id:4f5e:a%3Fb");
/// ```
#[must_use]
pub fn attachment_path(container_id: &str, interface: &str) -> String {
    let mut path = "/endpoint/".to_owned();
    for byte in attachment_id(container_id, interface).bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => path.push(char::from(byte)),
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
    path
}

/// One endpoint, as `GET /v1/endpoint/{id}` and `PUT` answer it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Endpoint {
    /// Number of the endpoint on this node, 1 to 65535.
    pub id: u16,
    /// What the runtime asked for.
    pub spec: EndpointChangeRequest,
    /// What it got.
    pub status: EndpointStatus,
}

/// The state of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointStatus {
    /// `waiting-for-identity`, `regenerating`, `ready`, `restoring`, `disconnecting` or `not-ready`.
    pub state: EndpointState,
    /// Why the state is not `ready`; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Addresses and next hops of the pod.
    pub networking: EndpointNetworking,
    /// Security identity.
    pub identity: EndpointIdentity,
    /// Whether the endpoint was restored after a restart of the agent.
    #[serde(default)]
    pub restored: bool,
}

/// The states of an endpoint, in Cilium's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Known, nothing done yet.
    Creating,
    /// Saved by an earlier agent and not yet put back in place.
    Restoring,
    /// Its datapath is being written.
    Regenerating,
    /// Packets pass.
    Ready,
    /// Something failed; `message` says what.
    NotReady,
    /// Being removed.
    Disconnecting,
}

/// The security identity of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointIdentity {
    /// Number, as it stands in the datapath.
    pub id: u32,
    /// Labels, `source:key=value`, sorted.
    pub labels: Vec<String>,
}

/// Addresses of a pod and what the plugin must set up inside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointNetworking {
    /// Leased addresses: at most one per family, IPv4 first.
    pub addressing: Vec<AddressPair>,
    /// Next hop per family: the router address.
    pub gateways: Vec<std::net::IpAddr>,
    /// MAC that answers for the gateways: the host end's own.
    pub gateway_mac: String,
    /// MTU of the pod's device in bytes.
    pub device_mtu: u32,
    /// MTU of the pod's routes in bytes: device MTU less what the carriers add.
    pub route_mtu: u32,
    /// Whether the pod's kernel has to split UDP superpackets itself (`ethtool -K eth0 tx-udp-segmentation off`), which
    /// tunnels over a virtual underlay need.
    #[serde(default)]
    pub no_udp_segmentation: bool,
}

/// One leased address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AddressPair {
    /// The address; its prefix length in the pod is 32 or 128.
    pub ip: std::net::IpAddr,
    /// Pool it comes from.
    pub pool: String,
}

/// Body of `DELETE /v1/endpoint`: removes every endpoint of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointBatchDeleteRequest {
    /// The runtime's sandbox id.
    pub container_id: String,
    /// Only this interface; all of the container's when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container_interface_name: String,
}

/// Body of `POST /v1/endpoint/gc`: the attachments that the runtime still knows (CNI 1.1, "GC").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointGcRequest {
    /// Everything else that came through CNI is removed.
    pub valid_attachments: Vec<Attachment>,
}

/// One attachment of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

/// Every error answer of the agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ErrorBody {
    /// Machine-readable kind.
    pub kind: ErrorKind,
    /// What happened, to what, and what to do.
    pub message: String,
}

/// Kinds of errors that a client must tell apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request is wrong and will be wrong again.
    Invalid,
    /// No such thing.
    NotFound,
    /// It exists with other properties.
    Conflict,
    /// No address left: `range is full`.
    Exhausted,
    /// The agent starts, or a table is not ready: ask again.
    Unavailable,
    /// The kernel or the disk refused.
    #[default]
    Internal,
}

/// Answer of `GET /v1/healthz`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatusResponse {
    /// The agent itself.
    pub cilium: Status,
    /// Connection to the Kubernetes API.
    pub kubernetes: KubernetesStatus,
    /// Addresses, per family.
    pub ipam: IpamStatus,
    /// How packets reach other nodes.
    pub routing: RoutingStatus,
    /// Where the CNI configuration was written.
    pub cni_file: Status,
    /// Reconcilers, sorted by name.
    pub controllers: Vec<ControllerStatus>,
    /// How programs are attached: `TCX`, `Legacy TC`, or both with what each is for.
    pub attach_mode: String,
    /// Running backend per trait, such as `ipam: host_scope`.
    pub backends: BTreeMap<String, String>,
    /// Name of the node.
    pub node_name: String,
    /// Per drop reason: packets since the maps were made.
    pub drops: BTreeMap<String, u64>,
    /// Paths to all nodes; absent when nodes are not probed (`enable-health-checking: false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_health: Option<ClusterHealth>,
    /// Why CNI STATUS shall say that no ADD can be served; only with `cni-status-on-exhaustion`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses_add: Option<String>,
    /// Version of the agent.
    pub version: String,
}

/// State and message of one part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// `Ok`, `Warning`, `Failure` or `Disabled`.
    pub state: State,
    /// Detail.
    pub msg: String,
}

/// The states of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Works.
    Ok,
    /// Works with limits.
    Warning,
    /// Does not work.
    #[default]
    Failure,
    /// Not configured.
    Disabled,
}

/// Connection to the Kubernetes API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KubernetesStatus {
    /// State and server version.
    #[serde(flatten)]
    pub status: Status,
    /// Kinds that are watched, such as `cilium/v2::CiliumNode`.
    pub k8s_api_versions: Vec<String>,
}

/// Addresses in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct IpamStatus {
    /// Registry name of the backend.
    pub mode: String,
    /// Such as `3/254 allocated from 10.244.0.0/24`; absent when the family is off.
    pub ipv4: Option<String>,
    /// The same for IPv6.
    pub ipv6: Option<String>,
    /// Address, with `POOL/` before it unless that is the default one, to owner: `router`, `health`, `NAMESPACE/POD`, with ` [restored]` after a restart.
    pub allocations: BTreeMap<String, String>,
    /// Modes that only keep old leases, such as `host_scope: IPv4: 2/254 allocated from 10.244.0.0/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<String>,
    /// Pools without a free address, each with what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacking: Vec<String>,
}

/// How packets reach other nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RoutingStatus {
    /// `Native` or `Tunnel [vxlan]`.
    pub network: String,
    /// `BPF` or `Legacy`.
    pub host: String,
    /// Devices that carry it.
    pub devices: Vec<String>,
    /// Nodes that are reachable, ourselves left out.
    pub peers: usize,
    /// Peers that could not be routed, with the reason.
    pub unreachable: BTreeMap<String, String>,
    /// Who puts tunnels on and takes them off, for each tunnel and uplink; empty without tunnels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnel_paths: Vec<TunnelPath>,
    /// Nodes to which the way is narrower than this node's uplink: name to MTU and how it is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub path_mtus: BTreeMap<String, String>,
}

/// Who puts a tunnel on and takes it off by one uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TunnelPath {
    /// The tunnel: `vxlan` or `geneve`.
    pub carrier: String,
    /// The uplink.
    pub device: String,
    /// `bpf`, or `device` for the kernel's own.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// What probes of all nodes found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterHealth {
    /// Each node, this one too, sorted by name.
    pub nodes: Vec<NodeHealth>,
    /// How often a path that is well is probed, in seconds.
    pub probe_interval_seconds: u64,
    /// When the last probe ended, by RFC 3339; absent before the first one.
    pub probed_at: Option<String>,
}

/// The paths to one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Name of the node.
    pub name: String,
    /// Whether it is the answering node.
    pub local: bool,
    /// One per address.
    pub paths: Vec<PathHealth>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PathHealth {
    /// What it leads to.
    pub kind: PathKind,
    /// Its address.
    pub address: std::net::IpAddr,
    /// Whether anything answers; absent before the first probe.
    pub reachable: Option<bool>,
    /// ICMP echoes.
    pub icmp: Option<ProbeResult>,
    /// The responder on TCP.
    pub http: Option<ProbeResult>,
    /// Percent of echoes without an answer in the last twenty probes.
    pub loss_percent: Option<u32>,
    /// What is wrong and what to do about it.
    pub problem: Option<String>,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// The node's own address, probed from the node.
    Node,
    /// The node's health endpoint, probed from this node's health endpoint.
    Endpoint,
}

/// One probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ProbeResult {
    /// Time until the answer; absent when there was none.
    pub latency_microseconds: Option<u64>,
    /// Why there was none; empty when there was.
    pub error: String,
}

/// Health of one reconciler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ControllerStatus {
    /// Name.
    pub name: String,
    /// Seconds since the last success; absent when there was none.
    pub last_success_seconds: Option<u64>,
    /// Seconds since the last failure; absent when there was none.
    pub last_error_seconds: Option<u64>,
    /// Failures since the last success.
    pub consecutive_errors: u64,
    /// Last error's text; empty when healthy.
    pub message: String,
}

/// One peer in `GET /v1/cluster/nodes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClusterNode {
    /// Name of the node.
    pub name: String,
    /// Underlay addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Pod CIDRs.
    pub pod_cidrs: Vec<String>,
    /// Health endpoint's addresses.
    pub health: Vec<std::net::IpAddr>,
    /// Whether this is the answering node.
    pub local: bool,
}

/// One backend in `GET /v1/backends`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// `ipam`, `routing`, `loadBalancer`, `policy`, `masquerade` or `chassis`.
    pub r#trait: String,
    /// Registry name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// What it provides.
    pub provides: Vec<String>,
    /// What it needs.
    pub requires: Vec<String>,
    /// Whether the running config has chosen it.
    pub selected: bool,
}

/// Whether this machine can run one backend: a row of `kinesin doctor`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// `ipam`, `routing`, `loadBalancer`, `policy`, `masquerade` or `chassis`.
    pub r#trait: String,
    /// Registry name.
    pub name: String,
    /// What keeps this machine from running it, each with its remedy; empty when it can.
    pub problems: Vec<String>,
}

/// One line of `GET /v1/config`: an effective key, its value and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigEntry {
    /// Cilium-style key, such as `ipam` or `cluster-pool-ipv4-cidr`.
    pub key: String,
    /// Value as text.
    pub value: String,
    /// `default`, a file, an environment variable or a flag.
    pub source: String,
}

/// One row of the endpoint map, `GET /v1/bpf/endpoint`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BpfEndpoint {
    /// The address.
    pub ip: String,
    /// `(localhost)` entries are the node's own.
    pub host: bool,
    /// Endpoint id.
    pub id: u16,
    /// Security identity.
    pub sec_id: u32,
    /// Flag bits as in the map.
    pub flags: u32,
    /// Host end's index.
    pub ifindex: u32,
    /// MAC in the pod.
    pub mac: String,
    /// MAC of the host end.
    pub nodemac: String,
}

/// One row of the drop and forward counters, `GET /v1/bpf/metrics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfMetric {
    /// Reason's text.
    pub reason: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// Packets, all CPUs.
    pub packets: u64,
    /// Bytes, all CPUs.
    pub bytes: u64,
}
