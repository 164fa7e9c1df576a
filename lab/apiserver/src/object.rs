//! Reading and changing objects kept as JSON: paths, metadata, time, names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::jiff::Timestamp;
use rand::RngExt as _;
use serde_json::{Map, Value};

/// The value at a path of object keys.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |here, key| here.get(key))
}

/// The string at a path, or "" when there is none.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a path.
pub(crate) fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).and_then(Value::as_i64)
}

/// The boolean at a path; absent is false.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a path; absent is empty.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object at a path.
pub(crate) fn map<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(value, path).and_then(Value::as_object)
}

/// Sets the value at a path, making the objects on the way.
pub(crate) fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let mut here = value;
    for key in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(fields) = here else { return };
        here = fields.entry((*key).to_owned()).or_insert(Value::Null);
    }
    *here = new.into();
}

/// Sets the value at a path unless there is one.
pub(crate) fn set_default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    if at(value, path).is_none_or(Value::is_null) {
        set(value, path, new);
    }
}

/// Takes away the value at a path; the objects on the way stay.
pub(crate) fn unset(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, way) = path.split_last()?;
    let mut here = value;
    for key in way {
        here = here.get_mut(key)?;
    }
    here.as_object_mut()?.remove(*last)
}

/// Copies the value at a path from one object to the other, absence included.
pub(crate) fn carry(from: &Value, to: &mut Value, path: &[&str]) {
    match at(from, path) {
        Some(value) => set(to, path, value.clone()),
        None => {
            unset(to, path);
        }
    }
}

pub(crate) fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

pub(crate) fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

pub(crate) fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// The resource version; 0 when the object has none.
pub(crate) fn revision(object: &Value) -> u64 {
    text(object, &["metadata", "resourceVersion"]).parse().unwrap_or_default()
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some()
}

pub(crate) fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str)
}

/// The reference of the owner that manages this object.
pub(crate) fn controller_of(object: &Value) -> Option<&Value> {
    list(object, &["metadata", "ownerReferences"]).iter().find(|r| flag(r, &["controller"]))
}

/// Whether the object's managing owner has this uid.
pub(crate) fn is_controlled_by(object: &Value, owner_uid: &str) -> bool {
    controller_of(object).is_some_and(|r| text(r, &["uid"]) == owner_uid)
}

/// The condition of a type in `status.conditions`.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(object, &["status", "conditions"]).iter().find(|c| text(c, &["type"]) == kind)
}

/// Whether the condition of a type has status `True`.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| text(c, &["status"]) == "True")
}

/// Writes a condition; the transition time moves only when its status changes.
pub(crate) fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let mut entry = serde_json::json!({"type": kind, "status": status, "lastTransitionTime": now()});
    if !reason.is_empty() {
        entry["reason"] = reason.into();
    }
    if !message.is_empty() {
        entry["message"] = message.into();
    }
    let mut conditions = list(object, &["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|c| text(c, &["type"]) == kind) {
        Some(old) => {
            if text(old, &["status"]) == status {
                carry(old, &mut entry, &["lastTransitionTime"]);
            }
            *old = entry;
        }
        None => conditions.push(entry),
    }
    set(object, &["status", "conditions"], conditions);
}

/// The time now, as RFC 3339 with whole seconds, as `metav1.Time` is written.
pub(crate) fn now() -> String {
    timestamp(SystemTime::now())
}

/// A time as RFC 3339 with whole seconds.
pub(crate) fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()).unwrap_or_default().to_string()
}

/// The time that an RFC 3339 text says.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    let stamp: Timestamp = text.parse().ok()?;
    let micros = u64::try_from(stamp.as_microsecond()).ok()?;
    Some(UNIX_EPOCH + Duration::from_micros(micros))
}

/// A random suffix of the letters that Kubernetes uses: no vowels, no look-alikes.
pub(crate) fn random_suffix(length: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

/// A short stable hash of a value, in the same letters; for template hashes.
pub(crate) fn short_hash(value: &Value) -> String {
    // FNV-1a over the canonical text: stable over restarts, which `DefaultHasher` does not promise.
    let mut text = String::new();
    write_canonical(value, &mut text);
    let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()])).collect()
}

/// JSON with sorted keys. Objects keep the order of insertion when any crate of the build turns on
/// `serde_json/preserve_order`, and a hash must not depend on that.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(&fields[key.as_str()], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_survive_a_round_trip() {
        let text = "2024-02-29T12:34:56Z";
        assert_eq!(timestamp(parse_time(text).unwrap()), text);
        assert!(parse_time("yesterday").is_none());
    }

    #[test]
    fn a_condition_keeps_its_transition_time_while_its_status_stays() {
        let mut object = json!({"status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}]}});
        set_condition(&mut object, "Ready", "True", "Fine", "");
        assert_eq!(object["status"]["conditions"][0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
        set_condition(&mut object, "Ready", "False", "Broken", "");
        assert_ne!(object["status"]["conditions"][0]["lastTransitionTime"], "2020-01-01T00:00:00Z");
    }

    #[test]
    fn set_makes_the_way_and_carry_takes_absence_along() {
        let mut object = json!({});
        set(&mut object, &["a", "b"], 1);
        assert_eq!(object, json!({"a": {"b": 1}}));
        carry(&json!({}), &mut object, &["a", "b"]);
        assert_eq!(object, json!({"a": {}}));
    }
}
