//! `events.k8s.io/v1` as another view of the core Event: the same objects under other field names.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/events/v1/conversion.go` (field pairs).

use serde_json::Value;

/// The group of the other view.
pub(super) const GROUP: &str = "events.k8s.io";

const PAIRS: [(&str, &str); 6] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];

fn rename(object: &mut Value, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Value::Object(fields) = object else { return };
    for (from, to) in pairs {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

/// Turns an event as the group shows it into the core form.
pub(super) fn into_core(object: &mut Value) {
    rename(object, PAIRS.into_iter().chain([("deprecatedCount", "count")]));
    if object.is_object() {
        object["apiVersion"] = "v1".into();
    }
}

/// An event of the core form as the group shows it.
pub(super) fn from_core(object: &Value) -> Value {
    let mut shown = object.clone();
    rename(&mut shown, PAIRS.into_iter().chain([("deprecatedCount", "count")]).map(|(group, core)| (core, group)));
    shown["apiVersion"] = format!("{GROUP}/v1").into();
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_views_of_an_event_hold_the_same() {
        let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"name": "p"},
            "note": "hello", "reportingController": "c", "reason": "R", "type": "Normal", "deprecatedCount": 2});
        let mut core = event.clone();
        into_core(&mut core);
        assert_eq!(core["involvedObject"]["name"], "p");
        assert_eq!(core["message"], "hello");
        assert_eq!(from_core(&core), event);
    }
}
