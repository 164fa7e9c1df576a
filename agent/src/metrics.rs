//! Figures of addresses, packets and paths in Prometheus' text format; names are Cilium's where Cilium has the figure.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
};

use kinesin_core::{
    chassis::Counter,
    ipam::{Demand, IpamSnapshot, Lease},
    values::{Carrier, Family},
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
pub(crate) async fn text(engine: &Engine) -> String {
    // Read from the kernel, which needs no turn of ours; before the datapath is there, nothing was counted.
    let packets = engine.backends.chassis.counters().await.unwrap_or_default();
    let mut reached = Carrier::ALL.map(|carrier| (carrier, 0_usize));
    if let Some(datapath) = &engine.state().await.datapath {
        for (carrier, nodes) in &mut reached {
            *nodes = datapath.carriers.values().filter(|used| *used == carrier).count();
        }
    }
    let snapshot = engine.backends.ipam.snapshot();
    let demand = engine.backends.ipam.preferred().ipam.demand();
    let mut text = String::new();
    render(&mut text, &snapshot, &demand, &engine.counters);
    header(&mut text, "kinesin_ipam_exhausted_total", "counter", "Pods that found no free address");
    for ((pool, family), count) in engine.exhaustion.failures() {
        let _ = writeln!(text, "kinesin_ipam_exhausted_total{{pool={pool:?},family=\"{}\"}} {count}", word(family));
    }
    forwarding(&mut text, &packets, &reached);
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

/// What became of packets, and how other nodes are reached: while a cluster changes its carrier, by more than one.
fn forwarding(text: &mut String, counters: &[Counter], reached: &[(Carrier, usize)]) {
    // Several reasons of one text are one series: a series that stands twice makes Prometheus refuse all of them.
    let mut dropped: BTreeMap<(&str, &str), [u64; 2]> = BTreeMap::new();
    let mut forwarded: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for counter in counters {
        let sums = match counter.reason {
            _ if counter.is_drop() => dropped.entry((&counter.text, counter.direction)).or_default(),
            0 => forwarded.entry(counter.direction).or_default(),
            _ => continue,
        };
        sums[0] += counter.packets;
        sums[1] += counter.bytes;
    }
    for (at, unit, help) in [(0, "count", "Packets"), (1, "bytes", "Bytes")] {
        let name = format!("cilium_drop_{unit}_total");
        header(text, &name, "counter", &format!("{help} dropped, by reason"));
        for ((reason, direction), sums) in &dropped {
            let direction = direction.to_uppercase();
            let _ = writeln!(text, "{name}{{reason={reason:?},direction=\"{direction}\"}} {}", sums[at]);
        }
        let name = format!("cilium_forward_{unit}_total");
        header(text, &name, "counter", &format!("{help} forwarded"));
        for (direction, sums) in &forwarded {
            let _ = writeln!(text, "{name}{{direction=\"{}\"}} {}", direction.to_uppercase(), sums[at]);
        }
    }
    header(text, "kinesin_routing_nodes", "gauge", "Other nodes, by the carrier that reaches them");
    for (carrier, nodes) in reached {
        let _ = writeln!(text, "kinesin_routing_nodes{{carrier=\"{carrier}\"}} {nodes}");
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

    #[test]
    fn packets_and_ways_to_nodes_are_told() {
        let counter = |reason, text: &str, direction, packets| Counter {
            reason,
            text: text.to_owned(),
            direction,
            packets,
            bytes: packets * 100,
        };
        let counters = [
            counter(0, "Success", "egress", 5),
            counter(1, "Link signalling", "egress", 9),
            counter(132, "Invalid source ip", "ingress", 2),
            counter(133, "Invalid source ip", "ingress", 1),
        ];
        let mut text = String::new();
        forwarding(&mut text, &counters, &[(Carrier::Native, 1), (Carrier::Vxlan, 2)]);
        for expected in [
            "cilium_drop_count_total{reason=\"Invalid source ip\",direction=\"INGRESS\"} 3\n",
            "cilium_drop_bytes_total{reason=\"Invalid source ip\",direction=\"INGRESS\"} 300\n",
            "cilium_forward_count_total{direction=\"EGRESS\"} 5\n",
            "cilium_forward_bytes_total{direction=\"EGRESS\"} 500\n",
            "kinesin_routing_nodes{carrier=\"native\"} 1\n",
            "kinesin_routing_nodes{carrier=\"vxlan\"} 2\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains("Link signalling"), "{text}");
    }
}
