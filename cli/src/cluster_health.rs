//! The lines of `status` on the paths to all nodes.

use std::fmt::Write as _;

use crate::status::go_duration;
use kinesin_agent_api::types::{ClusterHealth, NodeHealth, PathHealth, PathKind, ProbeResult};

/// The summary, every node that is not well, and what is wrong with it; all nodes and paths when `verbose`.
pub(crate) fn render(text: &mut String, health: Option<&ClusterHealth>, verbose: bool) {
    let Some(health) = health else {
        text.push_str("Cluster health:\tProbe disabled\n");
        return;
    };
    let reachable =
        health.nodes.iter().filter(|node| node.paths.iter().all(|path| path.reachable == Some(true))).count();
    // An agent that has just started knows nothing of most paths, which is no reason to worry.
    let is_unknown = |node: &&NodeHealth| {
        node.paths.iter().any(|path| path.reachable.is_none())
            && node.paths.iter().all(|path| path.reachable != Some(false))
    };
    let unknown = match health.nodes.iter().filter(is_unknown).count() {
        0 => String::new(),
        nodes => format!(", {nodes} not probed yet"),
    };
    let _ = writeln!(
        text,
        "Cluster health:\t{reachable}/{} reachable{unknown}\t({})\t(Probe interval: {})",
        health.nodes.len(),
        health.probed_at.as_deref().unwrap_or("not probed yet"),
        go_duration(health.probe_interval_seconds)
    );
    let is_unwell = |path: &PathHealth| path.problem.is_some() || path.reachable == Some(false);
    let shown: Vec<_> = health.nodes.iter().filter(|node| verbose || node.paths.iter().any(is_unwell)).collect();
    if shown.is_empty() {
        return;
    }
    text.push_str("  Name\tIP\tNode\tEndpoints\n");
    for node in &shown {
        let name = if node.local { format!("{} (localhost)", node.name) } else { node.name.clone() };
        let address = node.paths.iter().find(|path| path.kind == PathKind::Node).map(|path| path.address.to_string());
        let (nodes, endpoints) = (ratio(node, PathKind::Node), ratio(node, PathKind::Endpoint));
        let _ = writeln!(text, "  {name}\t{}\t{nodes}\t{endpoints}", address.unwrap_or_default());
    }
    if verbose {
        text.push_str("  Path\tKind\tICMP\tHTTP\tICMP lost\n");
        for (node, path) in shown.iter().flat_map(|node| node.paths.iter().map(move |path| (node, path))) {
            let kind = match path.kind {
                PathKind::Node => "node",
                PathKind::Endpoint => "endpoint",
            };
            let lost = path.loss_percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent}%"));
            let (icmp, http) = (latency(path.icmp.as_ref()), latency(path.http.as_ref()));
            let _ = writeln!(text, "  {} {}\t{kind}\t{icmp}\t{http}\t{lost}", node.name, path.address);
        }
    }
    for (node, path) in shown.iter().flat_map(|node| node.paths.iter().map(move |path| (node, path))) {
        if let Some(problem) = &path.problem {
            let _ = writeln!(text, "  {} {}: {}", node.name, path.address, problem.replace(['\n', '\t'], " "));
        }
    }
}

/// `1/2`: paths that answer, of all of a kind.
fn ratio(node: &NodeHealth, kind: PathKind) -> String {
    let paths = node.paths.iter().filter(|path| path.kind == kind);
    let (well, all) = paths.fold((0, 0), |(well, all), path| (well + u32::from(path.reachable == Some(true)), all + 1));
    format!("{well}/{all}")
}

/// `0.214ms`; `failed`, whose reason stands below; `-` before the first probe.
fn latency(result: Option<&ProbeResult>) -> String {
    match result.map(|found| found.latency_microseconds) {
        None => "-".to_owned(),
        Some(None) => "failed".to_owned(),
        Some(Some(time)) => format!("{}.{:03}ms", time / 1000, time % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::STATUS;

    fn path(kind: PathKind, address: &str, http: Result<u64, &str>) -> PathHealth {
        let result = |found: Result<u64, &str>| ProbeResult {
            latency_microseconds: found.ok(),
            error: found.err().unwrap_or_default().to_owned(),
        };
        PathHealth {
            kind,
            address: address.parse().expect("an address"),
            reachable: Some(http.is_ok()),
            icmp: Some(result(http.map(|time| time / 2))),
            http: Some(result(http)),
            loss_percent: Some(if http.is_ok() { 0 } else { 100 }),
            problem: http.err().map(|reason| format!("HTTP on TCP port 4240: {reason}")),
        }
    }

    fn sample(second: Result<u64, &str>) -> ClusterHealth {
        let node = |name: &str, local, number, http| NodeHealth {
            name: name.to_owned(),
            local,
            paths: vec![
                path(PathKind::Node, &format!("192.168.10.{number}"), http),
                path(PathKind::Endpoint, &format!("10.244.{number}.9"), http),
            ],
        };
        ClusterHealth {
            nodes: vec![node("w1", true, 1, Ok(428)), node("w2", false, 2, second)],
            probe_interval_seconds: 65,
            probed_at: Some("2026-01-02T03:04:05Z".to_owned()),
        }
    }

    fn rendered(health: Option<&ClusterHealth>, verbose: bool) -> String {
        let mut text = String::new();
        render(&mut text, health, verbose);
        STATUS.align(&text)
    }

    #[test]
    fn healthy_cluster_is_one_line() {
        assert_eq!(
            rendered(Some(&sample(Ok(1_234))), false),
            "Cluster health:   2/2 reachable   (2026-01-02T03:04:05Z)   (Probe interval: 1m5s)\n"
        );
        assert_eq!(rendered(None, true), "Cluster health:   Probe disabled\n");
    }

    #[test]
    fn node_of_which_nothing_is_known_yet_is_no_lost_one() {
        let mut health = sample(Ok(1_234));
        health.nodes[1].paths[1].reachable = None;
        assert!(rendered(Some(&health), false).contains(" 1/2 reachable, 1 not probed yet "));
        // What is known to be wrong is not hidden by what is unknown.
        health.nodes[1].paths[0].reachable = Some(false);
        assert!(rendered(Some(&health), false).contains(" 1/2 reachable   "));
    }

    #[test]
    fn verbose_tells_every_path() {
        let text = rendered(Some(&sample(Ok(1_234))), true);
        let expected = "  \
  Name              IP              Node   Endpoints
  w1 (localhost)    192.168.10.1    1/1    1/1
  w2                192.168.10.2    1/1    1/1
  Path              Kind            ICMP   HTTP   ICMP lost
";
        for line in expected.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()) {
            assert!(
                text.lines().any(|found| found.split_whitespace().eq(line.iter().copied())),
                "{line:?} not in {text}"
            );
        }
        assert!(
            text.lines().any(|line| line.split_whitespace().eq("w2 10.244.2.9 endpoint 0.617ms 1.234ms 0%".split(' '))),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_well_is_told_without_being_asked() {
        let text = rendered(Some(&sample(Err("Connection refused"))), false);
        assert!(text.contains("1/2 reachable"), "{text}");
        assert!(!text.contains("w1"), "{text}");
        assert!(text.contains("  w2 10.244.2.9: HTTP on TCP port 4240: Connection refused\n"), "{text}");
    }
}
