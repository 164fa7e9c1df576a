//! The story of pools: IPAM-11.

use kinesin_core::{
    ipam::{IpamError, Lease},
    values::Family,
};

use super::{
    behaviours::{OTHER, SMALL},
    harness::{DEFAULT_POOL, Harness, Node, block_of, only},
    history,
};
use crate::outcome::{Judged, Stop, ensure};

pub(super) fn ipam_11(harness: &Harness) -> Judged {
    let node = harness.node()?;
    let blocks = [("default", SMALL[0]), ("default", SMALL[1]), ("green", OTHER[0]), ("green", OTHER[1])];
    let more = [("green", "10.3.0.0/29"), ("green", "fd00:3::/125")];
    let named = |blocks: &[(&str, &str)]| node.state_of(blocks.iter().map(|(pool, cidr)| block_of(pool, cidr)));
    node.take(&named(&blocks))?;
    for family in node.families.iter() {
        let (mine, _) = from_pool(&node, None, family)?;
        ensure!(!mine.is_empty(), "a request without a pool got nothing from {DEFAULT_POOL:?}");
        let rest = from_pool(&node, Some(DEFAULT_POOL), family)?;
        ensure!(rest.0.is_empty(), "{DEFAULT_POOL:?} was full, and by its name it gave {:?}", rest.0);
    }
    for pool in if node.named_pools { ["green", "none"].as_slice() } else { &["none"] } {
        for family in node.families.iter() {
            let before = node.snapshot();
            let (leases, error) = from_pool(&node, Some(pool), family)?;
            if *pool == "green" {
                ensure!(!leases.is_empty(), "pool {pool:?} gave nothing, since {error}");
                continue;
            }
            let told = matches!(
                error,
                IpamError::UnknownPool { .. } | IpamError::NotReady { .. } | IpamError::PoolNotReady { .. }
            );
            ensure!(told && leases.is_empty(), "a pool without blocks gave {leases:?} and answered {error:?}");
            ensure!(node.snapshot() == before, "a pool without blocks left {:?}", node.snapshot());
        }
    }
    if node.named_pools {
        // A block that is added to a full pool is that pool's alone.
        node.take(&named(&[&blocks[..], &more[..]].concat()))?;
        for family in node.families.iter() {
            if let Ok(lease) = node.allocate(&format!("extra-{family}"), only(family))? {
                return Err(Stop::broken(format!(
                    "blocks were added to \"green\", and {DEFAULT_POOL:?} gave {lease:?}"
                )));
            }
            let grown = node.allocate_from(Some("green"), &format!("late-{family}"), only(family))?;
            grown.map_err(|error| Stop::broken(format!("blocks were added to \"green\", and it answers {error}")))?;
        }
    }
    history::judge(harness, "IPAM-11")
}

/// Fills a pool, whose blocks alone must give the addresses.
fn from_pool(node: &Node<'_>, pool: Option<&str>, family: Family) -> Result<(Vec<Lease>, IpamError), Stop> {
    let (leases, error) = node.fill_from(pool, family)?;
    let wanted = pool.unwrap_or(DEFAULT_POOL);
    for leased in leases.iter().flat_map(|lease| &lease.addresses) {
        let from = &leased.block.pool;
        ensure!(from == wanted, "{} of pool {from:?} was leased to a request for {wanted:?}", leased.ip);
    }
    Ok((leases, error))
}
