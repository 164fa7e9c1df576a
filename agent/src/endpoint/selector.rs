//! Endpoint ids in paths: a bare number, or PREFIX:VALUE.

use std::{fmt, net::IpAddr, str::FromStr};

use kinesin_core::values::EndpointId;

use super::Record;

/// How a request names an endpoint (reference, section 3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// `7` or `cilium-local:7`.
    Id(EndpointId),
    /// `container-id:ID`.
    Container(String),
    /// `cni-attachment-id:ID:IFNAME`.
    Attachment(String),
    /// `pod-name:NAMESPACE:NAME` or `cep-name:NAMESPACE/NAME`.
    Pod(String, String),
    /// `ipv4:ADDRESS`, `ipv6:ADDRESS`.
    Address(IpAddr),
}

/// A text that names no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no endpoint; write a number, or cni-attachment-id:ID:IFNAME, container-id:ID, pod-name:NAMESPACE:NAME, \
     ipv4:ADDRESS or ipv6:ADDRESS"
)]
pub(crate) struct SelectorError(String);

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || SelectorError(text.chars().take(200).collect());
        let number = |value: &str| match value.parse() {
            Ok(0) | Err(_) => Err(wrong()),
            Ok(id) => Ok(Self::Id(EndpointId(id))),
        };
        let Some((prefix, value)) = text.split_once(':') else {
            return number(text);
        };
        if value.is_empty() {
            return Err(wrong());
        }
        match prefix {
            "cilium-local" => number(value),
            "container-id" => Ok(Self::Container(value.to_owned())),
            "cni-attachment-id" => Ok(Self::Attachment(value.to_owned())),
            "pod-name" | "cep-name" => {
                let (namespace, name) = value.split_once(':').or_else(|| value.split_once('/')).ok_or_else(wrong)?;
                // Endpoints without a Pod have neither, and this names none of them.
                if namespace.is_empty() || name.is_empty() {
                    return Err(wrong());
                }
                Ok(Self::Pod(namespace.to_owned(), name.to_owned()))
            }
            "ipv4" => value.parse().map(|ip| Self::Address(IpAddr::V4(ip))).map_err(|_| wrong()),
            "ipv6" => value.parse().map(|ip| Self::Address(IpAddr::V6(ip))).map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Container(id) => write!(f, "container-id:{id}"),
            Self::Attachment(id) => write!(f, "cni-attachment-id:{id}"),
            Self::Pod(namespace, name) => write!(f, "pod-name:{namespace}:{name}"),
            Self::Address(ip @ IpAddr::V4(_)) => write!(f, "ipv4:{ip}"),
            Self::Address(ip @ IpAddr::V6(_)) => write!(f, "ipv6:{ip}"),
        }
    }
}

impl Selector {
    /// Whether it names this endpoint.
    pub(crate) fn matches(&self, record: &Record) -> bool {
        match self {
            Self::Id(id) => record.id == *id,
            Self::Container(id) => record.request.container_id == *id,
            Self::Attachment(id) => record.attachment() == *id,
            Self::Pod(namespace, name) => {
                record.request.k8s_namespace == *namespace && record.request.k8s_pod_name == *name
            }
            Self::Address(ip) => record.lease.addresses.iter().any(|leased| leased.ip == *ip),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::record;

    #[test]
    fn every_form_finds_its_endpoint() {
        let record = record(7, "10.0.0.7");
        for text in [
            "7",
            "cilium-local:7",
            "container-id:c7",
            "cni-attachment-id:c7:eth0",
            "pod-name:default:web-7",
            "pod-name:default/web-7",
            "ipv4:10.0.0.7",
        ] {
            let selector: Selector = text.parse().expect(text);
            assert!(selector.matches(&record), "{text}");
        }
        let other: Selector = "cni-attachment-id:c7:eth1".parse().expect("valid");
        assert!(!other.matches(&record));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "0",
            "65536",
            "-1",
            "x",
            "ipv4:nine",
            "ipv4:fd00::7",
            "ipv6:10.0.0.7",
            "pod-name:alone",
            "pod-name::",
            "pod-name:/",
            "cep-name:default/",
            "docker:7",
            "container-id:",
        ] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
