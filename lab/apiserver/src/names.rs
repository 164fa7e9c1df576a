//! Rules for names, labels and annotations.

use serde_json::Value;

use crate::error::Cause;
use crate::kinds::{Kind, NameRule};
use crate::object;

/// Annotations of one object may hold this many bytes in all.
const ANNOTATIONS_LIMIT_BYTES: usize = 256 << 10;

/// What is wrong with the metadata of a new or changed object.
pub(crate) fn check(kind: &Kind, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = name_fault(kind.name_rule, name) {
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], why));
    }
    for (key, value) in object::map(object, &["metadata", "labels"]).into_iter().flatten() {
        if !is_qualified(key) {
            causes.push(Cause::invalid("metadata.labels", &key.as_str().into(), QUALIFIED));
        }
        if value.as_str().is_none_or(|v| !is_label_value(v)) {
            causes.push(Cause::invalid("metadata.labels", value, LABEL_VALUE));
        }
    }
    let mut bytes = 0;
    for (key, value) in object::map(object, &["metadata", "annotations"]).into_iter().flatten() {
        if !is_qualified(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &key.as_str().into(), QUALIFIED));
        }
        match value.as_str() {
            Some(text) => bytes += key.len() + text.len(),
            None => causes.push(Cause::wrong_type(format!("metadata.annotations.{key}"), value, "string")),
        }
    }
    if bytes > ANNOTATIONS_LIMIT_BYTES {
        causes.push(Cause {
            field: "metadata.annotations".to_owned(),
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {ANNOTATIONS_LIMIT_BYTES} bytes"),
        });
    }
    for finalizer in object::finalizers(object) {
        if !is_qualified(finalizer) {
            causes.push(Cause::invalid("metadata.finalizers", &finalizer.into(), QUALIFIED));
        }
    }
    causes
}

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName', or 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63 characters";

/// Why a name breaks a rule.
fn name_fault(rule: NameRule, name: &str) -> Option<&'static str> {
    match rule {
        NameRule::Subdomain => (!is_subdomain(name)).then_some(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
        ),
        NameRule::Label => (!is_label(name)).then_some(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', must start and end with an alphanumeric character and have at most 63 characters",
        ),
        NameRule::Label1035 => (!is_label(name) || !name.starts_with(|c: char| c.is_ascii_lowercase())).then_some(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
        ),
        NameRule::PathSegment => {
            (name == "." || name == ".." || name.contains(['/', '%'])).then_some("may not be '.' or '..' nor contain '/' or '%'")
        }
    }
}

/// RFC 1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-')
}

/// RFC 1123 subdomain.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 253
        && text
            .split('.')
            .all(|part| part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-'))
}

fn is_name_part(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

/// The value of a label.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The key of a label: an optional prefix, and a name.
pub(crate) fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_of_their_kind() {
        for (rule, name, is_fine) in [
            (NameRule::Subdomain, "a.b-c.9", true),
            (NameRule::Subdomain, "A", false),
            (NameRule::Subdomain, "a..b", false),
            (NameRule::Label, "9a", true),
            (NameRule::Label, "a.b", false),
            (NameRule::Label1035, "9a", false),
            (NameRule::Label1035, "web", true),
            (NameRule::PathSegment, "system:node", true),
            (NameRule::PathSegment, "a/b", false),
        ] {
            assert_eq!(name_fault(rule, name).is_none(), is_fine, "{rule:?} {name}");
        }
        assert!(is_qualified("app.kubernetes.io/Name_1") && !is_qualified("a/b/c") && !is_qualified("-a"));
        assert!(!is_label(&"a".repeat(64)) && is_label_value(""));
    }
}
