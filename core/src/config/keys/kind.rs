//! The types of values, as text in a ConfigMap.

use std::time::Duration;

use ipnet::IpNet;

use crate::values::Family;

/// What a key's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number between the two, both included.
    Int(u64, u64),
    /// A decimal number from 0 to 1.
    Ratio,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A network of this family.
    Cidr(Family),
    /// Such as `15s`, `1m30s`, `100ms`.
    Duration,
    /// Any text.
    Text,
    /// Words separated by spaces or commas.
    List,
    /// A registry name.
    Name,
    /// Registry names separated by spaces or commas.
    Names,
    /// A file's absolute path.
    Path,
    /// A cluster's name: up to 32 of `a-z`, `0-9` and `-`.
    ClusterName,
}

impl Kind {
    /// The value in its one spelling.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed, to stand after the key and the value.
    pub fn check(self, value: &str) -> Result<String, String> {
        match self {
            Self::Bool => parse_bool(value)
                .map(|value| value.to_string())
                .ok_or_else(|| "is no boolean; write \"true\" or \"false\"".to_owned()),
            Self::Int(min, max) => match value.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(number.to_string()),
                Ok(_) => Err(format!("is out of range; write a number from {min} to {max}")),
                Err(_) => Err(format!("is no whole number; write one from {min} to {max}")),
            },
            Self::Ratio => match value.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(value.to_owned()),
                _ => Err("is no ratio; write a number from 0 to 1".to_owned()),
            },
            Self::Choice(words) => match words.iter().find(|word| word.eq_ignore_ascii_case(value)) {
                Some(word) => Ok((*word).to_owned()),
                None => Err(format!("is not allowed; write one of {}", words.join(", "))),
            },
            Self::Cidr(family) => check_cidr(value, family),
            Self::Duration => match parse_duration_ns(value) {
                Some(_) => Ok(value.to_owned()),
                None => Err("is no duration; write one such as 30s, 5m0s or 100ms".to_owned()),
            },
            Self::Text => Ok(value.to_owned()),
            Self::List => Ok(words(value).collect::<Vec<_>>().join(" ")),
            Self::Name => check_name(value).map(|()| value.to_owned()),
            Self::Names => {
                let names: Vec<_> = words(value).collect();
                names.iter().try_for_each(|name| check_name(name))?;
                Ok(names.join(" "))
            }
            Self::Path if value.starts_with('/') => Ok(value.to_owned()),
            Self::Path => Err("is no absolute path; let it start with /".to_owned()),
            Self::ClusterName => check_cluster_name(value),
        }
    }

    /// Whether two values mean the same, `15m` and `15m0s` for example.
    #[must_use]
    pub fn same(self, one: &str, other: &str) -> bool {
        match self {
            Self::Duration => match (parse_duration_ns(one), parse_duration_ns(other)) {
                (Some(one), Some(other)) => one == other,
                _ => one == other,
            },
            Self::Ratio => match (one.parse::<f64>(), other.parse::<f64>()) {
                (Ok(one), Ok(other)) => one.total_cmp(&other).is_eq(),
                _ => one == other,
            },
            _ => one == other || matches!((self.check(one), self.check(other)), (Ok(one), Ok(other)) if one == other),
        }
    }
}

/// The words of a list, separated by spaces, line ends or commas.
pub(in crate::config) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(|separator: char| separator.is_whitespace() || separator == ',').filter(|word| !word.is_empty())
}

/// A boolean in the spellings that Cilium's flags accept (Go: strconv.ParseBool).
pub(in crate::config) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn check_cidr(value: &str, family: Family) -> Result<String, String> {
    let example = if family == Family::V4 { "10.0.0.0/8" } else { "fd00::/8" };
    match value.parse::<IpNet>() {
        Ok(network) if Family::of_net(&network) != family => {
            Err(format!("is an {} network; write an {family} one such as {example}", Family::of_net(&network)))
        }
        Ok(network) => Ok(network.trunc().to_string()),
        Err(_) => Err(format!("is no network; write an {family} one such as {example}")),
    }
}

fn check_name(value: &str) -> Result<(), String> {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    if value.is_empty() || !value.chars().all(fits) {
        return Err("is no registry name; write one of those that `kinesin backends` lists".to_owned());
    }
    Ok(())
}

fn check_cluster_name(value: &str) -> Result<String, String> {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let ends = value.chars().next().is_some_and(inner) && value.chars().last().is_some_and(inner);
    if ends && value.len() <= 32 && value.chars().all(|letter| inner(letter) || letter == '-') {
        return Ok(value.to_owned());
    }
    Err("is no cluster name; write up to 32 of a-z, 0-9 and -, with no - at either end".to_owned())
}

/// A duration in Go's notation, as every key of that kind is read; `None` for anything else. One of more than 584 years is
/// as long as 2^64 - 1 ns.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// assert_eq!(kinesin_core::config::keys::parse_duration("1m30s"), Some(Duration::from_secs(90)));
/// assert_eq!(kinesin_core::config::keys::parse_duration("soon"), None);
/// ```
#[must_use]
pub fn parse_duration(value: &str) -> Option<Duration> {
    parse_duration_ns(value).map(|nanoseconds| Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

/// Nanoseconds of a duration in Go's notation; `None` for anything else.
fn parse_duration_ns(value: &str) -> Option<u128> {
    if value == "0" {
        return Some(0);
    }
    let mut rest = value;
    let mut total = 0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        total += number * length;
        rest = &rest[unit.len()..];
    }
    // The cast saturates; every duration that a person writes is far below.
    (!value.is_empty()).then_some(total as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_normalised_or_refused_with_what_is_allowed() {
        let cases: &[(Kind, &str, Result<&str, &str>)] = &[
            (Kind::Bool, "True", Ok("true")),
            (Kind::Bool, "yes", Err("is no boolean; write \"true\" or \"false\"")),
            (Kind::Int(1, 65535), "8472", Ok("8472")),
            (Kind::Int(0, 65535), "65536", Err("is out of range; write a number from 0 to 65535")),
            (Kind::Int(0, 9), "-1", Err("is no whole number; write one from 0 to 9")),
            (Kind::Choice(&["native", "tunnel"]), "Native", Ok("native")),
            (Kind::Choice(&["native", "tunnel"]), "bgp", Err("is not allowed; write one of native, tunnel")),
            (Kind::Cidr(Family::V4), "10.1.2.3/8", Ok("10.0.0.0/8")),
            (Kind::Cidr(Family::V4), "fd00::/8", Err("is an IPv6 network; write an IPv4 one such as 10.0.0.0/8")),
            (Kind::Cidr(Family::V6), "10/8", Err("is no network; write an IPv6 one such as fd00::/8")),
            (Kind::List, " eth0,eth1\n eth+ ", Ok("eth0 eth1 eth+")),
            (Kind::Name, "Host-Scope", Err("is no registry name; write one of those that `kinesin backends` lists")),
            (Kind::Names, "ebpf, xdp", Ok("ebpf xdp")),
            (Kind::Path, "etc", Err("is no absolute path; let it start with /")),
            (Kind::Duration, "1m30s", Ok("1m30s")),
            (Kind::Duration, "soon", Err("is no duration; write one such as 30s, 5m0s or 100ms")),
            (Kind::Ratio, "0.0025", Ok("0.0025")),
            (Kind::Ratio, "NaN", Err("is no ratio; write a number from 0 to 1")),
            (Kind::ClusterName, "lab-1", Ok("lab-1")),
            (
                Kind::ClusterName,
                "Lab",
                Err("is no cluster name; write up to 32 of a-z, 0-9 and -, with no - at either end"),
            ),
        ];
        for (kind, value, expected) in cases {
            let found = kind.check(value);
            assert_eq!(found.as_deref().map_err(String::as_str), *expected, "{kind:?} {value:?}");
        }
    }

    #[test]
    fn durations_are_compared_by_length() {
        assert!(Kind::Duration.same("15m0s", "15m"));
        assert!(Kind::Duration.same("1.5s", "1500ms"));
        assert!(!Kind::Duration.same("15m", "15s"));
        assert!(!Kind::Bool.same("true", "false"));
        assert!(Kind::Bool.same("true", "True"));
    }
}
