//! What is known of paths, for `status` and for Prometheus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use kinesin_agent_api::types::{ClusterHealth, NodeHealth, PathHealth, PathKind, ProbeResult};

use super::{
    probe::Outcome,
    record::{BUCKETS, Connectivity, Kind, Known, Record},
};
use crate::metrics::header;

/// For `status`.
pub(crate) fn status(connectivity: &Connectivity) -> ClusterHealth {
    let known = connectivity.known();
    let mut nodes: BTreeMap<&str, NodeHealth> = BTreeMap::new();
    for record in known.records.values() {
        let name = &record.target.node;
        let node = nodes.entry(name).or_insert_with(|| NodeHealth {
            name: name.clone(),
            local: record.target.is_local,
            paths: Vec::new(),
        });
        node.paths.push(path(record));
    }
    ClusterHealth {
        nodes: nodes.into_values().collect(),
        probe_interval_seconds: known.interval.as_secs(),
        probed_at: known.probed_at.map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
    }
}

fn path(record: &Record) -> PathHealth {
    let result = |found: &Result<std::time::Duration, String>| match found {
        Ok(time) => ProbeResult {
            latency_microseconds: Some(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
            error: String::new(),
        },
        Err(reason) => ProbeResult { latency_microseconds: None, error: reason.clone() },
    };
    PathHealth {
        kind: match record.target.kind {
            Kind::Node => PathKind::Node,
            Kind::Endpoint => PathKind::Endpoint,
        },
        address: record.target.path.peer,
        reachable: is_reachable(record),
        icmp: record.outcome.as_ref().map(|outcome| result(&outcome.icmp)),
        http: record.outcome.as_ref().map(|outcome| result(&outcome.http)),
        loss_percent: record.loss_percent(),
        problem: record.problem(),
    }
}

/// For Prometheus; names and labels are Cilium's where it has the figure (reference 14).
pub(crate) fn metrics(text: &mut String, connectivity: &Connectivity, cluster: &str, node: &str) {
    let known = connectivity.known();
    let source = format!("source_cluster={cluster:?},source_node_name={node:?}");
    let unreachable = |kind| {
        let records = known.records.values().filter(|record| record.target.kind == kind);
        let lost = records.filter(|record| is_reachable(record) == Some(false));
        lost.map(|record| &record.target.node).collect::<BTreeSet<_>>().len()
    };
    header(text, "cilium_unreachable_nodes", "gauge", "Nodes whose own address does not answer");
    let _ = writeln!(text, "cilium_unreachable_nodes{{{source}}} {}", unreachable(Kind::Node));
    header(text, "cilium_unreachable_health_endpoints", "gauge", "Health endpoints that do not answer");
    let _ = writeln!(text, "cilium_unreachable_health_endpoints{{{source}}} {}", unreachable(Kind::Endpoint));
    header(text, "cilium_node_health_connectivity_status", "gauge", "Paths by what the last probe found");
    for kind in Kind::ALL {
        for (status, paths) in ["reachable", "unreachable", "unknown"].into_iter().zip(count(&known, kind)) {
            let labels = format!("{source},type={:?},status={status:?}", kind.word());
            let _ = writeln!(text, "cilium_node_health_connectivity_status{{{labels}}} {paths}");
        }
    }
    let holes = known.records.values().filter(|record| record.is_black_hole()).count();
    header(text, "kinesin_mtu_black_holes", "gauge", "Paths on which packets of full size vanish without a word");
    let _ = writeln!(text, "kinesin_mtu_black_holes{{{source}}} {holes}");
    let name = "cilium_node_health_connectivity_latency_seconds";
    header(text, name, "histogram", "Time until a probe was answered");
    for ((kind, protocol), histogram) in &known.latency {
        let labels = format!("{source},type={:?},protocol={protocol:?}", kind.word());
        for (count, bound) in histogram.counts.iter().zip(BUCKETS) {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum_seconds);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", histogram.count);
    }
}

/// Absent before the first probe.
fn is_reachable(record: &Record) -> Option<bool> {
    record.outcome.as_ref().map(Outcome::is_reachable)
}

/// Paths that are reachable, that are not, and that were not probed yet.
fn count(known: &Known, kind: Kind) -> [usize; 3] {
    let mut counts = [0; 3];
    for record in known.records.values().filter(|record| record.target.kind == kind) {
        counts[match is_reachable(record) {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        }] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{
            probe::{Large, Path},
            record::Target,
        },
        *,
    };

    #[test]
    fn every_path_is_counted_under_its_state() {
        let connectivity = Connectivity::default();
        let target = |last: u8, kind| Target {
            node: format!("n{last}"),
            is_local: false,
            kind,
            path: Path { peer: [192, 0, 2, last].into(), port: 4240, mtu_bytes: 1500 },
        };
        let targets = [target(1, Kind::Node), target(2, Kind::Node), target(3, Kind::Node), target(4, Kind::Endpoint)];
        connectivity.expect(&targets, Duration::from_secs(30));
        let good = Outcome {
            icmp: Ok(Duration::from_micros(700)),
            http: Err("Connection refused".to_owned()),
            sent: 1,
            answered: 1,
            large: Large::Vanish,
        };
        connectivity.learn(&targets[0], good.clone());
        connectivity.learn(
            &targets[1],
            Outcome { icmp: Err("no answer".to_owned()), answered: 0, large: Large::Unknown, ..good },
        );

        let mut text = String::new();
        metrics(&mut text, &connectivity, "default", "w1");
        let source = "source_cluster=\"default\",source_node_name=\"w1\"";
        for expected in [
            format!("cilium_unreachable_nodes{{{source}}} 1\n"),
            format!("cilium_unreachable_health_endpoints{{{source}}} 0\n"),
            format!("cilium_node_health_connectivity_status{{{source},type=\"node\",status=\"reachable\"}} 1\n"),
            format!("cilium_node_health_connectivity_status{{{source},type=\"endpoint\",status=\"unknown\"}} 1\n"),
            format!("kinesin_mtu_black_holes{{{source}}} 1\n"),
            format!("_bucket{{{source},type=\"node\",protocol=\"icmp\",le=\"0.0005\"}} 0\n"),
            format!("_bucket{{{source},type=\"node\",protocol=\"icmp\",le=\"0.001\"}} 1\n"),
        ] {
            assert!(text.contains(&expected), "{expected} is not in {text}");
        }
        let status = status(&connectivity);
        assert_eq!(status.nodes.len(), 4);
        assert_eq!(status.nodes[0].paths[0].reachable, Some(true));
        assert_eq!(status.nodes[1].paths[0].reachable, Some(false));
        assert_eq!(status.nodes[3].paths[0].reachable, None);
    }
}
