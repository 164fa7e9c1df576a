//! The network configuration that a runtime passes on stdin.
//!
//! Keys that the plugin does not know are left alone, since runtimes and other tools may add theirs (CNI spec 1.1.0
//! section "Network configuration format"). Cilium's own keys are known: those for what is not built here are refused
//! unless they are empty.

use std::{io::Read, path::PathBuf};

use serde_json::{Map, Value};

use crate::{
    CniError,
    request::{AttachmentId, check_container_id, check_ifname},
    versions::SpecVersion,
};

/// No configuration is larger; `prevResult` and GC's list of attachments are part of it.
const MAX_STDIN_BYTES: u64 = 1 << 20;
/// Smallest MTU at which IPv6 works (RFC 8200 section 5).
const MIN_MTU_BYTES: u64 = 1280;

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Version of the spec in which to answer.
    pub version: SpecVersion,
    /// Name of the network.
    pub name: String,
    /// Where to log; stderr, errors only, when absent.
    pub log_file: Option<PathBuf>,
    /// Whether log lines are JSON.
    pub log_json: bool,
    /// Whether steps are logged too.
    pub debug: bool,
    /// MTU of the pod's device in bytes instead of the agent's.
    pub mtu: Option<u32>,
    /// Result of the ADD before.
    pub prev_result: Option<Value>,
    /// GC: what the runtime still knows; absent from other commands.
    pub valid_attachments: Option<Vec<AttachmentId>>,
}

/// Reads stdin to its end.
///
/// # Errors
/// `Stdin` when it breaks, `Decode` when it holds more than 1 MiB.
pub fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    stdin.take(MAX_STDIN_BYTES + 1).read_to_end(&mut bytes).map_err(CniError::Stdin)?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(CniError::Decode { reason: format!("it is larger than {MAX_STDIN_BYTES} bytes") });
    }
    Ok(bytes)
}

/// The version in which to answer, even if the rest of the configuration is wrong.
#[must_use]
pub fn peek_version(bytes: &[u8]) -> Option<SpecVersion> {
    let value: Value = serde_json::from_slice(bytes).ok()?;
    SpecVersion::parse(value.get("cniVersion")?.as_str()?)
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// `Decode` with line or key, `UnsupportedVersion`, `UnsupportedField`, or `InvalidConfig` with the key.
    pub fn parse(bytes: &[u8]) -> Result<Self, CniError> {
        let fields = Fields(decode_object(bytes)?);
        let version = fields.string("cniVersion")?.ok_or_else(|| invalid("cniVersion", "is missing"))?;
        let version = SpecVersion::parse(&version).ok_or(CniError::UnsupportedVersion { found: version })?;
        let name = fields.string("name")?.ok_or_else(|| invalid("name", "is missing"))?;
        // The name follows the same rule as a container's id.
        check_container_id(&name)
            .map_err(|_| invalid("name", "must begin with a letter or digit and hold only those, '_', '.' and '-'"))?;
        if fields.string("type")?.is_none_or(|kind| kind.is_empty()) {
            return Err(invalid("type", "is missing"));
        }
        fields.refuse_unless_empty("chaining-mode", &["none"], "chaining is not built; leave the key out")?;
        fields.refuse_unless_empty("ipam", &[], "the agent leases addresses itself; leave the key out")?;
        for cloud in ["eni", "azure", "alibaba-cloud"] {
            fields.refuse_unless_empty(cloud, &[], "this IPAM mode is not built; leave the key out")?;
        }
        // The route MTU is always set here, which is what the key asks for.
        fields.bool("enable-route-mtu")?;
        Ok(Self {
            version,
            name,
            log_file: fields.string("log-file")?.filter(|path| !path.is_empty()).map(PathBuf::from),
            log_json: fields.string("log-format")?.is_some_and(|format| format.starts_with("json")),
            debug: fields.bool("enable-debug")?.unwrap_or(false),
            mtu: fields.mtu()?,
            prev_result: fields.0.get("prevResult").filter(|value| !value.is_null()).cloned(),
            valid_attachments: fields.valid_attachments()?,
        })
    }
}

fn decode_object(bytes: &[u8]) -> Result<Map<String, Value>, CniError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(CniError::Decode { reason: format!("it must be a JSON object, not {}", kind(&other)) }),
        Err(error) if bytes.is_empty() => Err(CniError::Decode { reason: format!("stdin is empty ({error})") }),
        Err(error) => Err(CniError::Decode { reason: error.to_string() }),
    }
}

/// The top level of a configuration; null counts as absent.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn string(&self, key: &str) -> Result<Option<String>, CniError> {
        self.get(key)
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(|| mistyped(key, "a string", value)))
            .transpose()
    }

    fn bool(&self, key: &str) -> Result<Option<bool>, CniError> {
        self.get(key).map(|value| value.as_bool().ok_or_else(|| mistyped(key, "true or false", value))).transpose()
    }

    fn mtu(&self) -> Result<Option<u32>, CniError> {
        let Some(value) = self.get("mtu") else { return Ok(None) };
        let mtu = value.as_u64().ok_or_else(|| mistyped("mtu", "a whole number of bytes", value))?;
        match u32::try_from(mtu) {
            Ok(0) => Ok(None),
            Ok(fits) if (MIN_MTU_BYTES..=65535).contains(&mtu) => Ok(Some(fits)),
            _ => Err(invalid("mtu", format!("must be 0 or from {MIN_MTU_BYTES} to 65535, not {mtu}"))),
        }
    }

    fn valid_attachments(&self) -> Result<Option<Vec<AttachmentId>>, CniError> {
        const KEY: &str = "cni.dev/valid-attachments";
        let Some(value) = self.get(KEY) else { return Ok(None) };
        let entries = value.as_array().ok_or_else(|| mistyped(KEY, "a list", value))?;
        let parse = |(position, entry): (usize, &Value)| {
            let field = |name: &str| match entry.get(name) {
                Some(Value::String(text)) => Ok(text.clone()),
                _ => Err(invalid(KEY, format!("entry {position} has no string {name:?}"))),
            };
            let id = AttachmentId { container_id: field("containerID")?, ifname: field("ifname")? };
            check_container_id(&id.container_id)
                .and_then(|()| check_ifname(&id.ifname))
                .map_err(|error| invalid(KEY, format!("entry {position} is wrong: {error}")))?;
            Ok(id)
        };
        entries.iter().enumerate().map(parse).collect::<Result<_, _>>().map(Some)
    }

    fn refuse_unless_empty(&self, key: &str, allowed: &[&str], reason: &'static str) -> Result<(), CniError> {
        let Some(value) = self.get(key) else { return Ok(()) };
        let empty = match value {
            Value::Object(fields) => fields.values().all(|inner| inner.is_null() || inner == ""),
            Value::String(text) => text.is_empty() || allowed.contains(&text.as_str()),
            _ => false,
        };
        if empty {
            return Ok(());
        }
        let value = value.to_string().chars().take(200).collect();
        Err(CniError::UnsupportedField { key: key.to_owned(), value, reason })
    }
}

fn mistyped(key: &str, wanted: &str, found: &Value) -> CniError {
    CniError::Decode { reason: format!("{key:?} must be {wanted}, not {}", kind(found)) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn invalid(key: &str, reason: impl Into<String>) -> CniError {
    CniError::InvalidConfig { key: key.to_owned(), reason: reason.into() }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
