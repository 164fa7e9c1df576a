//! Small values that every trait speaks of.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The family of a network.
    #[must_use]
    pub fn of_net(network: &IpNet) -> Self {
        Self::of(&network.addr())
    }

    /// Prefix length of a single address: 32 or 128.
    #[must_use]
    pub fn host_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The families that a node serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Families {
    /// IPv4 is on.
    pub v4: bool,
    /// IPv6 is on.
    pub v6: bool,
}

impl Families {
    /// IPv4 and IPv6.
    pub const DUAL: Self = Self { v4: true, v6: true };

    /// Whether `family` is on.
    #[must_use]
    pub fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// The families that are on, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address; write six pairs of hex digits such as 0a:58:0a:f4:00:05")]
pub struct ParseMacError(pub String);

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseMacError(text.to_owned());
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            // A number's own parser would take a sign for the first digit.
            let is_pair = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let part = parts.next().filter(is_pair).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() { Err(wrong()) } else { Ok(Self(bytes)) }
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Number of an endpoint on its node, 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub u16);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A security identity, 24 bits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity(pub u32);

impl Identity {
    /// The node itself.
    pub const HOST: Self = Self(1);
    /// Everything outside the cluster.
    pub const WORLD: Self = Self(2);
    /// The health endpoints.
    pub const HEALTH: Self = Self(4);
    /// An endpoint whose identity is not known yet.
    pub const INIT: Self = Self(5);
    /// Any other node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What carries packets to a peer; the datapath's route stage is indexed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// The network itself.
    Native,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
}

/// Family of the outer headers of tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Underlay {
    /// IPv4 between nodes that both have it, else IPv6.
    #[default]
    Auto,
    /// IPv4 alone.
    Ipv4,
    /// IPv6 alone.
    Ipv6,
}

impl Underlay {
    /// The families that may be used, the preferred one first.
    pub fn families(self) -> impl Iterator<Item = Family> {
        let both: &[Family] = match self {
            Self::Auto => &Family::ALL,
            Self::Ipv4 => &[Family::V4],
            Self::Ipv6 => &[Family::V6],
        };
        both.iter().copied()
    }
}

impl Carrier {
    /// Every carrier.
    pub const ALL: [Self; 3] = [Self::Native, Self::Vxlan, Self::Geneve];

    /// The UDP port of a tunnel unless another one is configured: as Linux and Cilium have it (IANA's for VXLAN is 4789),
    /// and IANA's for Geneve. None for the network itself.
    #[must_use]
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Native => None,
            Self::Vxlan => Some(8472),
            Self::Geneve => Some(6081),
        }
    }
}

/// The word for a carrier in configuration and objects: `native`, `vxlan`, `geneve`.
impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trips() {
        let mac: Mac = "0A:58:0a:f4:00:05".parse().expect("valid");
        assert_eq!(mac.to_string(), "0a:58:0a:f4:00:05");
    }

    #[test]
    fn wrong_mac_text_is_refused_by_name() {
        for text in ["", "0a:58", "0a:58:0a:f4:00:05:06", "0a:58:0a:f4:00:5", "zz:58:0a:f4:00:05", "+a:58:0a:f4:00:05"]
        {
            assert_eq!(text.parse::<Mac>(), Err(ParseMacError(text.to_owned())));
        }
    }

    #[test]
    fn families_iterate_ipv4_first() {
        assert!(Families::DUAL.iter().eq([Family::V4, Family::V6]));
        assert!(Families { v4: false, v6: true }.iter().eq([Family::V6]));
    }
}
