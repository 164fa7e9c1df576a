//! Figures of addresses and paths in Prometheus' text format; names are Cilium's where Cilium has the figure.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use kinesin_core::{
    ipam::{Demand, IpamSnapshot, Lease},
    values::Family,
};

use crate::{connectivity, engine::Engine};

/// Counted since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    allocated: [AtomicU64; 2],
    released: [AtomicU64; 2],
}

impl Counters {
    pub(crate) fn leased(&self, lease: &Lease) {
        add(&self.allocated, lease);
    }

    pub(crate) fn released(&self, lease: &Lease) {
        add(&self.released, lease);
    }
}

fn add(counters: &[AtomicU64; 2], lease: &Lease) {
    for (counter, family) in counters.iter().zip(Family::ALL) {
        if lease.address(family).is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Everything, as `GET /metrics` answers it.
pub(crate) fn text(engine: &Engine) -> String {
    let snapshot = engine.backends.ipam.snapshot();
    let demand = engine.backends.ipam.preferred().ipam.demand();
    let mut text = String::new();
    render(&mut text, &snapshot, &demand, &engine.counters);
    header(&mut text, "kinesin_ipam_exhausted_total", "counter", "Pods that found no free address");
    for ((pool, family), count) in engine.exhaustion.failures() {
        let _ = writeln!(text, "kinesin_ipam_exhausted_total{{pool={pool:?},family=\"{}\"}} {count}", word(family));
    }
    if engine.config.health.enabled {
        connectivity::metrics(&mut text, &engine.connectivity, &engine.config.cluster_name, &engine.node_name);
    }
    text
}

fn render(text: &mut String, snapshot: &IpamSnapshot, demand: &Demand, counters: &Counters) {
    let of = |family, figure: fn(&kinesin_core::ipam::BlockUse) -> u64| -> u64 {
        let blocks = snapshot.blocks.iter().filter(|used| Family::of_net(&used.block.cidr) == family);
        blocks.map(figure).sum()
    };
    header(text, "cilium_ipam_capacity", "gauge", "Addresses of the node's blocks");
    for family in Family::ALL {
        let _ =
            writeln!(text, "cilium_ipam_capacity{{family=\"{}\"}} {}", word(family), of(family, |used| used.capacity));
    }
    header(text, "cilium_ip_addresses", "gauge", "Addresses leased");
    for family in Family::ALL {
        let _ = writeln!(text, "cilium_ip_addresses{{family=\"{}\"}} {}", word(family), of(family, |used| used.leased));
    }
    header(text, "cilium_ipam_events_total", "counter", "Addresses leased and released since the start");
    for (action, counts) in [("allocate", &counters.allocated), ("release", &counters.released)] {
        for (count, family) in counts.iter().zip(Family::ALL) {
            let count = count.load(Ordering::Relaxed);
            let family = word(family);
            let _ = writeln!(text, "cilium_ipam_events_total{{action=\"{action}\",family=\"{family}\"}} {count}");
        }
    }
    header(text, "kinesin_ipam_waiting", "gauge", "Pods that wait for a free address");
    for found in &demand.pools {
        let (pool, family) = (&found.pool, word(found.family));
        let _ = writeln!(text, "kinesin_ipam_waiting{{pool={pool:?},family=\"{family}\"}} {}", found.waiting);
    }
}

pub(crate) fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

#[cfg(test)]
mod tests {
    use kinesin_core::ipam::{Block, BlockUse, PoolDemand};

    use super::*;

    #[test]
    fn figures_stand_under_ciliums_names() {
        let block = Block { pool: "default".to_owned(), cidr: "10.0.0.0/29".parse().expect("a network") };
        let blocks = vec![BlockUse { block, leased: 4, capacity: 6, draining: false }];
        let snapshot = IpamSnapshot { blocks, ..IpamSnapshot::default() };
        let waiting = PoolDemand { pool: "vac".to_owned(), family: Family::V4, in_use: 0, waiting: 2, wanted: 2 };
        let mut text = String::new();
        let demand = Demand { pools: vec![waiting], bounded: None };
        render(&mut text, &snapshot, &demand, &Counters::default());
        for expected in [
            "# TYPE cilium_ipam_capacity gauge\n",
            "cilium_ipam_capacity{family=\"ipv4\"} 6\n",
            "cilium_ip_addresses{family=\"ipv4\"} 4\n",
            "cilium_ip_addresses{family=\"ipv6\"} 0\n",
            "cilium_ipam_events_total{action=\"release\",family=\"ipv6\"} 0\n",
            "kinesin_ipam_waiting{pool=\"vac\",family=\"ipv4\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
    }
}
