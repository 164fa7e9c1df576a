//! Starting containers: in order, again after a failure, with their images.

use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::live::{is_sidecar, runc_failure};
use super::{RETRY, Worker, seconds};
use crate::backoff::CRASH;
use crate::images::{self, Image};
use crate::launch::{RunSpec, RunState};
use crate::record::Ended;
use crate::remote::Target;
use crate::status::Doing;
use crate::{KubeletError, container, files, probes, sandbox};

/// How long a container may take to start before it counts as failed.
const START_LIMIT: Duration = Duration::from_secs(30);

impl Worker {
    /// Starts what is to run now; when to look again.
    pub(super) async fn advance_containers(&mut self) -> Option<Duration> {
        let policy =
            self.record.pod.spec.as_ref().and_then(|s| s.restart_policy.clone()).unwrap_or_else(|| "Always".to_owned());
        let mut wake: Option<Duration> = None;
        for container in self.init_containers() {
            let is_sidecar = is_sidecar(&container);
            // Another init container runs again after a failure, never after a success.
            let restart = match (is_sidecar, policy.as_str()) {
                (true, _) => "Always",
                (false, "Never") => "Never",
                (false, _) => "OnFailure",
            };
            let next = self.advance_container(&container, restart).await;
            wake = earlier(wake, next);
            let live = self.live.get(&container.name);
            let is_done = live.is_some_and(|live| match &live.doing {
                Doing::Ended(ended) => ended.code == 0 && !is_sidecar,
                Doing::Running { .. } => is_sidecar && live.is_started,
                Doing::Waiting { .. } => false,
            });
            if !is_done {
                return wake;
            }
        }
        for container in self.main_containers() {
            let next = self.advance_container(&container, &policy).await;
            wake = earlier(wake, next);
        }
        wake
    }

    async fn advance_container(&mut self, container: &Container, policy: &str) -> Option<Duration> {
        let name = container.name.as_str();
        if let Some(why) = self.live.get_mut(name).filter(|live| live.is_running()).and_then(|live| live.to_kill.take())
        {
            self.node.events.normal(&self.record.pod, Some(name), "Killing", why);
            self.kill(name, self.grace()).await;
        }
        let live = self.live.entry(name.to_owned()).or_default();
        let ended = match &live.doing {
            Doing::Running { .. } => return None,
            Doing::Ended(ended) => Some(ended.clone()),
            Doing::Waiting { reason, .. } if reason == "CrashLoopBackOff" => {
                self.record.containers.get(name).and_then(|c| c.last.clone())
            }
            Doing::Waiting { .. } => None,
        };
        if let Some(ended) = ended {
            let is_over = match policy {
                "Always" => false,
                "OnFailure" => ended.code == 0,
                _ => true,
            };
            if is_over {
                return None;
            }
            if let Some(left) = self.back_off(name, &ended) {
                return Some(left);
            }
        }
        let image = match self.pull(container) {
            Ok(image) => image,
            Err(left) => return Some(left),
        };
        self.start(container, image).await
    }

    /// Whether a container that ended has to wait, and how long.
    fn back_off(&mut self, name: &str, ended: &Ended) -> Option<Duration> {
        let known = self.record.containers.entry(name.to_owned()).or_default();
        known.last = Some(ended.clone());
        let refused = known.backoff.may_try(CRASH, ended.finished, Timestamp::now()).err();
        self.save();
        let (delay, left) = refused?;
        let pod = format!("{}_{}({})", self.record.name(), self.record.namespace(), self.record.uid());
        let message =
            format!("back-off {} restarting failed container={name} pod={pod}", seconds(delay.unsigned_abs()));
        let doing = Doing::Waiting { reason: "CrashLoopBackOff".to_owned(), message };
        if let Some(live) = self.live.get_mut(name)
            && live.doing != doing
        {
            live.doing = doing;
            let message = format!("Back-off restarting failed container {name} in pod {pod}");
            self.node.events.warning(&self.record.pod, Some(name), "BackOff", message);
        }
        Some(left.unsigned_abs())
    }

    /// Has the image ready; how long to wait where it cannot be had.
    fn pull(&mut self, container: &Container) -> Result<&'static Image, Duration> {
        let name = container.name.as_str();
        let wanted = container.image.clone().unwrap_or_default();
        let (pod, events) = (&self.record.pod, &self.node.events);
        let live = self.live.entry(name.to_owned()).or_default();
        let policy = container.image_pull_policy.as_deref().unwrap_or("IfNotPresent");
        let is_present = self.node.pulled.lock().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&wanted);
        if let Some(failed) = live.image_failed
            && let Err((_, left)) = live.image_backoff.may_try(CRASH, failed, Timestamp::now())
        {
            let message = format!("Back-off pulling image {wanted:?}");
            let doing = Doing::Waiting { reason: "ImagePullBackOff".to_owned(), message: message.clone() };
            if live.doing != doing {
                live.doing = doing;
                events.normal(pod, Some(name), "BackOff", message);
                events.warning(pod, Some(name), "Failed", "Error: ImagePullBackOff");
            }
            return Err(left.unsigned_abs());
        }
        if policy == "Never" && !is_present {
            let message = format!("Container image {wanted:?} is not present with pull policy of Never");
            events.warning(pod, Some(name), "ErrImageNeverPull", message.clone());
            live.doing = Doing::Waiting { reason: "ErrImageNeverPull".to_owned(), message };
            return Err(Duration::from_secs(10));
        }
        if is_present && policy != "Always" {
            events.normal(pod, Some(name), "Pulled", format!("Container image {wanted:?} already present on machine"));
        } else {
            events.normal(pod, Some(name), "Pulling", format!("Pulling image {wanted:?}"));
        }
        match images::find(&wanted) {
            Ok(image) => {
                if !is_present || policy == "Always" {
                    self.node.pulled.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(wanted.clone());
                    let message = format!(
                        "Successfully pulled image {wanted:?} in 0s (0s including waiting). Image size: 0 bytes."
                    );
                    events.normal(pod, Some(name), "Pulled", message);
                }
                live.image_failed = None;
                Ok(image)
            }
            Err(why) => {
                let now = Timestamp::now();
                if live.image_failed.is_none() {
                    // Unlike a container's restart, the second pull has to wait already.
                    let _ = live.image_backoff.may_try(CRASH, now, now);
                }
                live.image_failed = Some(now);
                events.warning(pod, Some(name), "Failed", format!("Failed to pull image {wanted:?}: {why}"));
                events.warning(pod, Some(name), "Failed", "Error: ErrImagePull");
                let reason = if why.contains("invalid reference format") { "InvalidImageName" } else { "ErrImagePull" };
                live.doing = Doing::Waiting { reason: reason.to_owned(), message: why };
                Err(Duration::from_secs(1))
            }
        }
    }

    async fn start(&mut self, container: &Container, image: &Image) -> Option<Duration> {
        let name = container.name.clone();
        let fresh = match self.record.containers.get(&name) {
            Some(known) if !known.id.is_empty() => {
                crate::record::Container { attempt: known.attempt + 1, id: sandbox::new_id(), ..known.clone() }
            }
            known => crate::record::Container { id: sandbox::new_id(), ..known.cloned().unwrap_or_default() },
        };
        let before = self.record.containers.insert(name.clone(), fresh);
        let places = self.places.clone().unwrap_or_default();
        let spec = match container::plan(&self.node, &self.record, container, image, &places).await {
            Ok(spec) => spec,
            Err(error) => {
                // It has not run: neither number nor name is used up.
                match before {
                    Some(before) => self.record.containers.insert(name.clone(), before),
                    None => self.record.containers.remove(&name),
                };
                self.node.events.warning(&self.record.pod, Some(&name), "Failed", format!("Error: {error}"));
                let live = self.live.entry(name).or_default();
                live.doing =
                    Doing::Waiting { reason: "CreateContainerConfigError".to_owned(), message: error.to_string() };
                return Some(if error.retryable() { Duration::from_secs(5) } else { RETRY });
            }
        };
        self.save();
        // Logs may be asked for as soon as it is known to run.
        self.show();
        self.forget_old_runs(&name);
        self.node.events.normal(&self.record.pod, Some(&name), "Created", format!("Created container: {name}"));
        let state = match self.launch(&spec).await {
            Ok(state) => state,
            Err(why) => failed_state(why.to_string()),
        };
        match state.exit.as_ref().and_then(|exit| exit.failure.as_deref()) {
            Some(why) => {
                let message = format!("Error: {}", runc_failure(why));
                self.node.events.warning(&self.record.pod, Some(&name), "Failed", message);
            }
            None => {
                self.node.events.normal(&self.record.pod, Some(&name), "Started", format!("Started container {name}"))
            }
        }
        self.started(container, state);
        self.refresh();
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.clone());
        if let Some(why) = self.run_hook(container, hook.as_ref()).await {
            self.node.events.warning(
                &self.record.pod,
                Some(&name),
                "FailedPostStartHook",
                format!("PostStartHook failed: {why}"),
            );
            self.kill(&name, self.grace()).await;
        }
        // A container that is over already is looked at again.
        (!self.live.get(&name).is_some_and(super::live::Live::is_running)).then_some(Duration::ZERO)
    }

    /// Starts the shim; the state once the process runs, or the reason why it does not.
    async fn launch(&self, spec: &RunSpec) -> Result<RunState, KubeletError> {
        let path = spec.state.with_file_name("spec.json");
        files::write_json(&path, spec)?;
        if let Some(fifo) = &spec.stdin {
            nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRWXU)
                .or_else(|error| if error == nix::errno::Errno::EEXIST { Ok(()) } else { Err(error) })
                .map_err(|error| KubeletError::file("make", fifo)(error.into()))?;
        }
        // An empty log says that the container exists.
        files::make_dir(spec.log.parent().unwrap_or(&self.node.config.log_dir))?;
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(KubeletError::file("make", &spec.log))?;
        let stderr =
            std::fs::File::create(path.with_file_name("shim.log")).map_err(KubeletError::file("make", &path))?;
        let mut shim = Command::new(&self.node.program)
            .args(["lab-launch", "run"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(KubeletError::file("start", &self.node.program))?;
        if let Some(mut stdout) = shim.stdout.take() {
            let mut nothing = Vec::new();
            let end = tokio::time::timeout(START_LIMIT, stdout.read_to_end(&mut nothing)).await;
            if end.is_err() {
                // Half a start is none; its process goes with it.
                let _ = shim.start_kill();
                return Err(KubeletError::Start(format!(
                    "the container was not started within {} s",
                    START_LIMIT.as_secs()
                )));
            }
        }
        // From here on it is known by its number; the runtime reaps it.
        drop(shim);
        files::read_json::<RunState>(&spec.state)?.ok_or_else(|| {
            let said = std::fs::read_to_string(path.with_file_name("shim.log")).unwrap_or_default();
            KubeletError::Start(format!("the shim did not start the container: {}", said.trim()))
        })
    }

    /// Runs a hook to its end; why it failed.
    pub(super) async fn run_hook(&self, container: &Container, hook: Option<&LifecycleHandler>) -> Option<String> {
        let hook = hook?;
        let target = Target::find(&self.node, &self.record, &container.name)?;
        let outcome = if let Some(exec) = &hook.exec {
            probes::command(exec, &target).await
        } else if let Some(get) = &hook.http_get {
            let ip = self.record.sandbox.as_ref()?.ips.first().copied()?;
            probes::http(get, container, ip).await
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.unsigned_abs())).await;
            Ok(())
        } else {
            Ok(())
        };
        outcome.err()
    }

    /// Keeps the directory of the run before, for its log, and no older one.
    fn forget_old_runs(&self, name: &str) {
        let attempt = self.record.containers.get(name).map_or(0, |c| c.attempt);
        let Some(old) = attempt.checked_sub(2) else { return };
        let run = self.record.dir(&self.node.config.pods_dir).join("containers").join(name).join(old.to_string());
        // Both may be gone already.
        let _ = std::fs::remove_dir_all(run);
        let _ = std::fs::remove_file(self.record.log(&self.node.config.log_dir, name, old));
    }
}

fn failed_state(why: String) -> RunState {
    let now = Timestamp::now();
    let nobody = crate::launch::ProcessId { pid: 0, start_ticks: 0 };
    let exit = crate::launch::Exit { code: 128, finished: now, failure: Some(why) };
    RunState { shim: nobody, process: nobody, started: now, exit: Some(exit) }
}

fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
