//! Label selectors (as text and as objects) and field selectors.

use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::kinds::Kind;
use crate::object;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A conjunction of rules on labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector {
    rules: Vec<(String, Rule)>,
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let wrong = |part: &str| {
            ApiError::bad_request(format!("unable to parse requirement {part:?} in label selector {text:?}"))
        };
        let mut rules = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let rule = if let Some(key) = part.strip_prefix('!') {
                (key.trim(), Rule::Absent)
            } else if let Some((key, rest)) = split_word(part, "notin") {
                (key, Rule::NotIn(set_of(rest).ok_or_else(|| wrong(part))?))
            } else if let Some((key, rest)) = split_word(part, "in") {
                (key, Rule::In(set_of(rest).ok_or_else(|| wrong(part))?))
            } else if let Some((key, value)) = part.split_once("!=") {
                (key.trim(), Rule::NotIn(vec![value.trim().to_owned()]))
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (key.trim(), Rule::In(vec![value.trim().to_owned()]))
            } else if let Some((key, value)) = part.split_once('>') {
                (key.trim(), Rule::Greater(value.trim().parse().map_err(|_| wrong(part))?))
            } else if let Some((key, value)) = part.split_once('<') {
                (key.trim(), Rule::Less(value.trim().parse().map_err(|_| wrong(part))?))
            } else {
                (part, Rule::Exists)
            };
            if rule.0.is_empty() || rule.0.contains([' ', '(', ')']) {
                return Err(wrong(part));
            }
            rules.push((rule.0.to_owned(), rule.1));
        }
        Ok(Self { rules })
    }

    /// Reads a `metav1.LabelSelector` object. An empty one matches everything.
    pub(crate) fn from_object(selector: &Value) -> Self {
        let mut rules = Vec::new();
        for (key, value) in object::map(selector, &["matchLabels"]).into_iter().flatten() {
            rules.push((key.clone(), Rule::In(vec![value.as_str().unwrap_or_default().to_owned()])));
        }
        for expression in object::list(selector, &["matchExpressions"]) {
            rules.push(expression_rule(expression));
        }
        Self { rules }
    }

    /// Reads the `matchExpressions` of a node selector term.
    pub(crate) fn from_expressions(expressions: &[Value]) -> Self {
        Self { rules: expressions.iter().map(expression_rule).collect() }
    }

    /// Reads a plain map of labels, as in a Service's selector.
    pub(crate) fn from_map(labels: &Map<String, Value>) -> Self {
        let rules = labels
            .iter()
            .map(|(k, v)| (k.clone(), Rule::In(vec![v.as_str().unwrap_or_default().to_owned()])))
            .collect();
        Self { rules }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a map of labels satisfies every rule.
    pub(crate) fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.rules.iter().all(|(key, rule)| {
            let value = labels.and_then(|l| l.get(key)).and_then(Value::as_str);
            let number = || value.and_then(|v| v.parse::<i64>().ok());
            match rule {
                Rule::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
                Rule::NotIn(set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
                Rule::Exists => value.is_some(),
                Rule::Absent => value.is_none(),
                Rule::Greater(bound) => number().is_some_and(|n| n > *bound),
                Rule::Less(bound) => number().is_some_and(|n| n < *bound),
            }
        })
    }

    /// Whether an object's labels satisfy every rule.
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.matches_labels(object::map(object, &["metadata", "labels"]))
    }

    /// The selector as text, as the scale subresource reports it.
    pub(crate) fn to_text(&self) -> String {
        let parts: Vec<String> = self
            .rules
            .iter()
            .map(|(key, rule)| match rule {
                Rule::In(set) if set.len() == 1 => format!("{key}={}", set[0]),
                Rule::In(set) => format!("{key} in ({})", set.join(",")),
                Rule::NotIn(set) if set.len() == 1 => format!("{key}!={}", set[0]),
                Rule::NotIn(set) => format!("{key} notin ({})", set.join(",")),
                Rule::Exists => key.clone(),
                Rule::Absent => format!("!{key}"),
                Rule::Greater(bound) => format!("{key}>{bound}"),
                Rule::Less(bound) => format!("{key}<{bound}"),
            })
            .collect();
        parts.join(",")
    }
}

fn expression_rule(expression: &Value) -> (String, Rule) {
    let values: Vec<String> =
        object::list(expression, &["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let bound = values.first().and_then(|v| v.parse().ok());
    let rule = match (object::text(expression, &["operator"]), bound) {
        ("In", _) => Rule::In(values),
        ("NotIn", _) => Rule::NotIn(values),
        ("Exists", _) => Rule::Exists,
        ("DoesNotExist", _) => Rule::Absent,
        ("Gt", Some(bound)) => Rule::Greater(bound),
        ("Lt", Some(bound)) => Rule::Less(bound),
        // An operator nobody knows matches nothing rather than everything.
        _ => Rule::In(Vec::new()),
    };
    (object::text(expression, &["key"]).to_owned(), rule)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_i32, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Splits `key word rest` where `word` stands alone.
fn split_word<'a>(part: &'a str, word: &str) -> Option<(&'a str, &'a str)> {
    let (key, rest) = part.split_once(char::is_whitespace)?;
    let rest = rest.trim_start().strip_prefix(word)?;
    rest.starts_with(|c: char| c.is_whitespace() || c == '(').then(|| (key.trim(), rest.trim()))
}

fn set_of(text: &str) -> Option<Vec<String>> {
    let inside = text.strip_prefix('(')?.strip_suffix(')')?;
    Some(inside.split(',').map(|v| v.trim().to_owned()).collect())
}

/// A conjunction of comparisons on fields.
#[derive(Debug, Clone, Default)]
pub(crate) struct FieldSelector {
    rules: Vec<(Vec<String>, String, bool)>,
}

impl FieldSelector {
    /// Parses `a.b=c,d!=e` for a kind; a field that the kind does not select by is refused.
    pub(crate) fn parse(text: &str, kind: &Kind) -> Result<Self, ApiError> {
        let mut rules = Vec::new();
        for part in text.split(',').filter(|p| !p.trim().is_empty()) {
            let (field, value, want) = if let Some((f, v)) = part.split_once("!=") {
                (f, v, false)
            } else if let Some((f, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (f, v, true)
            } else {
                return Err(ApiError::bad_request(format!(
                    "invalid field selector {text:?}: {part:?} has no operator; use field=value or field!=value"
                )));
            };
            let field = field.trim();
            let path = field_path(kind, field).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "field label not supported: {field} (on {}; supported: metadata.name, metadata.namespace{}{})",
                    kind.qualified(),
                    if fields_of(kind).is_empty() { "" } else { ", " },
                    fields_of(kind).join(", "),
                ))
            })?;
            rules.push((path, value.trim().to_owned(), want));
        }
        Ok(Self { rules })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.rules.iter().all(|(path, value, want)| {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let here = match object::at(object, &path) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            let here = if here.is_empty() && path == ["spec", "unschedulable"] { "false".to_owned() } else { here };
            (here == *value) == *want
        })
    }
}

/// Fields beyond the name and namespace by which objects of a kind are selected.
fn fields_of(kind: &Kind) -> &'static [&'static str] {
    match kind.storage.as_str() {
        "pods" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "events" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "nodes" => &["spec.unschedulable"],
        "namespaces" => &["status.phase"],
        "secrets" => &["type"],
        "services" => &["spec.clusterIP", "spec.type"],
        "replicasets.apps" => &["status.replicas"],
        _ => &[],
    }
}

fn field_path(kind: &Kind, field: &str) -> Option<Vec<String>> {
    // events.k8s.io calls the object `regarding`; the stored form has `involvedObject`.
    let field = match field.strip_prefix("regarding.") {
        Some(rest) if kind.is("events") => format!("involvedObject.{rest}"),
        _ => field.to_owned(),
    };
    let path: Vec<String> = field.split('.').map(str::to_owned).collect();
    if matches!(field.as_str(), "metadata.name" | "metadata.namespace") {
        return Some(path);
    }
    if !fields_of(kind).contains(&field.as_str()) {
        return None;
    }
    Some(if field == "source" { vec!["source".to_owned(), "component".to_owned()] } else { path })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::KindSet;

    fn labelled(labels: Value) -> Value {
        json!({"metadata": {"labels": labels}})
    }

    #[test]
    fn label_selectors_select_as_documented() {
        let object = labelled(json!({"app": "web", "tier": "front", "n": "7"}));
        for (text, want) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("absent!=x", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db,x),tier", true),
            ("tier,!absent", true),
            ("!tier", false),
            ("n>6,n<8", true),
            ("n>7", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&object), want, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_text()).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn a_label_selector_that_does_not_parse_is_named() {
        for text in ["a in b", "a b", "=x", "n>x", "a in (b"] {
            let error = LabelSelector::parse(text).unwrap_err();
            assert_eq!(error.code, 400, "{text}");
        }
    }

    #[test]
    fn a_selector_object_with_expressions_is_a_conjunction() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
        }));
        assert!(selector.matches(&labelled(json!({"app": "web"}))));
        assert!(!selector.matches(&labelled(json!({"app": "web", "tier": "back"}))));
    }

    #[test]
    fn field_selectors_compare_known_fields_and_refuse_others() {
        let kinds = KindSet::builtin();
        let pods = kinds.get("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "w1"}, "status": {"phase": "Running"}});
        for (text, want) in [
            ("spec.nodeName=w1,status.phase!=Failed", true),
            ("metadata.name=b", false),
            ("spec.nodeName=", false),
            ("status.podIP=", true),
        ] {
            assert_eq!(FieldSelector::parse(text, pods).unwrap().matches(&pod), want, "{text}");
        }
        let error = FieldSelector::parse("spec.colour=red", pods).unwrap_err();
        assert!(error.message.contains("spec.colour") && error.message.contains("spec.nodeName"), "{}", error.message);
    }
}
