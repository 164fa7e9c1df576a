//! Any cluster that a kubeconfig leads to: what is sent and answered is done by a worker in pods that the suite starts.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, Pod},
};
use kinesin_agent_api::types::BackendInfo;
use kinesin_core::{causes::with_causes, values::Families};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::runtime::{Handle, Runtime};

use super::{NodeInfo, PodInfo, Subject, Target, TargetCapability, agents};
use crate::cluster::{
    Stop,
    random::unique,
    worker::{Hands, RemoteHands},
};

/// How long the first pod may take; its image may have to be fetched.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);
/// The program in the image, and its hidden command.
const PROGRAM: &str = "kinesin";
/// Roles of backends, in the order in which combinations name them.
const ROLES: [&str; 6] = ["ipam", "routing", "loadBalancer", "policy", "masquerade", "chassis"];

/// How to reach a cluster, and what to start on it.
#[derive(Debug, Clone, Default)]
pub struct KubeOptions {
    /// The kubeconfig; without it KUBECONFIG, then ~/.kube/config, then the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the agents.
    pub namespace: String,
    /// An image with the program `kinesin` in its PATH; without it that of the agents.
    pub image: Option<String>,
}

/// A cluster behind a kubeconfig.
pub struct KubeTarget {
    client: Client,
    runtime: Runtime,
    namespace: String,
    image: String,
    families: Families,
    nodes: Vec<NodeInfo>,
    small_ranges: bool,
    backends: Vec<String>,
    subject: Subject,
}

impl KubeTarget {
    /// Looks at the cluster; nothing is changed but for one pod that is started and deleted, to see the families.
    ///
    /// # Errors
    /// What cannot be reached or found, in words.
    pub fn connect(options: &KubeOptions) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        let mut found = runtime.block_on(look(options))?;
        found.1.sort_by(|a, b| a.name.cmp(&b.name));
        let (client, nodes, image, subject) = found;
        let mut target = Self {
            client,
            runtime,
            namespace: options.namespace.clone(),
            image,
            families: Families { v4: false, v6: false },
            nodes,
            small_ranges: false,
            backends: Vec::new(),
            subject,
        };
        let ips = target.sample()?;
        target.families = Families { v4: ips.iter().any(IpAddr::is_ipv4), v6: ips.iter().any(IpAddr::is_ipv6) };
        let families = target.families;
        for node in &mut target.nodes {
            node.ips.retain(|ip| if ip.is_ipv4() { families.v4 } else { families.v6 });
        }
        target.small_ranges = target.has_small_ranges();
        target.ask_for_backends();
        Ok(target)
    }

    /// What runs there, as an agent tells, such as `host_scope-native-ebpf-dual`.
    #[must_use]
    pub fn combination(&self) -> String {
        let families = match (self.families.v4, self.families.v6) {
            (true, true) => "dual",
            (true, false) => "ipv4",
            _ => "ipv6",
        };
        let mut parts = self.backends.clone();
        if parts.is_empty() {
            parts.push("as-installed".to_owned());
        }
        parts.push(families.to_owned());
        parts.join("-")
    }

    /// Asks the first agent that is ready for the backends that it runs and for its version. Other implementations have
    /// no such agent, so not to be told is no error.
    fn ask_for_backends(&mut self) {
        let Ok(pods) = agents::list(self.runtime.handle(), &self.client, &self.namespace) else { return };
        let Some(node) = pods.into_iter().find(agents::is_ready).and_then(|pod| pod.spec?.node_name) else { return };
        let ask = |words: &[&str]| {
            let text = agents::ask(self.runtime.handle(), &self.client, &self.namespace, &node, words).ok()?;
            serde_json::from_str::<Value>(&text).ok()
        };
        let backends = ask(&[PROGRAM, "backends", "-o", "json"]).and_then(|told| serde_json::from_value(told).ok());
        let backends: Vec<BackendInfo> = backends.unwrap_or_default();
        let version = ask(&[PROGRAM, "version", "-o", "json"]);
        let version = version.as_ref().and_then(|told| told["daemon"].as_str()).map(str::to_owned);
        let selected = |role: &str| backends.iter().find(|found| found.selected && found.r#trait == role);
        self.backends = ROLES.iter().filter_map(|role| selected(role)).map(|found| found.name.clone()).collect();
        if let Some(version) = version {
            self.subject.version = version;
        }
    }

    fn has_ipam(&self, name: &str) -> bool {
        self.backends.iter().any(|backend| backend == name)
    }

    /// What is tested.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Addresses of a pod that is started only to see them.
    fn sample(&self) -> Result<Vec<IpAddr>, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let name = format!("kinesin-conformance-{:x}", unique());
        let mut container = self.container();
        container["name"] = json!("main");
        let object = json!({
            "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "tolerations": [{"operator": "Exists"}], "containers": [container]},
        });
        let object = serde_json::from_value(object).map_err(|error| error.to_string())?;
        let told = |error: kube::Error| with_causes(&error);
        self.runtime.block_on(pods.create(&PostParams::default(), &object)).map_err(told)?;
        let until = Instant::now() + PATIENCE;
        let ips = loop {
            let status = match self.runtime.block_on(pods.get(&name)) {
                Ok(pod) => pod.status.unwrap_or_default(),
                Err(error) => break Err(told(error)),
            };
            let is_running = status.phase.as_deref() == Some("Running");
            let ips: Vec<IpAddr> = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
            if is_running && !ips.is_empty() {
                break Ok(ips);
            }
            if Instant::now() > until {
                let phase = status.phase.unwrap_or_else(|| "without status".to_owned());
                let waiting = status.container_statuses.into_iter().flatten().find_map(|c| c.state?.waiting?.message);
                break Err(format!(
                    "pod {name} with image {} is {phase} after {} s{}",
                    self.image,
                    PATIENCE.as_secs(),
                    waiting.map(|message| format!(": {message}")).unwrap_or_default()
                ));
            }
            thread::sleep(LOOK);
        };
        let now = kube::api::DeleteParams::default().grace_period(0);
        let deleted = self.runtime.block_on(pods.delete(&name, &now)).map_err(told);
        ips.and_then(|ips| deleted.map(|_| ips))
    }

    /// Whether every node has at most 32 addresses in its first family.
    fn has_small_ranges(&self) -> bool {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let Ok(nodes) = self.runtime.block_on(nodes.list(&ListParams::default())) else { return false };
        let small = |cidr: &String| {
            let net = cidr.parse::<ipnet::IpNet>();
            net.is_ok_and(|net| net.max_prefix_len() - net.prefix_len() <= 5)
        };
        let of = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        !nodes.items.is_empty() && nodes.items.iter().all(|node| of(node).iter().any(small))
    }
}

type Found = (Client, Vec<NodeInfo>, String, Subject);

async fn look(options: &KubeOptions) -> Result<Found, String> {
    let client = client(options.kubeconfig.as_deref()).await?;
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: kube::Error| format!("cannot {what}: {}", with_causes(&error))
    };
    let version = client.apiserver_version().await.map_err(told("ask the API server for its version"))?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.map_err(told("list nodes"))?.items;
    let kernel = nodes.iter().filter_map(|node| Some(node.status.as_ref()?.node_info.as_ref()?.kernel_version.clone()));
    let kernel = kernel.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
    let info = |node: &Node| {
        let ready = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten())
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let usable = ready && node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true);
        let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let ips = addresses.filter(|address| address.type_ == "InternalIP").filter_map(|a| a.address.parse().ok());
        usable.then(|| NodeInfo { name: node.metadata.name.clone().unwrap_or_default(), ips: ips.collect() })
    };
    let ready: Vec<NodeInfo> = nodes.iter().filter_map(info).collect();
    if ready.is_empty() {
        return Err(format!("none of the {} nodes is ready", nodes.len()));
    }
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), &options.namespace);
    let set = sets.get_opt("cilium").await.map_err(told("read the agents' daemon set"))?;
    let of_agent =
        set.and_then(|set| set.spec.template.spec?.containers.into_iter().find(|c| c.name == "cilium-agent")?.image);
    let version_of =
        |image: &str| image.rsplit_once(':').map(|(_, tag)| tag.to_owned()).filter(|tag| !tag.contains('/'));
    let installed = of_agent.as_deref().and_then(version_of).unwrap_or_else(|| "unknown".to_owned());
    let Some(image) = options.image.clone().or(of_agent) else {
        return Err(format!(
            "there is no daemon set cilium in namespace {}; name the agents' namespace, or an image that has the program \
             {PROGRAM}",
            options.namespace
        ));
    };
    let subject =
        Subject { implementation: "kinesin".to_owned(), version: installed, kernel, kubernetes: version.git_version };
    Ok((client, ready, image, subject))
}

async fn client(kubeconfig: Option<&Path>) -> Result<Client, String> {
    let config = match kubeconfig {
        Some(path) => {
            let read =
                Kubeconfig::read_from(path).map_err(|error| format!("{}: {}", path.display(), with_causes(&error)))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| with_causes(&error))?
        }
        None => Config::infer().await.map_err(|error| {
            format!("no cluster to ask: {}; name a kubeconfig by --kubeconfig or KUBECONFIG", with_causes(&error))
        })?,
    };
    Client::try_from(config).map_err(|error| with_causes(&error))
}

impl fmt::Debug for KubeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes of Kubernetes {}", self.nodes.len(), self.subject.kubernetes)
    }
}

impl Target for KubeTarget {
    fn kind(&self) -> &'static str {
        "kube"
    }

    fn can(&self, what: TargetCapability) -> bool {
        match what {
            TargetCapability::TwoNodes => self.nodes.len() > 1,
            TargetCapability::RestartAgent => true,
            TargetCapability::SmallPodRanges => self.small_ranges,
            TargetCapability::NodePodCidrs => self.has_ipam("host_scope"),
            TargetCapability::GivenPodCidrs => self.has_ipam("cluster_pool"),
            TargetCapability::KillAgent
            | TargetCapability::ReachInside
            | TargetCapability::RestartNode
            | TargetCapability::ChangeMtu
            | TargetCapability::OwnLab => false,
        }
    }

    fn families(&self) -> Families {
        self.families
    }

    fn nodes(&self) -> Vec<NodeInfo> {
        self.nodes.clone()
    }

    fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn container(&self) -> Value {
        json!({
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": [PROGRAM, crate::HIDDEN, "wait"],
            "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
        })
    }

    fn pod_hands(&self, pod: &PodInfo) -> Result<Box<dyn Hands>, String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let command = [PROGRAM, crate::HIDDEN, "work"];
        Ok(Box::new(RemoteHands::start(&pods, &pod.name, &command, self.runtime.handle().clone())?))
    }

    fn node_hands(&self, _node: &str) -> Result<Option<Box<dyn Hands>>, String> {
        Ok(None)
    }

    fn ask_agent(&self, node: &str, words: &[&str]) -> Result<String, Stop> {
        agents::ask(self.runtime.handle(), &self.client, &self.namespace, node, words)
    }

    fn restart_agents(&self) -> Result<(), Stop> {
        agents::restart(self.runtime.handle(), &self.client, &self.namespace)
    }
}
