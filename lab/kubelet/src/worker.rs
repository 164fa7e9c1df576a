//! One pod: brought to what the API says, again and again, until it is gone.

mod containers;
mod live;
mod stop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::backoff::{Backoff, SANDBOX};
use crate::kubelet::Node;
use crate::probes::{Finding, Purpose};
use crate::record::PodRecord;
use crate::volumes::{self, Extra};
use crate::{cni, container, sandbox, status};
use live::Live;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// The pod, as it is now.
    Pod(Box<Pod>),
    /// The API server has it no more.
    Gone,
    /// A container ended, or a delay is over.
    Look,
    /// Something that volumes are made from.
    SourceChanged,
    /// A probe of one run of a container.
    Probed { container: String, attempt: u32, purpose: Purpose, finding: Finding },
}

/// How long after a failed write the next one is tried.
const RETRY: Duration = Duration::from_secs(1);

/// The one task that acts on a pod.
#[derive(Debug)]
pub(crate) struct Worker {
    node: Arc<Node>,
    record: PodRecord,
    to_self: UnboundedSender<Message>,
    inbox: UnboundedReceiver<Message>,
    view: Arc<Mutex<PodRecord>>,
    live: BTreeMap<String, Live>,
    /// Where the volumes are; `None` when they are to be set up again.
    places: Option<BTreeMap<String, PathBuf>>,
    setup: Setup,
    written: Option<Value>,
    is_gone: bool,
    is_finished: bool,
}

/// The attempts to set up what a pod's containers need.
#[derive(Debug, Default)]
struct Setup {
    backoff: Backoff,
    failed: Option<Timestamp>,
}

impl Setup {
    /// How long to wait before the next attempt.
    fn wait(&mut self) -> Option<Duration> {
        let left = self.backoff.may_try(SANDBOX, self.failed?, Timestamp::now()).err()?.1;
        Some(left.unsigned_abs())
    }

    fn fail(&mut self) -> Duration {
        if self.failed.is_none() {
            // The first failure starts the delays; a restart of a container is what is free of them.
            let now = Timestamp::now();
            let _ = self.backoff.may_try(SANDBOX, now, now);
        }
        self.failed = Some(Timestamp::now());
        Duration::from_millis(SANDBOX.first_ms.unsigned_abs())
    }
}

impl Worker {
    pub(crate) fn new(
        node: Arc<Node>,
        record: PodRecord,
        to_self: UnboundedSender<Message>,
        inbox: UnboundedReceiver<Message>,
        view: Arc<Mutex<PodRecord>>,
    ) -> Self {
        Self {
            node,
            record,
            to_self,
            inbox,
            view,
            live: BTreeMap::new(),
            places: None,
            setup: Setup::default(),
            written: None,
            is_gone: false,
            is_finished: false,
        }
    }

    pub(crate) async fn run(mut self) {
        self.adopt();
        while !self.is_finished {
            let Some(first) = self.inbox.recv().await else { return };
            self.take(first);
            loop {
                while let Ok(message) = self.inbox.try_recv() {
                    self.take(message);
                }
                let wake = self.sync().await;
                self.show();
                let (Some(wake), false) = (wake, self.is_finished) else { break };
                match tokio::time::timeout(wake, self.inbox.recv()).await {
                    Ok(Some(message)) => self.take(message),
                    Ok(None) => return,
                    Err(_) => {}
                }
            }
        }
        self.node.forget(self.record.uid());
    }

    fn take(&mut self, message: Message) {
        match message {
            // The answer to a status may be newer than what the watch still has to tell.
            Message::Pod(pod) if version(&pod) < version(&self.record.pod) => {}
            Message::Pod(pod) => self.record.pod = *pod,
            Message::Gone => self.is_gone = true,
            Message::Look => {}
            Message::SourceChanged => self.places = None,
            Message::Probed { container, attempt, purpose, finding } => {
                self.probed(&container, attempt, purpose, &finding)
            }
        }
    }

    /// Lets logs and exec see what there is.
    fn show(&self) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = self.record.clone();
    }

    fn save(&self) {
        if let Err(error) = self.record.save(&self.node.config.pods_dir) {
            tracing::warn!(%error, pod = self.record.name(), "the pod's record was not written");
        }
    }

    /// Brings the pod one step on; when to look again if nothing happens.
    async fn sync(&mut self) -> Option<Duration> {
        self.refresh();
        if self.is_gone || self.record.pod.metadata.deletion_timestamp.is_some() {
            return self.end().await;
        }
        let wake = if self.has_completed() { self.complete().await } else { self.advance().await };
        let written = self.write_status().await;
        match (wake, written) {
            (wake, true) => wake,
            (wake, false) => Some(wake.unwrap_or(RETRY).min(RETRY)),
        }
    }

    /// Whether the pod has come to its end by itself.
    fn has_completed(&self) -> bool {
        let phase = self.record.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
            || matches!(self.fold()["phase"].as_str(), Some("Succeeded" | "Failed"))
    }

    /// A pod that has ended keeps its status, and gives its network back.
    async fn complete(&mut self) -> Option<Duration> {
        self.kill_all(Duration::ZERO).await;
        match sandbox::remove(&self.node, &mut self.record).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, pod = self.record.name(), "the sandbox of an ended pod stays");
                Some(RETRY)
            }
        }
    }

    /// Volumes, sandbox, init containers, containers.
    async fn advance(&mut self) -> Option<Duration> {
        if let Some(wait) = self.setup.wait().filter(|_| self.places.is_none() || self.record.sandbox.is_none()) {
            return Some(wait);
        }
        if self.places.is_none() {
            match self.prepare_volumes().await {
                Ok(places) => self.places = Some(places),
                Err(error) => {
                    self.node.events.warning(&self.record.pod, None, "FailedMount", error.to_string());
                    return Some(self.setup.fail());
                }
            }
        }
        if let Some(wake) = self.ensure_sandbox().await {
            return Some(wake);
        }
        self.setup.failed = None;
        self.advance_containers().await
    }

    async fn prepare_volumes(&self) -> Result<BTreeMap<String, PathBuf>, crate::KubeletError> {
        let host_ips = self.node.config.host_ips();
        let pod_ips = self.record.sandbox.as_ref().map(|s| s.ips.clone()).unwrap_or_default();
        let extra = Extra { host_ips: &host_ips, pod_ips: &pod_ips, token: container::TOKEN };
        let dir = self.record.dir(&self.node.config.pods_dir);
        volumes::prepare(&self.node.client, &self.record.pod, &dir, &extra).await
    }

    /// Makes the sandbox where it is missing; the time of the next attempt where that fails.
    async fn ensure_sandbox(&mut self) -> Option<Duration> {
        if self.record.sandbox.as_ref().is_some_and(sandbox::is_intact) {
            return None;
        }
        if self.record.sandbox.is_some() {
            if !self.record.containers.is_empty() {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.node.events.normal(&self.record.pod, None, "SandboxChanged", message);
                self.kill_all(Duration::ZERO).await;
            }
            if let Err(error) = sandbox::remove(&self.node, &mut self.record).await {
                self.node.events.warning(
                    &self.record.pod,
                    None,
                    "FailedKillPod",
                    format!("error killing pod: {error}"),
                );
                return Some(self.setup.fail());
            }
        }
        let needs_network = !container::is_host_network(&self.record.pod);
        if needs_network && let Err(error) = cni::find_conf(&self.node.config.cni_conf_dir) {
            let message = format!(
                "network is not ready: container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {error}"
            );
            self.node.events.warning(&self.record.pod, None, "NetworkNotReady", message);
            return Some(self.setup.fail());
        }
        if let Err(error) = sandbox::create(&self.node, &mut self.record).await {
            let message = format!("Failed to create pod sandbox: rpc error: code = Unknown desc = {error}");
            self.node.events.warning(&self.record.pod, None, "FailedCreatePodSandBox", message);
            return Some(self.setup.fail());
        }
        None
    }

    fn init_containers(&self) -> Vec<Container> {
        self.record.pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).cloned().collect()
    }

    fn main_containers(&self) -> Vec<Container> {
        self.record.pod.spec.iter().flat_map(|s| &s.containers).cloned().collect()
    }

    fn fold(&self) -> Value {
        let init: Vec<_> = self.init_containers().iter().map(|c| self.view_of(c, true)).collect();
        let main: Vec<_> = self.main_containers().iter().map(|c| self.view_of(c, false)).collect();
        let sandbox = self.record.sandbox.as_ref();
        // The addresses stay in the status of a pod that has ended.
        let ips = match sandbox.filter(|s| s.is_ready) {
            Some(sandbox) => sandbox.ips.clone(),
            None => self.written_ips(),
        };
        let host_ips = self.node.config.host_ips();
        let is_ready = sandbox.is_some_and(|s| s.is_ready);
        status::fold(&self.record.pod, self.record.started, &init, &main, &ips, &host_ips, is_ready)
    }

    fn written_ips(&self) -> Vec<std::net::IpAddr> {
        let status = self.record.pod.status.as_ref();
        status.into_iter().flat_map(|s| s.pod_ips.iter().flatten()).filter_map(|ip| ip.ip.parse().ok()).collect()
    }

    /// Writes the status where it has changed; whether the API server has it now.
    async fn write_status(&mut self) -> bool {
        let status = self.fold();
        if self.written.as_ref() == Some(&status) {
            return true;
        }
        let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), self.record.namespace());
        // The uid keeps a status from reaching a successor of the same name.
        let patch = Patch::Merge(json!({"metadata": {"uid": self.record.uid()}, "status": status}));
        match pods.patch_status(self.record.name(), &PatchParams::default(), &patch).await {
            Ok(pod) => {
                self.record.pod = pod;
                // Conditions are counted from the answer, so the comparison is with what follows from it.
                self.written = Some(self.fold());
                true
            }
            Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409 | 422) => {
                // It has gone, or is another one: the watch will say so.
                tracing::debug!(message = refused.message, pod = self.record.name(), "the pod's status was refused");
                refused.code == 404
            }
            Err(error) => {
                tracing::debug!(%error, pod = self.record.name(), "the pod's status was not written");
                false
            }
        }
    }
}

/// Where in the order of changes a pod is.
fn version(pod: &Pod) -> Option<u64> {
    pod.metadata.resource_version.as_deref()?.parse().ok()
}

/// A time for messages.
fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{}s", duration.as_secs()),
        whole => format!("{}m{}s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_told_as_go_writes_them() {
        assert_eq!(seconds(Duration::from_secs(10)), "10s");
        assert_eq!(seconds(Duration::from_secs(160)), "2m40s");
        assert_eq!(seconds(Duration::from_secs(300)), "5m0s");
    }

    #[test]
    fn failed_setups_wait_longer_each_time() {
        let mut setup = Setup::default();
        assert_eq!(setup.wait(), None);
        setup.fail();
        assert!(setup.wait().is_some_and(|wait| wait <= Duration::from_secs(1)));
    }
}
