//! Pods: the status column condenses phase, conditions and containers into one word.

use serde_json::Value;

use super::age::{age, age_since};
use super::core::or_none;
use super::{AGE, Cells, Columns, NAME};
use crate::object::{at, flag, int, is_deleting, list, name, text};

pub(super) const LAYOUT: (Columns, Cells) = (
    &[
        NAME,
        ("Ready", false),
        ("Status", false),
        ("Restarts", false),
        AGE,
        ("IP", true),
        ("Node", true),
        ("Nominated Node", true),
        ("Readiness Gates", true),
    ],
    cells,
);

fn cells(pod: &Value) -> Vec<Value> {
    let summary = summarise(pod);
    let ip =
        list(pod, &["status", "podIPs"]).first().map_or_else(|| text(pod, &["status", "podIP"]), |p| text(p, &["ip"]));
    let gates = list(pod, &["spec", "readinessGates"]);
    let passed = gates.iter().filter(|g| crate::object::is_true(pod, text(g, &["conditionType"]))).count();
    vec![
        name(pod).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        summary.restarts.into(),
        age(pod),
        or_none(ip).into(),
        or_none(text(pod, &["spec", "nodeName"])).into(),
        or_none(text(pod, &["status", "nominatedNodeName"])).into(),
        if gates.is_empty() { "<none>".into() } else { format!("{passed}/{}", gates.len()).into() },
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: String,
}

/// Source: `printPod` in `pkg/printers/internalversion/printers.go`.
fn summarise(pod: &Value) -> Summary {
    let statuses = list(pod, &["status", "containerStatuses"]);
    let mut status = match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    let init = list(pod, &["status", "initContainerStatuses"]);
    let total_init = list(pod, &["spec", "initContainers"]).len();
    let mut restarts: i64 = 0;
    let mut last_restart = String::new();
    let mut is_initialising = false;
    for (i, container) in init.iter().enumerate() {
        restarts += int(container, &["restartCount"]).unwrap_or_default();
        let terminated = at(container, &["state", "terminated"]);
        if terminated.is_some_and(|t| int(t, &["exitCode"]) == Some(0)) {
            continue;
        }
        let waiting = text(container, &["state", "waiting", "reason"]);
        status = match terminated {
            Some(t) => format!("Init:{}", ended(t)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{i}/{total_init}"),
        };
        is_initialising = true;
        break;
    }
    let mut ready = 0;
    if !is_initialising {
        restarts = 0;
        let mut has_running = false;
        for container in statuses.iter().rev() {
            restarts += int(container, &["restartCount"]).unwrap_or_default();
            let finished = text(container, &["lastState", "terminated", "finishedAt"]);
            if finished > last_restart.as_str() {
                finished.clone_into(&mut last_restart);
            }
            let waiting = text(container, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut status);
            } else if let Some(terminated) = at(container, &["state", "terminated"]) {
                status = ended(terminated);
            } else if flag(container, &["ready"]) && at(container, &["state", "running"]).is_some() {
                has_running = true;
                ready += 1;
            }
        }
        if status == "Completed" && has_running {
            status = if crate::object::is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if is_deleting(pod) {
        status = if text(pod, &["status", "reason"]) == "NodeLost" { "Unknown" } else { "Terminating" }.to_owned();
    }
    let restarts = if restarts > 0 && !last_restart.is_empty() {
        format!("{restarts} ({} ago)", age_since(&last_restart))
    } else {
        restarts.to_string()
    };
    Summary { ready, total: list(pod, &["spec", "containers"]).len(), status, restarts }
}

fn ended(terminated: &Value) -> String {
    match (text(terminated, &["reason"]), int(terminated, &["signal"])) {
        ("", Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        ("", _) => format!("ExitCode:{}", int(terminated, &["exitCode"]).unwrap_or_default()),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_column_says_what_matters_most() {
        let spec = json!({"containers": [{"name": "a"}]});
        for (description, status, deleting, want) in [
            ("fresh", json!({"phase": "Pending"}), false, ("0/1", "Pending")),
            (
                "creating",
                json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
                false,
                ("0/1", "ContainerCreating"),
            ),
            (
                "image missing",
                json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                false,
                ("0/1", "ErrImagePull"),
            ),
            (
                "running",
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
                false,
                ("1/1", "Running"),
            ),
            (
                "going",
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
                true,
                ("1/1", "Terminating"),
            ),
            (
                "failed",
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]}),
                false,
                ("0/1", "Error"),
            ),
            ("evicted", json!({"phase": "Failed", "reason": "Evicted"}), false, ("0/1", "Evicted")),
        ] {
            let mut pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
            if deleting {
                pod["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z".into();
            }
            let cells = cells(&pod);
            assert_eq!((cells[1].as_str().unwrap(), cells[2].as_str().unwrap()), want, "{description}");
        }
    }
}
