//! Whether every pod reaches every other: TCP, UDP and ICMP, in every family that both have.
//!
//! Listeners and clients are sockets that are opened in the pods' network namespaces for the time of the check, so it
//! needs nothing of the pods' images. An answer counts only if it comes from the pod that was asked. Nothing is tried
//! twice.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kinesin_netlink::{NetNs, Netlink};
use kube::{Api, api::ListParams};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    Lab, LabError, Node,
    probe::{self, Ends, Target},
};

/// A pod that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PodInfo {
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A connection, a question and its answer.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// An echo request.
    Icmp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Icmp => "ICMP",
        })
    }
}

/// One attempt.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Who asked: index in [`Report::pods`].
    pub from: usize,
    /// Who was asked.
    pub to: usize,
    /// What was sent.
    pub protocol: Protocol,
    /// Where it was sent.
    pub address: IpAddr,
    /// Time until the right answer was there; absent when it failed.
    pub took: Option<Duration>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The pods, by node and name.
    pub pods: Vec<PodInfo>,
    /// Every attempt.
    pub probes: Vec<Probe>,
    /// Pods that could not take part, and why; each is a failure.
    pub absent: Vec<String>,
}

impl Report {
    /// Whether there were probes, and every one was answered.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.absent.is_empty() && !self.probes.is_empty() && self.probes.iter().all(|probe| probe.failure.is_none())
    }

    /// Whether a probe stayed on its node.
    #[must_use]
    pub fn is_local(&self, probe: &Probe) -> bool {
        self.pods[probe.from].node == self.pods[probe.to].node
    }
}

impl Lab {
    /// Probes every ordered pair of the running pods of a namespace; pods in their node's network are left out.
    ///
    /// # Errors
    /// Only when the pods cannot be learned or their namespaces not be entered; a failed probe is part of the report.
    pub async fn check(&self, namespace: &str) -> Result<Report, LabError> {
        self.check_pods(self.pods_of(namespace).await?).await
    }

    /// As [`Lab::check`], of pods that the caller names, in the order of the report.
    ///
    /// # Errors
    /// Only when a namespace cannot be looked into.
    pub async fn check_pods(&self, pods: Vec<PodInfo>) -> Result<Report, LabError> {
        let mut report = Report { pods, ..Report::default() };
        let spaces = namespaces(&self.nodes()).await?;
        let mut ends = Vec::new();
        for pod in &report.pods {
            let found = spaces.get(&pod.node).into_iter().flatten();
            let space = found.into_iter().find(|space| pod.ips.iter().all(|ip| space.addresses.contains(ip)));
            match space.map(|space| Ends::open(&space.netns, &pod.name, &pod.ips)) {
                Some(Ok(open)) => ends.push(Some(open)),
                Some(Err(error)) => {
                    report.absent.push(format!("{}: {error}", pod.name));
                    ends.push(None);
                }
                None => {
                    let ips = pod.ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ");
                    report.absent.push(format!("{}: no network namespace on {} has {ips}", pod.name, pod.node));
                    ends.push(None);
                }
            }
        }
        let targets: Vec<Target> =
            ends.iter().enumerate().filter_map(|(pod, ends)| Some(ends.as_ref()?.target(pod))).collect();
        let mut sources = JoinSet::new();
        let mut servers = JoinSet::new();
        for (from, ends) in ends.into_iter().enumerate() {
            let Some(ends) = ends else { continue };
            let clients = ends.clients(from, &targets);
            sources.spawn(async move { probe::run_all(from, clients).await });
            ends.serve(&mut servers)?;
        }
        while let Some(done) = sources.join_next().await {
            match done {
                Ok(probes) => report.probes.extend(probes),
                Err(error) => report.absent.push(format!("a pod's probes ended early: {error}")),
            }
        }
        report.probes.sort_by_key(|probe| (probe.from, probe.to, probe.address.is_ipv6(), probe.protocol));
        Ok(report)
    }

    async fn pods_of(&self, namespace: &str) -> Result<Vec<PodInfo>, LabError> {
        let pods = Api::<Pod>::namespaced(self.client()?, namespace).list(&ListParams::default()).await;
        let info = |pod: Pod| {
            let (spec, status) = (pod.spec?, pod.status?);
            let is_running = status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
            if !is_running || spec.host_network == Some(true) {
                return None;
            }
            let ips = status.pod_ips.unwrap_or_default().into_iter().filter_map(|ip| ip.ip.parse().ok());
            Some(PodInfo { name: pod.metadata.name?, node: spec.node_name?, ips: ips.collect() })
        };
        let mut pods: Vec<PodInfo> =
            pods.map_err(LabError::api("list pods"))?.items.into_iter().filter_map(info).collect();
        pods.sort_by(|a, b| (&a.node, &a.name).cmp(&(&b.node, &b.name)));
        Ok(pods)
    }
}

#[derive(Debug)]
struct Space {
    netns: NetNs,
    addresses: Vec<IpAddr>,
}

/// Every named network namespace of every node, with the addresses in it.
async fn namespaces(nodes: &[Node]) -> Result<BTreeMap<String, Vec<Space>>, LabError> {
    let mut found = BTreeMap::new();
    for node in nodes {
        let mut spaces = Vec::new();
        let Ok(dir) = node.path("/run/netns") else { continue };
        for entry in std::fs::read_dir(&dir).map_err(LabError::io(format!("list {}", dir.display())))?.flatten() {
            // One that is just being removed is nobody's any more.
            let Ok(netns) = NetNs::open(entry.path()) else { continue };
            let addresses =
                Netlink::in_netns(&netns)?.addresses().await?.into_iter().map(|(_, net)| net.addr()).collect();
            spaces.push(Space { netns, addresses });
        }
        found.insert(node.name().to_owned(), spaces);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(failure: Option<&str>) -> Probe {
        let failure = failure.map(str::to_owned);
        Probe { from: 0, to: 1, protocol: Protocol::Tcp, address: [10, 0, 0, 1].into(), took: None, failure }
    }

    #[test]
    fn nothing_probed_is_nothing_proved() {
        assert!(!Report::default().passed());
        assert!(Report { probes: vec![probe(None)], ..Report::default() }.passed());
        assert!(!Report { probes: vec![probe(None), probe(Some("no answer"))], ..Report::default() }.passed());
        assert!(!Report { probes: vec![probe(None)], absent: vec!["x".to_owned()], ..Report::default() }.passed());
    }
}
