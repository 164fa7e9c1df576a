//! The lab of a combination: its shape, its values, and what it can do beside what every lab can.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kinesin_core::causes::with_causes;
use kinesin_lab::{Families, Lab, PodRange, Spec};
use serde_json::{Value, json};

use super::{
    case::Scale,
    catalogue::FAMILIES,
    combination::{Combination, lay_over},
    own::OwnLab,
    random::hash,
};
use crate::target::{Subject, Target, TargetCapability};

/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;
/// Addresses beside those of the pods: router, health, and the pods of cases that run beside.
const SPARE: usize = 18;

/// A lab to be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    /// What it can do because of its settings.
    pub(crate) also: Vec<TargetCapability>,
}

/// The lab of a combination in the directory `base`, and if it is one that cases have for themselves, as they want it.
/// `run` keeps labs of several runs on one machine apart.
pub(crate) fn plan(
    combination: &Combination,
    own: Option<&OwnLab>,
    scale: Scale,
    base: &Path,
    run: &str,
    bin_dir: &Path,
) -> Plan {
    let families = match combination.on(FAMILIES) {
        Some("ipv4") => Families::Ipv4,
        Some("ipv6") => Families::Ipv6,
        _ => Families::Dual,
    };
    // A power of two that has room for half of the pods.
    let bits = (scale.pods.div_ceil(2) + SPARE).next_power_of_two().max(32).ilog2();
    let bits = u8::try_from(bits).unwrap_or(u8::MAX).min(12);
    let pod_ranges = if own.is_none() { ranges(families, bits, OF_NODES) } else { Vec::new() };
    let mut values = combination.values();
    let mut also = match combination.on("ipam") {
        Some("host_scope") => vec![TargetCapability::NodePodCidrs],
        Some("cluster_pool") => vec![TargetCapability::GivenPodCidrs],
        _ => Vec::new(),
    };
    match own {
        Some(_) => also.push(TargetCapability::OwnLab),
        None => {
            // What Kubernetes gives to its Nodes is taken in every mode.
            lay_over(&mut values, &range_values(combination.on("ipam"), &ranges(families, bits, OF_OPERATOR)));
            also.push(TargetCapability::SmallPodRanges);
        }
    }
    let spec = Spec {
        name: format!("c-{:016x}", hash(&format!("{run} {combination}"))),
        base: base.to_owned(),
        nodes: own.map_or(2, |own| own.nodes),
        families,
        segments: own.map_or(1, |own| own.segments),
        pod_ranges,
        bin_dir: bin_dir.to_owned(),
        values: values.to_string(),
        workloads: false,
        ..Spec::default()
    };
    Plan { spec, also }
}

/// The chart's values by which a mode takes its blocks from ranges; one that takes those of the Nodes needs none.
fn range_values(mode: Option<&str>, ranges: &[PodRange]) -> Value {
    let mut values = json!({});
    for PodRange { cidr, node_prefix } in ranges {
        let is_ipv4 = cidr.addr().is_ipv4();
        let (list, mask) = if is_ipv4 {
            ("clusterPoolIPv4PodCIDRList", "clusterPoolIPv4MaskSize")
        } else {
            ("clusterPoolIPv6PodCIDRList", "clusterPoolIPv6MaskSize")
        };
        let of_family = match mode {
            Some("cluster_pool") => json!({list: [cidr.to_string()], mask: node_prefix}),
            // Such a mode has no pool until somebody makes one.
            Some("multi_pool") => {
                let family = if is_ipv4 { "ipv4" } else { "ipv6" };
                let range = json!({"cidrs": [cidr.to_string()], "maskSize": node_prefix});
                json!({"autoCreateCiliumPodIPPools": {"default": {family: range}}})
            }
            _ => continue,
        };
        lay_over(&mut values, &json!({"ipam": {"operator": of_family}}));
    }
    values
}

/// Where ranges begin from which Nodes get their pod CIDRs, and those from which the operator gives blocks.
const OF_NODES: [&str; 2] = ["10.244.0.0", "fd00:10:244::"];
const OF_OPERATOR: [&str; 2] = ["10.244.128.0", "fd00:10:244:1::"];

/// Ranges for four nodes with so many bits of addresses each.
fn ranges(families: Families, bits: u8, [v4, v6]: [&str; 2]) -> Vec<PodRange> {
    let v4 = format!("{v4}/{}={}", 30 - bits, 32 - bits).parse();
    let v6 = format!("{v6}/{}={}", 126 - bits, 128 - bits).parse();
    let wanted = [(families.ipv4(), v4), (families.ipv6(), v6)];
    wanted.into_iter().filter(|(on, _)| *on).filter_map(|(_, range)| range.ok()).collect()
}

/// The last lines of what the agents, the operator and the kubelets of a lab have logged.
pub(crate) fn logs(spec: &Spec) -> String {
    let Ok(lab) = Lab::open(&spec.base, &spec.name) else { return String::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut logs = lab.kubelet_logs(None, Some(LOG_LINES)).unwrap_or_default();
    if let Ok(runtime) = runtime {
        for label in ["k8s-app=cilium", "io.cilium/app=operator"] {
            logs.extend(runtime.block_on(lab.pod_logs(label, None, Some(LOG_LINES))).unwrap_or_default());
        }
    }
    logs.into_iter().map(|log| format!("--- {}\n{}\n", log.of, log.text.trim_end())).collect()
}

/// Removes a lab and what it had.
pub(crate) fn down(spec: &Spec) -> Result<(), String> {
    Lab::down(&spec.base, &spec.name).map(drop).map_err(|error| with_causes(&error))
}

/// What is tested on labs with these programs.
pub(crate) fn subject(bin_dir: &Path, target: &dyn Target) -> Subject {
    let agent = agent(bin_dir);
    let version = Command::new(&agent).arg("--version").output().ok().filter(|output| output.status.success());
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let version = version.and_then(|line| line.split_whitespace().last().map(str::to_owned));
    let kubernetes = target.runtime().block_on(target.client().apiserver_version());
    Subject {
        implementation: "kinesin".to_owned(),
        version: version.unwrap_or_else(|| "unknown".to_owned()),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        kubernetes: kubernetes.map(|info| info.git_version).unwrap_or_default(),
    }
}

/// The agent's program.
pub(crate) fn agent(bin_dir: &Path) -> PathBuf {
    bin_dir.join("kinesin-agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_few_addresses_but_enough_for_the_pods() {
        for (pods, prefix) in [(20, 27), (100, 25)] {
            let bits = (usize::div_ceil(pods, 2) + SPARE).next_power_of_two().max(32).ilog2();
            assert_eq!(32 - bits, prefix);
        }
        let ranges = ranges(Families::Dual, 5, OF_NODES);
        assert_eq!((ranges[0].node_prefix, ranges[0].cidr.to_string().as_str()), (27, "10.244.0.0/25"));
        assert_eq!((ranges[1].node_prefix, ranges[1].cidr.to_string().as_str()), (123, "fd00:10:244::/121"));
    }

    #[test]
    fn every_mode_has_the_same_ranges() {
        let ranges = ranges(Families::Dual, 5, OF_OPERATOR);
        assert_eq!(range_values(Some("host_scope"), &ranges), json!({}));
        let given = range_values(Some("cluster_pool"), &ranges);
        assert_eq!(given["ipam"]["operator"]["clusterPoolIPv4PodCIDRList"], json!(["10.244.128.0/25"]));
        assert_eq!(given["ipam"]["operator"]["clusterPoolIPv6MaskSize"], 123);
        let pools = range_values(Some("multi_pool"), &ranges);
        let pool = &pools["ipam"]["operator"]["autoCreateCiliumPodIPPools"]["default"];
        assert_eq!((&pool["ipv4"]["maskSize"], &pool["ipv6"]["cidrs"]), (&json!(27), &json!(["fd00:10:244:1::/121"])));
    }
}
