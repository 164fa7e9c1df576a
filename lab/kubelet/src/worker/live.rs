//! What is known of the current run of each container, and how it gets known.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use tokio_util::task::AbortOnDropHandle;

use super::{Message, Worker};
use crate::backoff::Backoff;
use crate::launch::{Exit, ProcessId, RunState};
use crate::probes::{self, Finding, Purpose};
use crate::record::Ended;
use crate::remote::Target;
use crate::status::{Doing, View};
use crate::sys;

/// The current run of a container.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) doing: Doing,
    pub(super) state: Option<RunState>,
    pub(super) is_ready: bool,
    pub(super) is_started: bool,
    pub(super) image_backoff: Backoff,
    pub(super) image_failed: Option<Timestamp>,
    /// Why the kubelet ends this run; the liveness probe mostly.
    pub(super) to_kill: Option<String>,
    /// Watches of the process and its probes; they end with the run.
    pub(super) tasks: Vec<AbortOnDropHandle<()>>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            doing: Doing::waiting("ContainerCreating"),
            state: None,
            is_ready: false,
            is_started: false,
            image_backoff: Backoff::default(),
            image_failed: None,
            to_kill: None,
            tasks: Vec::new(),
        }
    }
}

impl Live {
    pub(super) fn is_running(&self) -> bool {
        matches!(self.doing, Doing::Running { .. })
    }
}

impl Worker {
    /// Takes over what an earlier kubelet left running.
    pub(super) fn adopt(&mut self) {
        let names: Vec<String> = self.record.containers.keys().cloned().collect();
        for name in names {
            let Some(state) = self.record.state(&self.node.config.pods_dir, &name) else { continue };
            let container = self.init_containers().into_iter().chain(self.main_containers()).find(|c| c.name == name);
            let Some(container) = container else { continue };
            self.started(&container, state);
            // What was ready stays ready until a probe says otherwise.
            let statuses = self
                .record
                .pod
                .status
                .iter()
                .flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses).flatten());
            let id = format!(
                "containerd://{}",
                self.record.containers.get(&name).map(|c| c.id.as_str()).unwrap_or_default()
            );
            let before = statuses
                .filter(|s| s.container_id.as_deref() == Some(&id))
                .map(|s| (s.ready, s.started.unwrap_or(false)))
                .next();
            if let (Some((is_ready, is_started)), Some(live)) = (before, self.live.get_mut(&name)) {
                live.is_ready |= is_ready;
                live.is_started |= is_started;
            }
        }
    }

    /// Begins to watch a run that has been started.
    pub(super) fn started(&mut self, container: &Container, state: RunState) {
        let live = self.live.entry(container.name.clone()).or_default();
        live.tasks.clear();
        live.to_kill = None;
        live.doing = Doing::Running { since: state.started };
        live.is_started = container.startup_probe.is_none();
        live.is_ready = container.readiness_probe.is_none();
        let to = self.to_self.clone();
        let shim = state.shim;
        live.state = Some(state);
        live.tasks.push(AbortOnDropHandle::new(tokio::spawn(async move {
            wait_for_end(shim).await;
            // The worker may be gone already; then nobody cares.
            let _ = to.send(Message::Look);
        })));
        let is_started = live.is_started;
        if is_started {
            self.probe(container, &[Purpose::Liveness, Purpose::Readiness]);
        } else {
            self.probe(container, &[Purpose::Startup]);
        }
    }

    fn probe(&mut self, container: &Container, purposes: &[Purpose]) {
        let Some(target) = Target::find(&self.node, &self.record, &container.name).map(Arc::new) else { return };
        let attempt = self.record.containers.get(&container.name).map_or(0, |c| c.attempt);
        let ip = self
            .record
            .sandbox
            .as_ref()
            .and_then(|s| s.ips.first().copied())
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        for purpose in purposes {
            let Some(probe) = purpose.of(container).cloned() else { continue };
            let (to, name, purpose) = (self.to_self.clone(), container.name.clone(), *purpose);
            let tell = move |finding: Finding| {
                let message = Message::Probed { container: name.clone(), attempt, purpose, finding };
                let _ = to.send(message);
            };
            let task = tokio::spawn(probes::watch(probe, container.clone(), ip, target.clone(), tell));
            if let Some(live) = self.live.get_mut(&container.name) {
                live.tasks.push(AbortOnDropHandle::new(task));
            }
        }
    }

    /// Takes what a probe found, if it was of this run.
    pub(super) fn probed(&mut self, name: &str, attempt: u32, purpose: Purpose, finding: &Finding) {
        let is_current = self.record.containers.get(name).is_some_and(|c| c.attempt == attempt);
        let Some(live) = self.live.get_mut(name).filter(|live| is_current && live.is_running()) else { return };
        if purpose == Purpose::Startup && live.is_started {
            return;
        }
        if let Some(why) = &finding.failure {
            let message = format!("{} probe failed: {why}", purpose.name());
            self.node.events.warning(&self.record.pod, Some(name), "Unhealthy", message);
        }
        match (purpose, finding.verdict) {
            (_, None) => {}
            (Purpose::Readiness, Some(is_ready)) => live.is_ready = is_ready,
            (Purpose::Startup, Some(true)) => {
                live.is_started = true;
                // The first task watches the process, the others are the probe that has done its part.
                live.tasks.truncate(1);
                let container =
                    self.init_containers().into_iter().chain(self.main_containers()).find(|c| c.name == name);
                if let Some(container) = container {
                    self.probe(&container, &[Purpose::Liveness, Purpose::Readiness]);
                }
            }
            (Purpose::Liveness, Some(true)) => {}
            (Purpose::Startup | Purpose::Liveness, Some(false)) => {
                let message =
                    format!("Container {name} failed {} probe, will be restarted", purpose.name().to_lowercase());
                live.to_kill = Some(message);
            }
        }
    }

    /// Notices which containers have ended.
    pub(super) fn refresh(&mut self) {
        let names: Vec<String> =
            self.live.iter().filter(|(_, live)| live.is_running()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let state = self.record.state(&self.node.config.pods_dir, &name);
            let Some(live) = self.live.get_mut(&name) else { continue };
            let Some(state) = state.or_else(|| live.state.clone()) else { continue };
            let exit = state.exit.clone().or_else(|| (!state.shim.is_alive()).then(lost));
            let Some(exit) = exit else { continue };
            let id = self.record.containers.get(&name).map(|c| c.id.clone()).unwrap_or_default();
            let ended = ended(id, &state, &exit);
            live.tasks.clear();
            live.is_ready = ended.code == 0 && live.is_ready;
            live.doing = Doing::Ended(ended);
            live.state = Some(RunState { exit: Some(exit), ..state });
        }
    }

    pub(super) fn view_of(&self, container: &Container, is_init: bool) -> View {
        let known = self.record.containers.get(&container.name);
        let live = self.live.get(&container.name);
        let is_initialising = !self.init_containers().is_empty();
        let doing = live.map_or_else(
            || Doing::waiting(if is_initialising { "PodInitializing" } else { "ContainerCreating" }),
            |live| live.doing.clone(),
        );
        View {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            id: known.map(|c| c.id.clone()).unwrap_or_default(),
            restarts: known.map_or(0, |c| c.attempt),
            doing,
            last: known.and_then(|c| c.last.clone()),
            // An init container is ready when it has done its work.
            is_ready: live.is_some_and(|live| match (&live.doing, is_init && !is_sidecar(container)) {
                (Doing::Ended(ended), true) => ended.code == 0,
                (_, true) => false,
                (Doing::Ended(_), false) => false,
                _ => live.is_ready && live.is_started,
            }),
            is_started: live.is_some_and(|live| live.is_started),
            is_sidecar: is_init && is_sidecar(container),
        }
    }
}

/// An init container that goes on beside the others.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The end of a container whose shim was killed: its process was killed with it.
fn lost() -> Exit {
    Exit { code: 137, finished: Timestamp::now(), failure: None }
}

fn ended(id: String, state: &RunState, exit: &Exit) -> Ended {
    let reason = match (&exit.failure, exit.code) {
        (Some(_), _) => "StartError",
        (None, 0) => "Completed",
        (None, _) => "Error",
    };
    let message = exit.failure.as_deref().map(runc_failure).unwrap_or_default();
    Ended { id, code: exit.code, reason: reason.to_owned(), message, started: state.started, finished: exit.finished }
}

/// What containerd says about a process that could not be started.
pub(super) fn runc_failure(why: &str) -> String {
    format!(
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: {why}: unknown"
    )
}

/// Returns once a process has ended.
pub(super) async fn wait_for_end(process: ProcessId) {
    let fd = sys::pidfd_async(process.pid);
    // The descriptor may be of a later process of the same number.
    if !process.is_alive() {
        return;
    }
    match fd {
        Ok(fd) => {
            // Readable means ended; an error leaves the check below.
            let _ = fd.readable().await;
        }
        Err(error) => tracing::debug!(%error, "a process is watched by asking"),
    }
    while process.is_alive() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
