//! What routers on the way to other nodes said of the underlay there, as the programs noted it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use kinesin_abi::{EndpointKey, PathMtuValue};
use kinesin_loader::{LoaderError, Table};
use nix::time::{ClockId, clock_gettime};

use crate::entries::ip;

/// How long it holds: as long as Linux believes the same of its own ways (`mtu_expires`, `ip-sysctl.rst`). The way may have
/// become wider, which nobody tells.
const HOLDS: Duration = Duration::from_mins(10);

/// What holds still, by the node's address; what does not is removed. The table outlives the agent, and with it the times.
pub(crate) fn holding(table: &mut Table<EndpointKey, PathMtuValue>) -> Result<BTreeMap<IpAddr, u32>, LoaderError> {
    let entries = table.entries()?;
    if entries.is_empty() {
        return Ok(BTreeMap::new());
    }
    let now = since_boot();
    let mut holding = BTreeMap::new();
    for (key, value) in entries {
        match ip(&key.addr, key.family) {
            Some(node) if is_holding(value.told, now) => drop(holding.insert(node, value.mtu)),
            _ => table.remove(&key)?,
        }
    }
    Ok(holding)
}

/// Whether what was said at one time holds at another; what was said later than now was said just now.
fn is_holding(told_nanos: u64, now: Duration) -> bool {
    now.saturating_sub(Duration::from_nanos(told_nanos)) < HOLDS
}

/// The clock that the programs note; without one everything counts as new.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_holds_ten_minutes() {
        let now = Duration::from_secs(10_000);
        let ago = |seconds: u64| u64::try_from(now.as_nanos()).expect("it fits") - seconds * 1_000_000_000;
        assert!(is_holding(ago(0), now) && is_holding(ago(599), now));
        assert!(!is_holding(ago(600), now) && !is_holding(0, now));
        // The program looks at the clock after we did.
        assert!(is_holding(u64::try_from(now.as_nanos()).expect("it fits") + 5, now));
    }
}
