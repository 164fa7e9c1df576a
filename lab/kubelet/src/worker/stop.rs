//! Ending containers and pods.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::live::wait_for_end;
use super::{Message, RETRY, Worker};
use crate::launch::ProcessId;
use crate::sandbox;
use crate::status::Doing;

/// What a pod gets that was deleted by force.
const FORCED: Duration = Duration::from_secs(1);
/// How long the end of a killed process is waited for; a process in the kernel cannot be hurried.
const KILLED: Duration = Duration::from_secs(5);

impl Worker {
    /// How long the pod's containers may take to end.
    pub(super) fn grace(&self) -> Duration {
        if self.is_gone {
            return FORCED;
        }
        let meta = &self.record.pod.metadata;
        let own = self.record.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
        let wanted = meta.deletion_timestamp.as_ref().and(meta.deletion_grace_period_seconds).unwrap_or(own);
        Duration::from_secs(u64::try_from(wanted).unwrap_or(1))
    }

    /// Ends the pod: containers, sandbox, object, directories.
    pub(super) async fn end(&mut self) -> Option<Duration> {
        let running = self.running();
        for name in &running {
            self.node.events.normal(&self.record.pod, Some(name), "Killing", format!("Stopping container {name}"));
        }
        self.kill_all(self.grace()).await;
        if !self.is_gone {
            // Whoever waits for the pod's end sees how its containers ended.
            self.write_status().await;
        }
        if let Err(error) = sandbox::remove(&self.node, &mut self.record).await {
            let message = format!(
                "error killing pod: failed to \"KillPodSandbox\" for {:?} with KillPodSandboxError: \"rpc error: code = Unknown desc = failed to destroy network for sandbox: {error}\"",
                self.record.uid()
            );
            self.node.events.warning(&self.record.pod, None, "FailedKillPod", message);
            return Some(RETRY);
        }
        if !self.is_gone && !self.delete_object().await {
            return Some(RETRY);
        }
        self.remove_directories();
        self.is_finished = true;
        None
    }

    /// Tells the API server that nothing of the pod is left.
    async fn delete_object(&self) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), self.record.namespace());
        let preconditions = Some(Preconditions { uid: Some(self.record.uid().to_owned()), resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match pods.delete(self.record.name(), &parameters).await {
            Ok(_) => true,
            Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 409) => true,
            Err(error) => {
                tracing::debug!(%error, pod = self.record.name(), "the pod was not deleted");
                false
            }
        }
    }

    fn remove_directories(&self) {
        let config = &self.node.config;
        let log = self.record.log(&config.log_dir, "x", 0);
        let logs = log.parent().and_then(std::path::Path::parent);
        for dir in [Some(self.record.dir(&config.pods_dir).as_path()), logs].into_iter().flatten() {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, ?dir, "a directory of a pod stays");
                }
                _ => {}
            }
        }
        if let Some(cgroup) = &config.cgroup {
            let _ = std::fs::remove_dir(cgroup.join(format!("pod{}", self.record.uid())));
        }
    }

    fn running(&self) -> Vec<String> {
        self.live.iter().filter(|(_, live)| live.is_running()).map(|(name, _)| name.clone()).collect()
    }

    /// Ends all containers at once.
    pub(super) async fn kill_all(&mut self, grace: Duration) {
        let names = self.running();
        if names.is_empty() {
            return;
        }
        let specs = self.main_containers();
        let this = &*self;
        let hooks = specs.iter().filter(|c| names.contains(&c.name)).map(|container| {
            let hook = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref());
            async move { (container.name.clone(), this.run_hook(container, hook).await) }
        });
        let begun = tokio::time::Instant::now();
        if !grace.is_zero() {
            let failures = tokio::time::timeout(grace, futures::future::join_all(hooks)).await.unwrap_or_default();
            for (name, why) in failures.into_iter().filter_map(|(name, why)| Some((name, why?))) {
                self.node.events.warning(
                    &self.record.pod,
                    Some(&name),
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {why}"),
                );
            }
        }
        self.stop_processes(&names, grace.saturating_sub(begun.elapsed())).await;
    }

    /// Ends one container.
    pub(super) async fn kill(&mut self, name: &str, grace: Duration) {
        self.stop_processes(&[name.to_owned()], grace).await;
    }

    async fn stop_processes(&mut self, names: &[String], grace: Duration) {
        let states: Vec<(ProcessId, ProcessId)> = names
            .iter()
            .filter_map(|name| self.live.get(name)?.state.as_ref())
            .map(|state| (state.process, state.shim))
            .collect();
        if !grace.is_zero() {
            states.iter().for_each(|(process, _)| signal(*process, Signal::SIGTERM));
            let mut deadline = tokio::time::Instant::now() + grace;
            let shims = states.iter().map(|(_, shim)| *shim).collect::<Vec<_>>();
            let mut all =
                std::pin::pin!(async move { futures::future::join_all(shims.into_iter().map(wait_for_end)).await });
            loop {
                tokio::select! {
                    _ = &mut all => break,
                    () = tokio::time::sleep_until(deadline) => break,
                    Some(message) = self.inbox.recv() => {
                        let is_news = matches!(message, Message::Pod(_) | Message::Gone);
                        self.take(message);
                        // A second delete may shorten the grace.
                        if is_news {
                            deadline = deadline.min(tokio::time::Instant::now() + self.grace());
                        }
                    }
                }
            }
        }
        states.iter().for_each(|(process, _)| signal(*process, Signal::SIGKILL));
        for (process, shim) in states {
            // The shim follows its process, after it has written how that ended.
            if tokio::time::timeout(KILLED, wait_for_end(shim)).await.is_err() {
                tracing::warn!(pid = process.pid, "a killed process does not end");
                signal(shim, Signal::SIGKILL);
            }
        }
        self.refresh();
        for name in names {
            // What cannot be found any more is over, too.
            if let Some(live) = self.live.get_mut(name).filter(|live| live.is_running()) {
                live.doing = Doing::waiting("ContainerStatusUnknown");
            }
        }
    }
}

/// Signals a process, unless its number has gone to another.
fn signal(process: ProcessId, signal: Signal) {
    if process.pid > 0 && process.is_alive() {
        // It may end between the two lines.
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}
