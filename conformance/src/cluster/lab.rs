//! The lab of a combination: its shape and its values.

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
    random::hash,
};
use crate::target::{Subject, Target};

/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;
/// Addresses beside those of the pods: router, health, and the pods of cases that run beside.
const SPARE: usize = 18;

/// A lab to be, and whether its nodes have so few addresses that they come back soon.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) spec: Spec,
    pub(crate) small_ranges: bool,
}

/// The lab of a combination in the directory `base`. `run` keeps labs of several runs on one machine apart.
pub(crate) fn plan(combination: &Combination, scale: Scale, base: &Path, run: &str, bin_dir: &Path) -> Plan {
    let families = match combination.on(FAMILIES) {
        Some("ipv4") => Families::Ipv4,
        Some("ipv6") => Families::Ipv6,
        _ => Families::Dual,
    };
    // A power of two that has room for half of the pods.
    let bits = (scale.pods.div_ceil(2) + SPARE).next_power_of_two().max(32).ilog2();
    let bits = u8::try_from(bits).unwrap_or(u8::MAX).min(12);
    // Other modes take their addresses elsewhere.
    let small_ranges = combination.on("ipam") == Some("host_scope");
    let pod_ranges = if small_ranges { ranges(families, bits) } else { Vec::new() };
    let spec = Spec {
        name: format!("c-{:016x}", hash(&format!("{run} {combination}"))),
        base: base.to_owned(),
        nodes: 2,
        families,
        pod_ranges,
        bin_dir: bin_dir.to_owned(),
        values: values(combination, families).to_string(),
        workloads: false,
        ..Spec::default()
    };
    Plan { spec, small_ranges }
}

/// The chart's values: those of the combination, and a pool for the mode that has none until somebody makes it.
fn values(combination: &Combination, families: Families) -> Value {
    let mut values = combination.values();
    if combination.on("ipam") == Some("multi_pool") {
        let mut pool = json!({});
        if families.ipv4() {
            lay_over(&mut pool, &json!({"ipv4": {"cidrs": ["10.244.0.0/16"], "maskSize": 26}}));
        }
        if families.ipv6() {
            lay_over(&mut pool, &json!({"ipv6": {"cidrs": ["fd00:10:100::/112"], "maskSize": 122}}));
        }
        let made = json!({"ipam": {"operator": {"autoCreateCiliumPodIPPools": {"default": pool}}}});
        lay_over(&mut values, &made);
    }
    values
}

/// Ranges for four nodes with so many bits of addresses each.
fn ranges(families: Families, bits: u8) -> Vec<PodRange> {
    let v4 = format!("10.244.0.0/{}={}", 30 - bits, 32 - bits).parse();
    let v6 = format!("fd00:10:244::/{}={}", 126 - bits, 128 - bits).parse();
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
        let ranges = ranges(Families::Dual, 5);
        assert_eq!((ranges[0].node_prefix, ranges[0].cidr.to_string().as_str()), (27, "10.244.0.0/25"));
        assert_eq!((ranges[1].node_prefix, ranges[1].cidr.to_string().as_str()), (123, "fd00:10:244::/121"));
    }
}
