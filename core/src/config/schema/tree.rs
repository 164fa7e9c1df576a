//! The paths of the values file as a tree, and the two texts that are made of it.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// What may stand at a path.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    doc: String,
    schema: Value,
    /// In `values.yaml`; absent if the path is accepted but not shown there.
    default: Option<Value>,
}

impl Leaf {
    /// A value of `values.yaml`; its doc has no full stop at the end.
    pub(super) fn shown(doc: &str, schema: Value, default: Value) -> Self {
        Self { doc: doc.to_owned(), schema, default: Some(default) }
    }

    /// A value that only the schema knows.
    pub(super) fn hidden(doc: &str, schema: Value) -> Self {
        Self { doc: doc.to_owned(), schema, default: None }
    }
}

#[derive(Debug, Clone)]
enum Node {
    Leaf(Leaf),
    Branch(Tree),
}

/// Names in the order in which they came.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    nodes: Vec<(String, Node)>,
    /// Paths that could not be kept, since a value stands above or below them.
    conflicts: Vec<String>,
    /// Whether something else than a mapping passes too, for the templates to refuse it.
    accepts_values: bool,
}

impl Tree {
    /// Puts a value at a path with dots between its parts.
    pub(super) fn insert(&mut self, path: &str, leaf: Leaf) {
        if !self.place(path, leaf) {
            self.conflicts.push(path.to_owned());
        }
    }

    /// Lets a value stand where a mapping is expected, so that the templates can say what was removed there.
    pub(super) fn accept_values(&mut self, path: &str) {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        match (self.nodes.iter_mut().find(|(known, _)| known == name), rest) {
            (Some((_, Node::Branch(below))), None) => below.accepts_values = true,
            (Some((_, Node::Branch(below))), Some(rest)) => below.accept_values(rest),
            _ => self.conflicts.push(path.to_owned()),
        }
    }

    /// Paths that collide with another.
    #[cfg(test)]
    pub(super) fn conflicts(&self) -> Vec<String> {
        self.conflicts.clone()
    }

    fn place(&mut self, path: &str, leaf: Leaf) -> bool {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let found = self.nodes.iter_mut().find(|(known, _)| known == name);
        match (found, rest) {
            (None, None) => {
                self.nodes.push((name.to_owned(), Node::Leaf(leaf)));
                true
            }
            (None, Some(rest)) => {
                let mut below = Self::default();
                let placed = below.place(rest, leaf);
                self.nodes.push((name.to_owned(), Node::Branch(below)));
                placed
            }
            (Some((_, Node::Branch(below))), Some(rest)) => below.place(rest, leaf),
            _ => false,
        }
    }

    /// The schema of a mapping with exactly these names.
    pub(super) fn schema(&self) -> Value {
        let mut properties = Map::new();
        for (name, node) in &self.nodes {
            let schema = match node {
                Node::Branch(below) => below.schema(),
                Node::Leaf(leaf) => {
                    let mut schema = leaf.schema.clone();
                    if let Value::Object(map) = &mut schema {
                        map.insert("description".to_owned(), json!(leaf.doc));
                    }
                    schema
                }
            };
            properties.insert(name.clone(), schema);
        }
        let mut schema = json!({"properties": properties, "additionalProperties": false});
        if let Value::Object(map) = &mut schema
            && !self.accepts_values
        {
            map.insert("type".to_owned(), json!(["object", "null"]));
        }
        schema
    }

    /// The shown values as YAML with their docs.
    pub(super) fn write_yaml(&self, text: &mut String) {
        self.write_level(text, 0);
    }

    fn is_shown(&self) -> bool {
        self.nodes.iter().any(|(_, node)| match node {
            Node::Leaf(leaf) => leaf.default.is_some(),
            Node::Branch(below) => below.is_shown(),
        })
    }

    fn write_level(&self, text: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        for (name, node) in &self.nodes {
            let blank = if depth == 0 { "\n" } else { "" };
            match node {
                Node::Branch(below) if below.is_shown() => {
                    text.push_str(&format!("{blank}{indent}{name}:\n"));
                    below.write_level(text, depth + 1);
                }
                Node::Leaf(Leaf { doc, default: Some(default), .. }) => {
                    text.push_str(blank);
                    for line in wrapped(doc, 116 - indent.len()) {
                        let _ = writeln!(text, "{indent}# {line}");
                    }
                    write_value(text, &indent, name, default);
                }
                _ => {}
            }
        }
    }
}

/// `name: value`, a mapping or list below the name.
fn write_value(text: &mut String, indent: &str, name: &str, value: &Value) {
    let block = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    let written = serde_yaml_ng::to_string(value).unwrap_or_default();
    if !block {
        let _ = writeln!(text, "{indent}{name}: {}", written.trim_end());
        return;
    }
    let _ = writeln!(text, "{indent}{name}:");
    for line in written.lines() {
        let _ = writeln!(text, "{indent}  {line}");
    }
}

/// Lines of at most so many characters, broken at spaces.
fn wrapped(doc: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in doc.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
