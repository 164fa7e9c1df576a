//! RFC 6902 patches, by the `json-patch` crate.

use serde_json::Value;

/// Applies a list of operations; on a failure the object is as it was.
///
/// # Errors
/// Text that names the operation and the reason.
pub(crate) fn patch(object: &mut Value, operations: &Value) -> Result<(), String> {
    let operations: json_patch::Patch =
        serde_json::from_value(operations.clone()).map_err(|error| format!("it is no list of operations: {error}"))?;
    json_patch::patch(object, &operations).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failing_operation_leaves_the_object_alone_and_is_named() {
        let mut object = json!({"a": 1});
        let operations = json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "test", "path": "/a", "value": 9}]);
        let why = patch(&mut object, &operations).unwrap_err();
        assert!(why.contains("/a"), "{why}");
        assert_eq!(object, json!({"a": 1}));
    }
}
