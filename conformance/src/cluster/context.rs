//! What a case has at hand: its target, its seed, and pods of its own in a namespace of its own.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    case::Scale,
    place::Place,
    random::{Sequence, hash, unique},
    verdict::Stop,
    worker::Hands,
};
use crate::target::{NodeInfo, PodInfo, Target};

/// How long pods may take to start or to go; a hundred at once take half a minute on two cores.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(30);

/// One case at work.
#[derive(Debug)]
pub struct Context<'a> {
    /// What it runs on.
    pub target: &'a dyn Target,
    /// How large it is.
    pub scale: Scale,
    pub(super) namespace: String,
    random: RefCell<Sequence>,
    next_key: Cell<u8>,
    /// What was applied, in its order.
    pub(super) applied: RefCell<Vec<Value>>,
}

impl<'a> Context<'a> {
    /// Makes the namespace.
    ///
    /// # Errors
    /// When the API refuses it.
    pub fn new(target: &'a dyn Target, case: &str, scale: Scale, seed: u64) -> Result<Self, Stop> {
        // Another run of the same case may be at work on the same cluster.
        let namespace = format!("{}-{:x}", case.replace('_', "-"), unique());
        let random = RefCell::new(Sequence::new(seed ^ hash(case)));
        // Pods of cases take raw sockets, which the stricter levels forbid: Pod Security Standards, "Baseline".
        let labels = json!({"pod-security.kubernetes.io/enforce": "privileged"});
        let object = serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}}));
        let object: Namespace = object.map_err(|error| Stop::target(&error))?;
        let api = Api::all(target.client().clone());
        let made = target.runtime().block_on(api.create(&PostParams::default(), &object));
        made.map_err(|error| Stop::target(&error))?;
        Ok(Self { target, scale, namespace, random, next_key: Cell::new(1), applied: RefCell::default() })
    }

    /// The next number of the case's own sequence, which its seed decides.
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&self, limit: usize) -> usize {
        usize::try_from(self.random() % limit as u64).unwrap_or_default()
    }

    /// Its own namespace in the API.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A key for somebody who answers; 255 of them in turn.
    pub fn key(&self) -> u8 {
        let key = self.next_key.get();
        self.next_key.set(key.checked_add(1).unwrap_or(1));
        key
    }

    /// The families in which the target's pods have addresses: whether it is IPv4.
    #[must_use]
    pub fn families(&self) -> Vec<bool> {
        let families = self.target.families();
        [(families.v4, true), (families.v6, false)]
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, is_ipv4)| is_ipv4)
            .collect()
    }

    /// The first two nodes; a case that calls this needs two.
    #[must_use]
    pub fn two_nodes(&self) -> Vec<NodeInfo> {
        self.target.nodes().into_iter().take(2).collect()
    }

    /// Nodes as places that answer.
    ///
    /// # Errors
    /// When one is down.
    pub fn node_places(&self, nodes: &[NodeInfo]) -> Result<Vec<Place>, Stop> {
        let place = |node: &NodeInfo| {
            let hands = self.target.node_hands(&node.name).map_err(Stop::broken)?;
            let hands = match hands {
                Some(hands) => hands,
                None => self.by_pod_on(&node.name)?,
            };
            Place::new(format!("node {}", node.name), node.name.clone(), node.ips.clone(), hands, self.key())
        };
        nodes.iter().map(place).collect()
    }

    /// Somebody in a pod that shares the node's network.
    fn by_pod_on(&self, node: &str) -> Result<Box<dyn Hands>, Stop> {
        let name = format!("host-{:x}", hash(node) & 0xffff_ffff);
        self.create(&name, node, true)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.list()?;
            let pod = found.iter().find(|pod| pod.metadata.name.as_deref() == Some(&name));
            let is_ready = pod.is_some_and(|pod| trouble(pod).is_none());
            if is_ready {
                let pod = PodInfo { namespace: self.namespace.clone(), name, node: node.to_owned(), ips: Vec::new() };
                return self.target.pod_hands(&pod).map_err(Stop::broken);
            }
            if Instant::now() > until {
                return Err(Stop::broken(format!(
                    "a pod in the network of {node} does not run: {:?}",
                    pod.and_then(trouble)
                )));
            }
            thread::sleep(LOOK);
        }
    }

    /// Starts pods, all at once, and returns when all run and answer: `(name, node)`.
    ///
    /// # Errors
    /// With those that do not run in time and why.
    pub fn start(&self, pods: &[(String, String)]) -> Result<Vec<Place>, Stop> {
        for (name, node) in pods {
            self.create(name, node, false)?;
        }
        self.wait_for(pods)
    }

    /// `count` pods on each node, called `prefix-0-0` and so on.
    ///
    /// # Errors
    /// As [`Context::start`].
    pub fn start_on(&self, nodes: &[NodeInfo], prefix: &str, count: usize) -> Result<Vec<Place>, Stop> {
        let named = |n: usize, node: &NodeInfo| {
            let node = node.name.clone();
            (0..count).map(move |i| (format!("{prefix}-{n}-{i}"), node.clone())).collect::<Vec<_>>()
        };
        let pods: Vec<_> = nodes.iter().enumerate().flat_map(|(n, node)| named(n, node)).collect();
        self.start(&pods)
    }

    fn create(&self, name: &str, node: &str, in_network_of_node: bool) -> Result<(), Stop> {
        let object = Self::object(self.target.container(), name, node, in_network_of_node)?;
        let created = self.target.runtime().block_on(self.pods().create(&PostParams::default(), &object));
        created.map(drop).map_err(|error| Stop::target(&error))
    }

    /// A pod with one container on a node.
    pub(super) fn object(mut container: Value, name: &str, node: &str, in_network_of_node: bool) -> Result<Pod, Stop> {
        container["name"] = json!("main");
        let mut spec = json!({
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        });
        if in_network_of_node {
            spec["hostNetwork"] = Value::Bool(true);
        }
        let object = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}));
        object.map_err(|error| Stop::target(&error))
    }

    /// The same pods again, with the addresses that they have now.
    ///
    /// # Errors
    /// With those that do not run in time and why.
    pub fn wait_for(&self, pods: &[(String, String)]) -> Result<Vec<Place>, Stop> {
        let until = Instant::now() + PATIENCE;
        let mut there: BTreeMap<usize, Place> = BTreeMap::new();
        loop {
            let found = self.list()?;
            let mut late = Vec::new();
            for (at, (name, node)) in pods.iter().enumerate() {
                if there.contains_key(&at) {
                    continue;
                }
                match self.place(&found, name, node) {
                    Ok(place) => drop(there.insert(at, place)),
                    Err(reason) => late.push(reason),
                }
            }
            if late.is_empty() {
                return Ok(there.into_values().collect());
            }
            if Instant::now() > until {
                let first: Vec<String> = late.iter().take(5).cloned().collect();
                return Err(Stop::broken(format!(
                    "{} of {} pods do not run after {} s: {}",
                    late.len(),
                    pods.len(),
                    PATIENCE.as_secs(),
                    first.join("; ")
                )));
            }
            thread::sleep(LOOK);
        }
    }

    /// Deletes pods and returns when the API knows them no more.
    ///
    /// # Errors
    /// When they stay.
    pub fn delete(&self, names: &[String]) -> Result<(), Stop> {
        for name in names {
            let deleted =
                self.target.runtime().block_on(self.pods().delete(name, &DeleteParams::default().grace_period(0)));
            deleted.map_err(|error| Stop::target(&error))?;
        }
        let names: BTreeSet<&String> = names.iter().collect();
        self.wait_until_gone(|pod| pod.metadata.name.as_ref().is_some_and(|name| names.contains(name)))
    }

    fn place(&self, found: &[Pod], name: &str, node: &str) -> Result<Place, String> {
        let pod = found.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        let pod = pod.ok_or_else(|| format!("there is no pod {name}"))?;
        if let Some(trouble) = trouble(pod) {
            return Err(format!("{name} on {node} is {trouble}"));
        }
        let ips = pod.status.iter().flat_map(|status| status.pod_ips.iter().flatten());
        let ips: Vec<IpAddr> = ips.filter_map(|ip| ip.ip.parse().ok()).collect();
        if ips.len() != self.families().len() {
            return Err(format!("{name} on {node} has addresses {ips:?}"));
        }
        let pod = PodInfo {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            node: node.to_owned(),
            ips: ips.clone(),
        };
        let hands = self.target.pod_hands(&pod)?;
        Place::new(format!("{name} on {node}"), node.to_owned(), ips, hands, self.key())
            .map_err(|stop| stop.to_string())
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.target.client().clone(), &self.namespace)
    }

    pub(super) fn list(&self) -> Result<Vec<Pod>, Stop> {
        let listed = self.target.runtime().block_on(self.pods().list(&ListParams::default()));
        listed.map(|list| list.items).map_err(|error| Stop::target(&error))
    }

    pub(super) fn wait_until_gone(&self, which: impl Fn(&Pod) -> bool) -> Result<(), Stop> {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.list()?.iter().filter(|pod| which(pod)).count();
            if left == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Stop::broken(format!(
                    "{left} deleted pods are still there after {} s",
                    PATIENCE.as_secs()
                )));
            }
            thread::sleep(LOOK);
        }
    }
}

/// What keeps a pod from being used.
fn trouble(pod: &Pod) -> Option<String> {
    let Some(status) = &pod.status else { return Some("without status".to_owned()) };
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if ready && pod.metadata.deletion_timestamp.is_none() {
        return None;
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref());
    let why = waiting.map(|waiting| waiting.message.clone().or_else(|| waiting.reason.clone()).unwrap_or_default());
    Some(format!(
        "{}: {}",
        status.phase.as_deref().unwrap_or("without phase"),
        why.unwrap_or_else(|| "not ready".to_owned())
    ))
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // The verdict stands; what cannot be removed is in a namespace that says whose it is.
        let runtime = self.target.runtime();
        self.remove_applied();
        let now = DeleteParams::default().grace_period(0);
        let _ = runtime.block_on(self.pods().delete_collection(&now, &ListParams::default()));
        // The next case may need the addresses.
        let _ = self.wait_until_gone(|_| true);
        let namespaces: Api<Namespace> = Api::all(self.target.client().clone());
        let _ = runtime.block_on(namespaces.delete(&self.namespace, &now));
    }
}
