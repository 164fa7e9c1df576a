//! Formats of strings and numbers that are checked, and patterns.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use regex::Regex;
use serde_json::Value;

use crate::object;

/// Whether a value has a format; formats that are not known pass.
pub(super) fn has_format(value: &Value, format: &str) -> bool {
    if let Some(number) = value.as_i64() {
        return format != "int32" || i32::try_from(number).is_ok();
    }
    let Some(text) = value.as_str() else { return true };
    match format {
        "date-time" => object::parse_time(text).is_some(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "uuid" => uuid::Uuid::parse_str(text).is_ok(),
        _ => true,
    }
}

/// A compiled pattern; compiled ones are kept, because each object of a kind meets the same ones.
///
/// # Errors
/// Text of the reason when the pattern is not a regular expression of the supported (linear) kind.
pub(crate) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    static KNOWN: OnceLock<Mutex<HashMap<String, Regex>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known.get(pattern) {
        return Ok(regex.clone());
    }
    let regex = Regex::new(pattern).map_err(|error| error.to_string())?;
    known.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}
