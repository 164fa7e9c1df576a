//! What the underlay carries to each node: as the nodes announce it, and as routers on the way say.
//!
//! The longest packet to another node is what both ends' uplinks carry. A node knows its own; it announces it as it announces
//! its carriers, and takes account of what the others announce. Whoever says nothing counts as no narrower than this node.
//! A router on the way that carries less says so about a tunnel's packet, once it has met one that is too big; the chassis
//! hears it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use kinesin_core::{
    chassis::ChassisError,
    routing::{IPV4_LEAST_MTU, IPV6_LEAST_MTU},
    values::{Families, Family},
};

use crate::{
    engine::{Engine, EngineError, State},
    node::NodeLinks,
    store::PeerRecord,
};

/// Name of the loop in `status`.
pub(crate) const NAME: &str = "follow-path-mtu";
/// How often it is looked what routers have said. Their first word narrows the way of the packet that it is about at once; what
/// else leads to that node, and the node's own stack, waits as long as this at most.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// The longest IP packet: its length has 16 bits (RFC 791 section 3.1).
const LONGEST: u32 = 65_535;

/// What this node announces: what its uplink carries in bytes, or less where the configuration says that what lies behind it
/// carries less. Nothing without an uplink.
pub(crate) fn own(links: &NodeLinks, device_mtu_bytes: u32) -> Option<u32> {
    links.uplinks.first().map(|link| link.mtu.min(device_mtu_bytes).min(LONGEST))
}

/// Reads an announcement; an empty one says nothing.
///
/// # Errors
/// Why it cannot be right. A node that said less than every link carries would make its own pods unreachable.
pub(crate) fn parse(text: &str, families: Families) -> Result<Option<u32>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let least = if families.contains(Family::V6) { IPV6_LEAST_MTU } else { IPV4_LEAST_MTU };
    let bytes = text.parse::<u32>().ok().filter(|bytes| (least..=LONGEST).contains(bytes));
    bytes.map(Some).ok_or_else(|| {
        // Whatever somebody wrote there, it must not fill the log.
        let shown: String = text.chars().take(20).collect();
        format!(
            "it announces {shown:?} as the MTU of its uplink, which is no number from {least} to {LONGEST}; ignored"
        )
    })
}

/// Announcements that were refused, by node; whoever is new among them is logged.
pub(crate) fn note_refused(state: &mut State, refused: BTreeMap<String, String>) {
    for (node, reason) in refused.iter().filter(|(node, reason)| state.refused_mtus.get(*node) != Some(reason)) {
        tracing::warn!(node, reason, "an MTU that cannot be right");
    }
    state.refused_mtus = refused;
}

/// What `status` says of refused announcements.
pub(crate) fn refused(state: &State) -> impl Iterator<Item = String> {
    state.refused_mtus.iter().map(|(node, reason)| format!("node {node}: {reason}"))
}

/// What the underlay carries to a peer, as far as anybody has said it: the peer itself, or a router on the way to it.
pub(crate) fn known(peer: &PeerRecord, told: &BTreeMap<IpAddr, u32>) -> Option<u32> {
    peer.addresses.iter().filter_map(|ip| told.get(ip)).chain(&peer.mtu_bytes).min().copied()
}

impl Engine {
    /// Takes up what routers have said, and lets go what they have said too long ago.
    pub(crate) async fn follow_told_mtus(&self) -> Result<(), EngineError> {
        let told = match self.backends.chassis.told_mtus().await {
            // What an earlier run knew holds until then.
            Err(ChassisError::NotReady) => return Ok(()),
            told => told?,
        };
        let mut state = self.state().await;
        if state.node.told_mtus == told {
            return Ok(());
        }
        for (node, mtu_bytes) in told.iter().filter(|(node, mtu)| state.node.told_mtus.get(*node) != Some(*mtu)) {
            tracing::info!(%node, mtu_bytes, "a router says that the way to a node is narrower");
        }
        for node in state.node.told_mtus.keys().filter(|node| !told.contains_key(*node)) {
            tracing::info!(%node, "what a router said of the way to a node is too old to hold");
        }
        state.node.told_mtus = told;
        self.wakes.datapath.notify_one();
        Ok(())
    }
}

/// What `status` says of nodes to which the way is narrower than this node's uplink.
pub(crate) fn told(state: &State) -> BTreeMap<String, String> {
    let Some(own) = state.datapath.as_ref().map(|datapath| datapath.device_mtu_bytes) else { return BTreeMap::new() };
    let narrow = |peer: &PeerRecord| {
        let bytes = known(peer, &state.node.told_mtus).filter(|mtu| *mtu < own)?;
        let source = if peer.mtu_bytes == Some(bytes) { "as it announces" } else { "as a router on the way says" };
        Some(format!("{bytes} bytes, {source}"))
    };
    state.node.peers.iter().filter_map(|(node, peer)| Some((node.clone(), narrow(peer)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::link;

    const V4: Families = Families { v4: true, v6: false };

    #[test]
    fn nonsense_is_refused_with_what_would_be_right() {
        assert_eq!(parse("", Families::DUAL), Ok(None));
        assert_eq!(parse("1380", Families::DUAL), Ok(Some(1380)));
        assert_eq!(parse("65535", Families::DUAL), Ok(Some(65_535)));
        assert_eq!(parse("576", V4), Ok(Some(576)));
        for (text, families) in [
            ("0", V4),
            ("575", V4),
            ("1279", Families::DUAL),
            ("65536", V4),
            ("4294967297", V4),
            ("-1380", V4),
            ("1380 ", V4),
            ("1e4", V4),
            ("vxlan:8472", V4),
        ] {
            let reason = parse(text, families).expect_err(text);
            assert!(reason.contains(text) && reason.contains("to 65535"), "{reason}");
        }
        assert!(parse(&"9".repeat(100_000), V4).expect_err("too long").len() < 200);
    }

    #[test]
    fn the_narrowest_that_anybody_says_counts() {
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let peer = |mtu_bytes| PeerRecord { addresses: vec![ip(1), ip(2)], mtu_bytes, ..PeerRecord::default() };
        let told = BTreeMap::from([(ip(2), 1400), (ip(3), 1300)]);
        assert_eq!(known(&peer(None), &told), Some(1400));
        assert_eq!(known(&peer(Some(1500)), &told), Some(1400));
        assert_eq!(known(&peer(Some(1380)), &told), Some(1380));
        assert_eq!(known(&peer(None), &BTreeMap::new()), None);
    }

    #[test]
    fn less_than_the_uplink_carries_is_announced_where_it_is_configured() {
        let links = NodeLinks { uplinks: vec![link(2, "eth0")], ..NodeLinks::default() };
        assert_eq!(own(&links, 1500), Some(1500));
        assert_eq!(own(&links, 1380), Some(1380));
        assert_eq!(own(&links, 9000), Some(1500));
        assert_eq!(own(&NodeLinks::default(), 1500), None);
    }
}
