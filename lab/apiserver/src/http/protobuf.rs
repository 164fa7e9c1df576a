//! Bodies in Kubernetes' protobuf, as the typed clients of Go programs (`kubectl create`) send them.
//!
//! They are turned into the JSON that the same program would have sent. Answers are always JSON,
//! which those clients accept. The messages stand in a table, `protobuf/messages.txt`.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::object;

/// The media type.
pub(super) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages nest no deeper than this; a schema inside a schema could otherwise go on.
const DEPTH: usize = 64;

type Message = HashMap<u64, (&'static str, &'static str)>;

fn messages() -> &'static HashMap<&'static str, Message> {
    static MESSAGES: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let lines = include_str!("protobuf/messages.txt").lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let mut parts = line.split('|');
                let name = parts.next().unwrap_or_default();
                let fields = parts.filter_map(|part| {
                    let mut words = part.split(' ');
                    Some((words.next()?.parse().ok()?, (words.next()?, words.next()?)))
                });
                (name, fields.collect())
            })
            .collect()
    })
}

/// Turns a body into the object it says.
///
/// # Errors
/// Text that says where the bytes stop making sense, or which kind is not known.
pub(super) fn parse(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("it does not start with the four bytes of Kubernetes' protobuf")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader(envelope);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                let mut inner = Reader(bytes);
                while let Some((number, wire)) = inner.field()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let group = api_version.rsplit_once('/').map_or("core", |(group, _)| group);
    let package = if kind == "DeleteOptions" { "meta" } else { group.split('.').next().unwrap_or_default() };
    let name = format!("{package}.{kind}");
    let mut fields = message(&name, raw, 0)?;
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(fields))
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let Some(known) = messages().get(name) else {
        return Err(format!("its kind {name} is not known in protobuf here; send JSON"));
    };
    if depth > DEPTH {
        return Err(format!("it nests deeper than {DEPTH} messages"));
    }
    let mut fields = Map::new();
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        let Some((field, kind)) = known.get(&number) else { continue };
        if *field == "@" {
            if let Wire::Bytes(bytes) = wire {
                fields.extend(message(kind, bytes, depth + 1)?);
            }
        } else if let Some(kind) = kind.strip_prefix('*') {
            let list = fields.entry(*field).or_insert_with(|| Value::Array(Vec::new()));
            if let (Value::Array(list), Some(value)) = (list, scalar_or_message(&format!("{kind}!"), wire, depth)?) {
                list.push(value);
            }
        } else if let Some(kind) = kind.strip_prefix("{}") {
            let (key, value) = entry(kind, wire, depth)?;
            let map = fields.entry(*field).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        } else if let Some(value) = scalar_or_message(kind, wire, depth)? {
            fields.insert((*field).to_owned(), value);
        }
    }
    Ok(fields)
}

/// One entry of a map: key is field 1, value is field 2.
fn entry(kind: &str, wire: Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else { return Err("a map entry is no message".to_owned()) };
    let mut reader = Reader(bytes);
    let (mut key, mut value) = (String::new(), if kind == "s" || kind == "y" { json!("") } else { Value::Null });
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => value = scalar_or_message(&format!("{kind}!"), wire, depth)?.unwrap_or(Value::Null),
            _ => {}
        }
    }
    Ok((key, value))
}

/// A value that is no list and no map; `None` for a zero that JSON would leave out.
fn scalar_or_message(kind: &str, wire: Wire<'_>, depth: usize) -> Result<Option<Value>, String> {
    let (kind, keeps_zero) = kind.strip_suffix('!').map_or((kind, false), |kind| (kind, true));
    let value = match (kind, wire) {
        ("s", Wire::Bytes(bytes)) => json!(utf8(bytes)?),
        // A negative number is written as its 64-bit two's complement.
        ("i", Wire::Number(number)) => json!(number.cast_signed()),
        ("b", Wire::Number(number)) => json!(number != 0),
        ("y", Wire::Bytes(bytes)) => json!(base64::engine::general_purpose::STANDARD.encode(bytes)),
        ("time" | "microtime", Wire::Bytes(bytes)) => return time(kind, bytes),
        ("intstr", Wire::Bytes(bytes)) => int_or_string(bytes)?,
        ("quantity", Wire::Bytes(bytes)) => first_text(bytes)?,
        ("fields" | "raw", Wire::Bytes(bytes)) => {
            let text = first_text(bytes)?;
            return Ok(serde_json::from_str(text.as_str().unwrap_or_default()).ok());
        }
        (kind, Wire::Bytes(bytes)) if kind.starts_with("wrap:") => {
            let mut reader = Reader(bytes);
            let mut items = Vec::new();
            while let Some((_, wire)) = reader.field()? {
                items.extend(scalar_or_message(&format!("{}!", &kind["wrap:".len()..]), wire, depth)?);
            }
            return Ok(Some(items.into()));
        }
        (name, Wire::Bytes(bytes)) if name.contains('.') => {
            return message(name, bytes, depth + 1).map(|fields| Some(Value::Object(fields)));
        }
        (kind, wire) => return Err(format!("a field of type {kind:?} has the wrong encoding ({wire:?})")),
    };
    let is_zero = value == json!("") || value == json!(0) || value == json!(false);
    Ok((keeps_zero || !is_zero).then_some(value))
}

fn time(kind: &str, bytes: &[u8]) -> Result<Option<Value>, String> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Number(number)) => seconds = number,
            (2, Wire::Number(number)) => nanos = number,
            _ => {}
        }
    }
    // A Go zero time is year 1, which is negative here; no object carries one on purpose.
    if seconds == 0 || seconds.cast_signed() < 0 {
        return Ok(None);
    }
    let text = object::timestamp(UNIX_EPOCH + Duration::from_secs(seconds.min(u64::from(u32::MAX))));
    Ok(Some(if kind == "microtime" {
        format!("{}.{:06}Z", text.trim_end_matches('Z'), nanos % 1_000_000_000 / 1000).into()
    } else {
        text.into()
    }))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0_i64, String::new());
    let mut reader = Reader(bytes);
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(n)) => number = n.cast_signed(),
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn first_text(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader(bytes);
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Bytes(text)) = (number, wire) {
            return Ok(utf8(text)?.into());
        }
    }
    Ok("".into())
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| format!("a text in it is not UTF-8: {error}"))
}

/// The value of a field on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads fields one after the other. Source: the Protocol Buffers encoding guide.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(self.fixed::<8>().map(u64::from_le_bytes)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "a length in it is too large".to_owned())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(self.fixed::<4>().map(u32::from_le_bytes)?.into()),
            other => return Err(format!("wire type {other} is not in use")),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.fixed::<1>()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a number in it does not end".to_owned())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk().ok_or("it is cut off")?;
        self.0 = rest;
        Ok(*head)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(number: u8, inside: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(inside.len()).unwrap()];
        out.extend_from_slice(inside);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw)].concat()
    }

    #[test]
    fn a_config_map_reads_as_its_json() {
        let metadata = [bytes(1, b"name"), bytes(2, b""), vec![7 << 3, 0], bytes(8, b"")].concat();
        let entry = [bytes(1, b"key"), bytes(2, b"value")].concat();
        let raw = [bytes(1, &metadata), bytes(2, &entry)].concat();
        assert_eq!(
            parse(&body("v1", "ConfigMap", &raw)).unwrap(),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "name"}, "data": {"key": "value"}})
        );
    }

    #[test]
    fn pointers_keep_their_zero_and_inlined_messages_dissolve() {
        // Deployment.spec.replicas is a pointer; Volume inlines its source.
        let volume = [bytes(1, b"v"), bytes(2, &bytes(2, b""))].concat();
        let template = bytes(2, &bytes(1, &volume));
        let spec = [vec![1 << 3, 0], bytes(3, &template)].concat();
        let parsed = parse(&body("apps/v1", "Deployment", &bytes(2, &spec))).unwrap();
        assert_eq!(parsed["spec"]["replicas"], 0);
        assert_eq!(parsed["spec"]["template"]["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    }

    #[test]
    fn garbage_is_an_error_that_says_so() {
        for (bad, word) in [
            (b"nonsense".to_vec(), "four bytes"),
            (body("v1", "Nothing", b""), "core.Nothing"),
            ([MAGIC, &[0x0a, 0x7f]].concat(), "cut off"),
            (body("v1", "ConfigMap", &[0x0f]), "wire type 7"),
        ] {
            let why = parse(&bad).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn every_message_that_the_table_names_is_in_it() {
        for (name, fields) in messages() {
            for (_, kind) in fields.values() {
                let kind = kind.trim_start_matches('*').trim_start_matches("{}");
                assert!(!kind.contains('.') || messages().contains_key(kind), "{name} names {kind}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&body("v1", "Pod", &raw));
            let _ = parse(&[MAGIC.to_vec(), raw].concat());
        }
    }
}
