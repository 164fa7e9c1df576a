//! Nodes.

use serde_json::Value;

use super::age::age;
use super::core::or_none;
use super::{AGE, Cells, Columns, NAME};
use crate::object::{condition, flag, list, map, name, text};

pub(super) const LAYOUT: (Columns, Cells) = (
    &[
        NAME,
        ("Status", false),
        ("Roles", false),
        AGE,
        ("Version", false),
        ("Internal-IP", true),
        ("External-IP", true),
        ("OS-Image", true),
        ("Kernel-Version", true),
        ("Container-Runtime", true),
    ],
    |o| {
        let info = |field| {
            let value = text(o, &["status", "nodeInfo", field]);
            if value.is_empty() { "<unknown>".into() } else { Value::from(value) }
        };
        vec![
            name(o).into(),
            status(o).into(),
            or_none(&roles(o)).into(),
            age(o),
            text(o, &["status", "nodeInfo", "kubeletVersion"]).into(),
            address(o, "InternalIP").into(),
            address(o, "ExternalIP").into(),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    },
);

fn status(node: &Value) -> String {
    let ready = match condition(node, "Ready").map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if flag(node, &["spec", "unschedulable"]) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in map(node, &["metadata", "labels"]).into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str());
        }
    }
    roles.sort_unstable();
    roles.join(",")
}

fn address(node: &Value, kind: &str) -> String {
    let found = list(node, &["status", "addresses"]).iter().find(|a| text(a, &["type"]) == kind);
    or_none(found.map_or("", |a| text(a, &["address"])))
}
