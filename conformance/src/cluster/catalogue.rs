//! The axes of Kinesin: what its agent has compiled in, and the options that change the data path.

use std::{io, path::Path, process::Command};

use kinesin_agent_api::types::BackendInfo;
use kinesin_lab::Families;
use serde_json::{Value, json};

use super::combination::{Axis, Combination, covering, every};

/// Name of the axis of the address families.
pub const FAMILIES: &str = "families";

/// Name of the axis of the carriers.
const ROUTING: &str = "routing";

/// Which combinations are run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Selection {
    /// The one of defaults.
    Default,
    /// Every pair of backends with every choice of families at least once; of carriers, each with every choice of families
    /// beside the defaults.
    #[default]
    Covering,
    /// All.
    Full,
}

/// Asks an agent's program for its backends, which need not be those of this program.
///
/// # Errors
/// When it cannot be run or answers something else.
pub fn backends_of(agent: &Path) -> io::Result<Vec<BackendInfo>> {
    let told = |what: String| io::Error::other(format!("{} backends: {what}", agent.display()));
    let answer = Command::new(agent).arg("backends").output().map_err(|error| told(error.to_string()))?;
    if !answer.status.success() {
        return Err(told(String::from_utf8_lossy(&answer.stderr).trim_end().to_owned()));
    }
    serde_json::from_slice(&answer.stdout).map_err(|error| told(error.to_string()))
}

/// The axes that these backends give: one for each trait, then those of the chassis' options and of the families.
#[must_use]
pub fn axes(backends: &[BackendInfo]) -> Vec<Axis> {
    let mut axes = Vec::new();
    for role in ["ipam", "routing", "loadBalancer", "policy", "masquerade", "chassis"] {
        let mut of_role: Vec<&BackendInfo> = backends.iter().filter(|backend| backend.r#trait == role).collect();
        // The selected one is the default, which comes first.
        of_role.sort_by_key(|backend| (!backend.selected, backend.name.clone()));
        if !of_role.is_empty() {
            axes.push(Axis::new(
                role,
                of_role.into_iter().map(|backend| (backend.name.clone(), choose(role, &backend.name))),
            ));
        }
    }
    if backends.iter().any(|backend| backend.provides.iter().any(|what| what == "chassis:ebpf")) {
        axes.push(Axis::new(
            "attachment",
            [("tcx", json!({"bpf": {"enableTCX": true}})), ("clsact", json!({"bpf": {"enableTCX": false}}))],
        ));
    }
    let families = [Families::Dual, Families::Ipv4, Families::Ipv6];
    // The lab writes the values of its families itself; on other clusters they are what they are.
    axes.push(Axis::new(FAMILIES, families.map(|families| (families.to_string(), json!({})))));
    axes
}

fn choose(role: &str, name: &str) -> Value {
    // A node has one backend of each role, except that load balancers complement each other.
    let chosen = if role == "loadBalancer" { json!([name]) } else { json!(name) };
    json!({"backends": {role: chosen}})
}

/// The combinations of a selection.
#[must_use]
pub fn select(backends: &[BackendInfo], selection: Selection) -> Vec<Combination> {
    let all = every(&axes(backends), |combination| is_allowed(backends, combination));
    match selection {
        Selection::Default => all.into_iter().take(1).collect(),
        Selection::Covering => {
            let Some(default) = all.first() else { return all };
            // What carries a packet and what leased its address know nothing of each other, and each combination is a lab:
            // all pairs of carriers and modes are for a full run.
            let same = |one: &Combination, axis: &str| one.on(axis) == default.on(axis);
            let is_carriers = |one: &Combination| {
                one.choices().all(|(axis, _)| axis == ROUTING || axis == FAMILIES || same(one, axis))
            };
            let (usual, others): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|one| same(one, ROUTING));
            let mut selected = covering(&usual, FAMILIES);
            selected.extend(others.into_iter().filter(is_carriers));
            selected
        }
        Selection::Full => all,
    }
}

/// Whether each backend finds what it needs of the others and serves the families; what the kernel has is the machine's.
fn is_allowed(backends: &[BackendInfo], combination: &Combination) -> bool {
    let chosen: Vec<&BackendInfo> =
        backends.iter().filter(|backend| combination.on(&backend.r#trait) == Some(backend.name.as_str())).collect();
    let provided = |what: &str| chosen.iter().any(|backend| backend.provides.iter().any(|provided| provided == what));
    let is_met = |need: &String| match need.strip_prefix("no ") {
        Some(excluded) => !provided(excluded),
        None => need.starts_with("kernel") || provided(need),
    };
    let needs_met = chosen.iter().flat_map(|backend| &backend.requires).all(is_met);
    let families: &[&str] = match combination.on(FAMILIES) {
        Some("ipv4") => &["ipv4"],
        Some("ipv6") => &["ipv6"],
        _ => &["ipv4", "ipv6"],
    };
    // A backend that names no family at all has nothing to do with families.
    let serves = |backend: &&BackendInfo| {
        let has = |family: &str| backend.provides.iter().any(|what| what == family);
        !(has("ipv4") || has("ipv6")) || families.iter().all(|family| has(family))
    };
    let has_tcx = combination.on("chassis").is_none_or(|chassis| chassis == "ebpf")
        || combination.on("attachment") == Some("tcx");
    needs_met && chosen.iter().all(serves) && has_tcx
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(role: &str, name: &str, provides: &[&str], requires: &[&str], selected: bool) -> BackendInfo {
        let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        BackendInfo {
            r#trait: role.to_owned(),
            name: name.to_owned(),
            summary: String::new(),
            provides: own(provides),
            requires: own(requires),
            selected,
        }
    }

    fn today() -> Vec<BackendInfo> {
        vec![
            backend("ipam", "host_scope", &["ipv4", "ipv6"], &[], true),
            backend("routing", "native", &["ipv4", "ipv6"], &[], true),
            backend("chassis", "ebpf", &["chassis:ebpf", "ipv4", "ipv6"], &["kernel: BTF (5.15)"], true),
        ]
    }

    fn names(backends: &[BackendInfo], selection: Selection) -> Vec<String> {
        select(backends, selection).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn default_is_the_selected_backends_with_both_families() {
        assert_eq!(names(&today(), Selection::Default), ["host_scope-native-ebpf-tcx-dual"]);
        assert_eq!(names(&today(), Selection::Covering).len(), 6);
        assert_eq!(names(&today(), Selection::Full).len(), 6);
        let mut more = today();
        more.push(backend("routing", "a_first_by_name", &["ipv4", "ipv6"], &[], false));
        assert_eq!(names(&more, Selection::Default), ["host_scope-native-ebpf-tcx-dual"]);
    }

    #[test]
    fn backend_comes_only_with_what_it_needs_and_serves() {
        let mut backends = today();
        backends.push(backend("chassis", "stack", &["chassis:stack", "ipv4", "ipv6"], &[], false));
        backends.push(backend("routing", "vxlan", &["ipv4"], &["chassis:ebpf"], false));
        backends.push(backend("masquerade", "nftables", &["ipv4", "ipv6"], &["no chassis:ebpf"], true));
        let all = names(&backends, Selection::Full);
        assert!(all.contains(&"host_scope-native-nftables-stack-tcx-dual".to_owned()));
        assert!(!all.iter().any(|name| name.contains("nftables-ebpf") || name.contains("vxlan")), "{all:?}");
        backends.pop();
        let all = names(&backends, Selection::Full);
        assert!(all.contains(&"host_scope-vxlan-ebpf-tcx-ipv4".to_owned()));
        assert!(
            !all.iter().any(|name| name.contains("vxlan-stack") || name.contains("vxlan-ebpf-tcx-dual")),
            "{all:?}"
        );
        assert!(!all.iter().any(|name| name.contains("stack-clsact")), "{all:?}");
    }

    #[test]
    fn carriers_meet_all_families_every_day_and_all_modes_in_a_full_run() {
        let mut backends = today();
        backends.push(backend("ipam", "cluster_pool", &["ipv4", "ipv6"], &[], false));
        let before = names(&backends, Selection::Covering);
        backends.push(backend("routing", "vxlan", &["ipv4", "ipv6"], &["chassis:ebpf"], false));
        let daily = names(&backends, Selection::Covering);
        assert_eq!(daily[..before.len()], before);
        let added = ["dual", "ipv4", "ipv6"].map(|families| format!("host_scope-vxlan-ebpf-tcx-{families}"));
        assert_eq!(daily[before.len()..], added);
        assert_eq!(names(&backends, Selection::Full).len(), 24);
    }

    #[test]
    fn values_choose_the_backends() {
        let chosen = &select(&today(), Selection::Covering)[0];
        let values = chosen.values();
        assert_eq!(values["backends"], json!({"ipam": "host_scope", "routing": "native", "chassis": "ebpf"}));
        assert_eq!(values["bpf"]["enableTCX"], true);
    }
}
