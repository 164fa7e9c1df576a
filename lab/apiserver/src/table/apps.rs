//! Deployments, replica sets, daemon sets, controller revisions.

use serde_json::Value;

use super::age::age;
use super::core::labels_text;
use super::{AGE, Cells, Columns, NAME};
use crate::object::{controller_of, int, list, name, text};
use crate::selectors::LabelSelector;

const CONTAINERS: (&str, bool) = ("Containers", true);
const IMAGES: (&str, bool) = ("Images", true);
const SELECTOR: (&str, bool) = ("Selector", true);

fn number(object: &Value, path: &[&str]) -> i64 {
    int(object, path).unwrap_or_default()
}

fn template(object: &Value, field: &str) -> Value {
    let containers = list(object, &["spec", "template", "spec", "containers"]);
    containers.iter().map(|c| text(c, &[field])).collect::<Vec<_>>().join(",").into()
}

fn selector(object: &Value) -> Value {
    LabelSelector::from_object(&object["spec"]["selector"]).to_text().into()
}

pub(super) const DEPLOYMENTS: (Columns, Cells) =
    (&[NAME, ("Ready", false), ("Up-to-date", false), ("Available", false), AGE, CONTAINERS, IMAGES, SELECTOR], |o| {
        vec![
            name(o).into(),
            format!("{}/{}", number(o, &["status", "readyReplicas"]), number(o, &["spec", "replicas"])).into(),
            number(o, &["status", "updatedReplicas"]).into(),
            number(o, &["status", "availableReplicas"]).into(),
            age(o),
            template(o, "name"),
            template(o, "image"),
            selector(o),
        ]
    });

pub(super) const REPLICA_SETS: (Columns, Cells) =
    (&[NAME, ("Desired", false), ("Current", false), ("Ready", false), AGE, CONTAINERS, IMAGES, SELECTOR], |o| {
        vec![
            name(o).into(),
            number(o, &["spec", "replicas"]).into(),
            number(o, &["status", "replicas"]).into(),
            number(o, &["status", "readyReplicas"]).into(),
            age(o),
            template(o, "name"),
            template(o, "image"),
            selector(o),
        ]
    });

pub(super) const DAEMON_SETS: (Columns, Cells) = (
    &[
        NAME,
        ("Desired", false),
        ("Current", false),
        ("Ready", false),
        ("Up-to-date", false),
        ("Available", false),
        ("Node Selector", false),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    |o| {
        vec![
            name(o).into(),
            number(o, &["status", "desiredNumberScheduled"]).into(),
            number(o, &["status", "currentNumberScheduled"]).into(),
            number(o, &["status", "numberReady"]).into(),
            number(o, &["status", "updatedNumberScheduled"]).into(),
            number(o, &["status", "numberAvailable"]).into(),
            labels_text(o, &["spec", "template", "spec", "nodeSelector"]).into(),
            age(o),
            template(o, "name"),
            template(o, "image"),
            selector(o),
        ]
    },
);

pub(super) const CONTROLLER_REVISIONS: (Columns, Cells) =
    (&[NAME, ("Controller", false), ("Revision", false), AGE], |o| {
        let owner = controller_of(o).map_or_else(
            || "<none>".to_owned(),
            |r| format!("{}/{}", text(r, &["kind"]).to_lowercase(), text(r, &["name"])),
        );
        vec![name(o).into(), owner.into(), number(o, &["revision"]).into(), age(o)]
    });
