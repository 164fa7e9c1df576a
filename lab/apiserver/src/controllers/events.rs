//! Writing of Events by the controllers, and the removal of old ones.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::Controller;
use crate::object;
use crate::ops::{Api, DeleteOptions, Write};

/// How long an event is kept, as kube-apiserver has it by default.
const TTL: Duration = Duration::from_secs(60 * 60);

/// Says that something happened to an object; the same said again counts up.
pub(super) fn emit(api: &Api, about: &Value, kind: &str, reason: &str, message: &str, component: &str) {
    let namespace = match object::namespace(about) {
        "" => "default",
        namespace => namespace,
    };
    let events = api.builtin("", "events");
    // The name follows from what is said, so that a repetition finds its first occurrence.
    let what = json!([object::uid(about), kind, reason, message]);
    let name = format!("{}.{}", object::name(about), object::short_hash(&what));
    let seen = api.store.get("events", namespace, &name);
    let outcome = if seen.is_some() {
        api.change(&events, namespace, &name, &mut Write::by(component), |event| {
            let count = object::int(event, &["count"]).unwrap_or(1);
            event["count"] = (count + 1).into();
            event["lastTimestamp"] = object::now().into();
        })
    } else {
        let mut involved = json!({"kind": about["kind"], "apiVersion": about["apiVersion"], "name": object::name(about),
            "uid": object::uid(about), "resourceVersion": about["metadata"]["resourceVersion"]});
        object::carry(&about["metadata"], &mut involved, &["namespace"]);
        let event = json!({
            "metadata": {"name": name}, "involvedObject": involved, "type": kind, "reason": reason, "message": message,
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
            "firstTimestamp": object::now(), "lastTimestamp": object::now(), "count": 1,
        });
        api.create(&events, namespace, event, &mut Write::by(component))
    };
    if let Err(error) = outcome {
        tracing::debug!(reason, message = error.message, "an event was not written");
    }
}

/// Removes events past their time.
#[derive(Debug)]
pub(super) struct Expiry;

impl Controller for Expiry {
    const WATCHES: &'static [&'static str] = &[];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let kind = api.builtin("", "events");
        for event in api.all("events").iter().filter(|e| is_old(e, SystemTime::now())) {
            // Another writer may have been first; what is left is looked at next time.
            let _ = api.delete(&kind, object::namespace(event), object::name(event), &DeleteOptions::default());
        }
        Some(Duration::from_secs(60))
    }
}

fn is_old(event: &Value, now: SystemTime) -> bool {
    [["series", "lastObservedTime"].as_slice(), &["lastTimestamp"], &["eventTime"], &["metadata", "creationTimestamp"]]
        .into_iter()
        .find_map(|path| object::parse_time(object::text(event, path)))
        .is_some_and(|last| now.duration_since(last).is_ok_and(|age| age > TTL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_old_an_hour_after_it_was_last_seen() {
        let event = json!({"firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T02:00:00Z"});
        let at = |text| object::parse_time(text).unwrap();
        assert!(!is_old(&event, at("2024-01-01T02:59:00Z")));
        assert!(is_old(&event, at("2024-01-01T03:01:00Z")));
    }
}
