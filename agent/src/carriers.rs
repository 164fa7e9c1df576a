//! What carries packets to each node, as far as the nodes' announcements decide it: pure.
//!
//! Every node announces by which carrier it wants to be reached, and which it takes apart besides. The rules:
//!
//! - A node accepts the carrier of its own configuration, and whatever any other node prefers, so that it can send it.
//! - A node is reached by the carrier that it prefers. A node that does not have that one, or at another port, takes its
//!   own if the other accepts it, else any that both have.
//! - A node that announces nothing is reached by this node's own carrier.
//! - What nobody wants any more is accepted a while longer: others may not have heard of it yet.
//!
//! So a cluster changes its carrier node by node, and each pair of nodes changes when the receiver has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use kinesin_core::values::Carrier;
use serde::{Deserialize, Serialize};

/// A carrier as nodes have to agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Format {
    pub(crate) carrier: Carrier,
    /// UDP port of a tunnel; none for the network itself.
    pub(crate) port: Option<u16>,
}

/// What a node announces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// By what it wants to be reached.
    pub(crate) prefers: Option<Format>,
    /// What it accepts.
    pub(crate) accepts: BTreeSet<Format>,
}

/// What this node accepts, and how it reaches the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Carriers {
    /// By what this node wants to be reached.
    pub(crate) own: Format,
    /// What it accepts and may send: one port for each carrier.
    pub(crate) accepts: BTreeMap<Carrier, Option<u16>>,
    /// What carries packets to each node.
    pub(crate) by_peer: BTreeMap<String, Carrier>,
    /// Nodes with which this one has no carrier in common, each with the reason.
    pub(crate) impossible: BTreeMap<String, String>,
}

/// Applies the rules; `have` are the carriers that this agent has backends for, `held` what it has to accept still.
pub(crate) fn decide<'a>(
    own: Format,
    have: &BTreeSet<Carrier>,
    held: impl IntoIterator<Item = Format>,
    peers: impl IntoIterator<Item = (&'a String, &'a Said)> + Clone,
) -> Carriers {
    let mut accepts = BTreeMap::from([(own.carrier, own.port)]);
    let preferred = peers.clone().into_iter().filter_map(|(_, said)| said.prefers);
    for format in preferred.chain(held).filter(|format| have.contains(&format.carrier)) {
        // What comes to a port is told by the port alone, so two tunnels cannot share one.
        let is_free = format.port.is_none() || !accepts.values().any(|port| *port == format.port);
        if is_free {
            accepts.entry(format.carrier).or_insert(format.port);
        }
    }
    let mut found = Carriers { own, accepts, by_peer: BTreeMap::new(), impossible: BTreeMap::new() };
    for (name, said) in peers {
        match found.to(said) {
            Ok(carrier) => drop(found.by_peer.insert(name.clone(), carrier)),
            Err(reason) => drop(found.impossible.insert(name.clone(), reason)),
        }
    }
    found
}

impl Carriers {
    fn to(&self, said: &Said) -> Result<Carrier, String> {
        let Some(preferred) = said.prefers else { return Ok(self.own.carrier) };
        let has = |format: &Format| self.accepts.get(&format.carrier) == Some(&format.port);
        if has(&preferred) {
            return Ok(preferred.carrier);
        }
        if said.accepts.contains(&self.own) {
            return Ok(self.own.carrier);
        }
        said.accepts.iter().find(|format| has(format)).map(|format| format.carrier).ok_or_else(|| {
            format!(
                "it is to be reached by {preferred} and accepts nothing that this node has ({}); give all nodes one \
                 routing-mode, tunnel-protocol and tunnel-port",
                list(self.formats())
            )
        })
    }

    /// What this node accepts.
    pub(crate) fn formats(&self) -> impl Iterator<Item = Format> {
        self.accepts.iter().map(|(carrier, port)| Format { carrier: *carrier, port: *port })
    }

    /// What this node announces once the datapath does it.
    pub(crate) fn said(&self) -> Said {
        Said { prefers: Some(self.own), accepts: self.formats().collect() }
    }

    /// Whether any node is reached by this carrier.
    pub(crate) fn uses(&self, carrier: Carrier) -> bool {
        self.by_peer.values().any(|used| *used == carrier)
    }
}

impl Format {
    /// A carrier at a configured port, or at its own.
    pub(crate) fn new(carrier: Carrier, port: Option<u16>) -> Self {
        Self { carrier, port: carrier.default_port().map(|own| port.unwrap_or(own)) }
    }
}

impl Said {
    /// Reads an announcement; what this version does not know is as good as not said.
    pub(crate) fn parse(prefers: &str, accepts: &str) -> Self {
        let parse = |word: &str| word.parse::<Format>().ok();
        Self { prefers: parse(prefers), accepts: accepts.split(',').filter_map(parse).collect() }
    }

    /// The two texts of the announcement.
    pub(crate) fn texts(&self) -> (String, String) {
        let prefers = self.prefers.map(|format| format.to_string()).unwrap_or_default();
        (prefers, list(self.accepts.iter().copied()))
    }
}

fn list(formats: impl Iterator<Item = Format>) -> String {
    formats.map(|format| format.to_string()).collect::<Vec<_>>().join(",")
}

/// `native`, `vxlan:8472`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.carrier),
            Some(port) => write!(f, "{}:{port}", self.carrier),
        }
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is no carrier; it would be native, vxlan:PORT or geneve:PORT");
        let (word, port) = match text.split_once(':') {
            Some((word, port)) => (word, Some(port.parse::<u16>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let carrier = Carrier::ALL.into_iter().find(|carrier| carrier.to_string() == word).ok_or_else(wrong)?;
        match (carrier.default_port(), port) {
            (None, None) | (Some(_), Some(1..)) => Ok(Self { carrier, port }),
            _ => Err(wrong()),
        }
    }
}

impl From<Format> for String {
    fn from(format: Format) -> Self {
        format.to_string()
    }
}

impl TryFrom<String> for Format {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: Format = Format { carrier: Carrier::Native, port: None };
    const VXLAN: Format = Format { carrier: Carrier::Vxlan, port: Some(8472) };
    const GENEVE: Format = Format { carrier: Carrier::Geneve, port: Some(6081) };

    fn all() -> BTreeSet<Carrier> {
        Carrier::ALL.into()
    }

    fn said(prefers: Format, accepts: &[Format]) -> Said {
        Said { prefers: Some(prefers), accepts: accepts.iter().copied().chain([prefers]).collect() }
    }

    /// A cluster in which every node has heard of every other: what each one accepts and how it reaches the others.
    fn settled(preferences: &[Format]) -> Vec<Carriers> {
        let mut said: Vec<Said> = preferences.iter().map(|own| said(*own, &[])).collect();
        let names: Vec<String> = (0..preferences.len()).map(|index| format!("w{index}")).collect();
        let mut carriers = Vec::new();
        for _ in 0..2 {
            carriers = (0..preferences.len())
                .map(|at| {
                    let peers: Vec<_> =
                        names.iter().zip(&said).enumerate().filter(|(i, _)| *i != at).map(|(_, p)| p).collect();
                    decide(preferences[at], &all(), [], peers)
                })
                .collect();
            said = carriers.iter().map(Carriers::said).collect();
        }
        carriers
    }

    #[test]
    fn each_node_is_reached_by_what_it_prefers_and_accepts_what_reaches_it() {
        for preferences in [
            [NATIVE, NATIVE, NATIVE],
            [VXLAN, NATIVE, NATIVE],
            [VXLAN, VXLAN, NATIVE],
            [GENEVE, VXLAN, NATIVE],
            [GENEVE, GENEVE, GENEVE],
        ] {
            let nodes = settled(&preferences);
            for (at, node) in nodes.iter().enumerate() {
                assert!(node.impossible.is_empty(), "{node:?}");
                for (other, preferred) in preferences.iter().enumerate().filter(|(other, _)| *other != at) {
                    let carrier = node.by_peer[&format!("w{other}")];
                    assert_eq!(carrier, preferred.carrier, "{preferences:?}: {at} to {other}");
                    assert!(nodes[other].accepts.contains_key(&carrier), "{preferences:?}: {at} to {other}");
                }
            }
            let used: BTreeSet<Format> = preferences.into();
            assert!(nodes.iter().all(|node| node.formats().collect::<BTreeSet<_>>() == used), "nothing is left over");
        }
    }

    #[test]
    fn a_carrier_that_nobody_prefers_is_accepted_while_it_is_held() {
        let name = "w1".to_owned();
        let peer = said(VXLAN, &[NATIVE]);
        let found = decide(VXLAN, &all(), [NATIVE], [(&name, &peer)]);
        assert_eq!(found.formats().collect::<Vec<_>>(), [NATIVE, VXLAN]);
        assert_eq!(found.by_peer[&name], Carrier::Vxlan);
    }

    #[test]
    fn two_tunnels_do_not_share_a_port() {
        let own = Format { port: GENEVE.port, ..VXLAN };
        let (name, peer) = ("w1".to_owned(), said(GENEVE, &[]));
        let found = decide(own, &all(), [], [(&name, &peer)]);
        assert_eq!(found.formats().collect::<Vec<_>>(), [own]);
        assert!(found.impossible[&name].contains("tunnel-port"), "{found:?}");
    }

    #[test]
    fn nodes_without_a_common_carrier_are_named_and_cost_nobody_else_anything() {
        let (far, old, near) = ("far".to_owned(), "old".to_owned(), "near".to_owned());
        let elsewhere = said(Format { port: Some(4789), ..VXLAN }, &[]);
        let silent = Said::default();
        let both = said(GENEVE, &[VXLAN]);
        let have = BTreeSet::from([Carrier::Vxlan]);
        let found = decide(VXLAN, &have, [], [(&far, &elsewhere), (&old, &silent), (&near, &both)]);
        assert_eq!(found.by_peer, BTreeMap::from([(near, Carrier::Vxlan), (old, Carrier::Vxlan)]));
        let reason = &found.impossible[&far];
        assert!(
            reason.contains("vxlan:4789") && reason.contains("vxlan:8472") && reason.contains("tunnel-port"),
            "{reason}"
        );
    }

    #[test]
    fn announcements_are_read_as_they_are_written_and_unknown_words_are_left_out() {
        let said = said(VXLAN, &[NATIVE, GENEVE]);
        let (prefers, accepts) = said.texts();
        assert_eq!((prefers.as_str(), accepts.as_str()), ("vxlan:8472", "native,vxlan:8472,geneve:6081"));
        assert_eq!(Said::parse(&prefers, &accepts), said);
        assert_eq!(Said::parse("", ""), Said::default());
        assert_eq!(
            Said::parse("pigeon:1", "pigeon:1,native,vxlan,native:3,vxlan:0,geneve:x").accepts,
            BTreeSet::from([NATIVE])
        );
        let text = serde_json::to_string(&said).expect("JSON");
        assert_eq!(serde_json::from_str::<Said>(&text).expect("read"), said);
    }
}
