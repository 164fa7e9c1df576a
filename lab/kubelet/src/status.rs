//! A pod's status, folded from what its containers do.
//!
//! Source: `getPhase`, `convertToAPIContainerStatuses` and `status/generate.go` of the kubelet.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::images;
use crate::node::stamp;
use crate::record::Ended;

/// What a container does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doing {
    Waiting { reason: String, message: String },
    Running { since: Timestamp },
    Ended(Ended),
}

impl Doing {
    pub(crate) fn waiting(reason: &str) -> Self {
        Self::Waiting { reason: reason.to_owned(), message: String::new() }
    }
}

/// A container as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) id: String,
    pub(crate) restarts: u32,
    pub(crate) doing: Doing,
    pub(crate) last: Option<Ended>,
    pub(crate) is_ready: bool,
    pub(crate) is_started: bool,
    /// An init container that goes on beside the others.
    pub(crate) is_sidecar: bool,
}

/// Folds the status of a pod.
pub(crate) fn fold(
    pod: &Pod,
    started: Timestamp,
    init: &[View],
    main: &[View],
    pod_ips: &[IpAddr],
    host_ips: &[IpAddr],
    is_sandbox_ready: bool,
) -> Value {
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    let is_initialised = init.iter().all(is_done);
    let phase = phase(policy, init, main);
    let unready: Vec<&str> = main.iter().filter(|c| !is_running_ready(c)).map(|c| c.name.as_str()).collect();
    let has_ended = matches!(phase, "Succeeded" | "Failed");
    let (reason, message) = match (phase, unready.is_empty()) {
        ("Succeeded", _) => ("PodCompleted", String::new()),
        ("Failed", _) => ("PodFailed", String::new()),
        (_, true) => ("", String::new()),
        (_, false) => ("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))),
    };
    let is_ready = unready.is_empty() && !has_ended && is_initialised;
    let uninitialised: Vec<&str> = init.iter().filter(|c| !is_done(c)).map(|c| c.name.as_str()).collect();
    let initialised = if uninitialised.is_empty() {
        ("", String::new())
    } else {
        ("ContainersNotInitialized", format!("containers with incomplete status: [{}]", uninitialised.join(" ")))
    };
    let conditions = [
        ("PodReadyToStartContainers", is_sandbox_ready && !has_ended, "", String::new()),
        ("Initialized", is_initialised, initialised.0, initialised.1),
        ("Ready", is_ready, reason, message.clone()),
        ("ContainersReady", is_ready, reason, message),
    ];
    let show_ips = |ips: &[IpAddr]| ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
    let mut status = json!({
        "phase": phase, "startTime": stamp(started), "conditions": merge_conditions(pod, &conditions),
        "hostIP": host_ips.first(), "hostIPs": show_ips(host_ips),
        "containerStatuses": main.iter().map(show).collect::<Vec<_>>(),
    });
    if !pod_ips.is_empty() {
        status["podIP"] = json!(pod_ips[0]);
        status["podIPs"] = show_ips(pod_ips).into();
    }
    if !init.is_empty() {
        status["initContainerStatuses"] = init.iter().map(show).collect();
    }
    status
}

fn is_done(container: &View) -> bool {
    match &container.doing {
        Doing::Ended(ended) => ended.code == 0,
        Doing::Running { .. } => container.is_sidecar && container.is_started,
        Doing::Waiting { .. } => false,
    }
}

fn is_running_ready(container: &View) -> bool {
    container.is_ready && matches!(container.doing, Doing::Running { .. })
}

fn phase(policy: &str, init: &[View], main: &[View]) -> &'static str {
    if let Some(container) = init.iter().find(|c| !is_done(c)) {
        return match &container.doing {
            Doing::Ended(_) if policy == "Never" => "Failed",
            _ => "Pending",
        };
    }
    let (mut running, mut waiting, mut stopped, mut failed) = (0, 0, 0, 0);
    for container in main {
        match (&container.doing, &container.last) {
            (Doing::Running { .. }, _) => running += 1,
            (Doing::Ended(ended), _) => {
                stopped += 1;
                failed += usize::from(ended.code != 0);
            }
            (Doing::Waiting { .. }, Some(last)) => {
                stopped += 1;
                failed += usize::from(last.code != 0);
            }
            (Doing::Waiting { .. }, None) => waiting += 1,
        }
    }
    match (waiting, running, stopped) {
        (1.., ..) => "Pending",
        (_, 1.., _) => "Running",
        (_, 0, 1..) if policy == "Always" => "Running",
        (_, 0, 1..) if failed == 0 => "Succeeded",
        (_, 0, 1..) if policy == "Never" => "Failed",
        (_, 0, 1..) => "Running",
        _ => "Pending",
    }
}

/// Conditions of others stay; ours keep the time of their last change.
fn merge_conditions(pod: &Pod, ours: &[(&str, bool, &str, String)]) -> Vec<Value> {
    let old = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let mut all: Vec<Value> = Vec::new();
    for (kind, holds, reason, message) in ours {
        let status = if *holds { "True" } else { "False" };
        let since = old
            .iter()
            .find(|c| c.type_ == *kind && c.status == status)
            .and_then(|c| c.last_transition_time.as_ref())
            .map_or_else(Timestamp::now, |time| time.0);
        let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": stamp(since)});
        if !holds && !reason.is_empty() {
            condition["reason"] = (*reason).into();
        }
        if !holds && !message.is_empty() {
            condition["message"] = message.as_str().into();
        }
        all.push(condition);
    }
    all.extend(old.iter().filter(|c| ours.iter().all(|o| o.0 != c.type_)).filter_map(|c| serde_json::to_value(c).ok()));
    all
}

fn show(container: &View) -> Value {
    let (image, image_id) = images::identify(&container.image);
    let is_pulled = !container.id.is_empty();
    let mut status = json!({
        "name": container.name, "image": if is_pulled { &image } else { &container.image },
        "imageID": if is_pulled { &image_id } else { "" }, "restartCount": container.restarts,
        "ready": match &container.doing {
            Doing::Running { .. } => container.is_ready,
            Doing::Ended(ended) => container.is_ready && ended.code == 0,
            Doing::Waiting { .. } => false,
        },
        "started": container.is_started && matches!(container.doing, Doing::Running { .. }),
        "lastState": {},
    });
    if is_pulled {
        status["containerID"] = format!("containerd://{}", container.id).into();
    }
    status["state"] = match &container.doing {
        Doing::Waiting { reason, message } if message.is_empty() => json!({"waiting": {"reason": reason}}),
        Doing::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        Doing::Running { since } => json!({"running": {"startedAt": stamp(*since)}}),
        Doing::Ended(ended) => json!({"terminated": show_end(ended)}),
    };
    if let Some(last) = &container.last
        && !matches!(&container.doing, Doing::Ended(ended) if ended == last)
    {
        status["lastState"] = json!({"terminated": show_end(last)});
    }
    status
}

fn show_end(ended: &Ended) -> Value {
    let mut shown = json!({"exitCode": ended.code, "reason": ended.reason, "startedAt": stamp(ended.started),
        "finishedAt": stamp(ended.finished), "containerID": format!("containerd://{}", ended.id)});
    if !ended.message.is_empty() {
        shown["message"] = ended.message.as_str().into();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(doing: Doing) -> View {
        View {
            name: "c".into(),
            image: "nginx".into(),
            id: "1".into(),
            restarts: 0,
            doing,
            last: None,
            is_ready: true,
            is_started: true,
            is_sidecar: false,
        }
    }

    fn ended(code: i32) -> Ended {
        let now = Timestamp::UNIX_EPOCH;
        Ended { id: "1".into(), code, reason: "Error".into(), message: String::new(), started: now, finished: now }
    }

    #[test]
    fn the_phase_follows_from_containers_and_policy() {
        let run = || view(Doing::Running { since: Timestamp::UNIX_EPOCH });
        let end = |code| view(Doing::Ended(ended(code)));
        let wait = || view(Doing::waiting("ContainerCreating"));
        let crash = || View { last: Some(ended(1)), ..view(Doing::waiting("CrashLoopBackOff")) };
        for (policy, init, main, want) in [
            ("Always", vec![], vec![wait()], "Pending"),
            ("Always", vec![], vec![run()], "Running"),
            ("Always", vec![], vec![run(), wait()], "Pending"),
            ("Always", vec![], vec![crash()], "Running"),
            ("Always", vec![], vec![end(0)], "Running"),
            ("Never", vec![], vec![end(0), end(0)], "Succeeded"),
            ("Never", vec![], vec![end(0), end(1)], "Failed"),
            ("Never", vec![], vec![run(), end(1)], "Running"),
            ("OnFailure", vec![], vec![end(1)], "Running"),
            ("OnFailure", vec![], vec![end(0)], "Succeeded"),
            ("Always", vec![run()], vec![wait()], "Pending"),
            ("Never", vec![end(2)], vec![wait()], "Failed"),
            ("Always", vec![end(0)], vec![run()], "Running"),
            ("Always", vec![View { is_sidecar: true, ..run() }], vec![run()], "Running"),
        ] {
            assert_eq!(phase(policy, &init, &main), want, "{policy} {init:?} {main:?}");
        }
    }

    #[test]
    fn readiness_is_a_condition_and_others_conditions_stay() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": []}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}}))
        .unwrap();
        let running = view(Doing::Running { since: Timestamp::UNIX_EPOCH });
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let now = Timestamp::UNIX_EPOCH;
        let ready = fold(&pod, now, &[], std::slice::from_ref(&running), &ips, &ips, true);
        let condition = |status: &Value, kind: &str| {
            status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).cloned().unwrap()
        };
        assert_eq!(condition(&ready, "Ready")["lastTransitionTime"], "2024-01-01T00:00:00Z");
        assert_eq!(condition(&ready, "PodScheduled")["status"], "True");
        assert_eq!(ready["podIPs"], json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]));
        let unready = fold(&pod, now, &[], &[View { is_ready: false, ..running }], &[], &ips, true);
        assert_eq!(condition(&unready, "Ready")["message"], "containers with unready status: [c]");
        assert_eq!(unready.get("podIP"), None);
    }
}
