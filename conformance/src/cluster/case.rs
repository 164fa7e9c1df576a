//! The cases: their names, what they need, and how one is judged.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{Deserialize, Serialize};

use super::{
    cases::{
        agents, black_hole, burst, carrier, cluster_pool, hop_limit, host_scope, many, migration, mtu, multi_pool,
        nodes, reach, restart, segments, sizes, storms, uplink,
    },
    context::Context,
    own::OwnLab,
    verdict::{Judged, Verdict},
};
use crate::target::{Target, TargetCapability};

use TargetCapability::{
    ChangeMtu, GivenPodCidrs, KillAgent, NodePodCidrs, OwnLab as Own, ReachInside, RestartAgent, RestartNode,
    SmallPodRanges, TwoNodes,
};

/// How large the cases are that have a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// How often every agent is killed or restarted under traffic.
    pub kills: usize,
    /// Processes that are killed while pods come and go.
    pub storm_kills: usize,
    /// Connections that stay open meanwhile.
    pub connections: usize,
    /// Pods that start at once.
    pub pods: usize,
    /// Pods that start at once where nodes have room for all of them.
    pub burst: usize,
}

impl Scale {
    /// For every day.
    pub const DAILY: Self = Self { kills: 3, storm_kills: 16, connections: 100, pods: 20, burst: 40 };
    /// What Kinesin claims.
    pub const FULL: Self = Self { kills: 100, storm_kills: 1_000, connections: 1_000, pods: 100, burst: 1_000 };
}

/// One case.
pub struct Case {
    /// The fact that it proves, as a name of a test.
    pub name: &'static str,
    /// What a target must be able to do.
    pub needs: &'static [TargetCapability],
    /// Whether it must be alone on its cluster: it kills, restarts or changes what others stand on.
    pub alone: bool,
    /// On which combinations it is judged.
    pub spread: Spread,
    judge: fn(&Context<'_>) -> Judged,
}

/// On which combinations of a selection a case is judged.
#[derive(Debug, Clone, Copy)]
pub enum Spread {
    /// The default one; in a full run, all.
    Default,
    /// Every one: it is about what packets meet.
    Everywhere,
    /// The first with each choice on this axis; in a full run, all.
    Each(&'static str),
    /// The first with this choice on this axis; in a full run, all that have it.
    With(&'static str, &'static str),
    /// One that is made for it: it is about settings.
    Own(&'static OwnLab),
}

impl Case {
    const fn new(name: &'static str, needs: &'static [TargetCapability], judge: fn(&Context<'_>) -> Judged) -> Self {
        Self { name, needs, alone: false, spread: Spread::Default, judge }
    }

    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    const fn everywhere(self) -> Self {
        Self { spread: Spread::Everywhere, ..self }
    }

    const fn on(self, spread: Spread) -> Self {
        Self { spread, ..self }
    }

    /// What of its needs a target lacks.
    #[must_use]
    pub fn missing(&self, target: &dyn Target) -> Option<TargetCapability> {
        self.needs.iter().copied().find(|need| !target.can(*need))
    }

    /// Judges it on a target; everything that it makes there is gone afterwards. A panic is a failure.
    #[must_use]
    pub fn judge(&self, target: &dyn Target, scale: Scale, seed: u64) -> Verdict {
        if let Some(missing) = self.missing(target) {
            return Verdict::Skipped { missing };
        }
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let context = Context::new(target, self.name, scale, seed)?;
            (self.judge)(&context)
        }));
        match judged {
            Ok(judged) => judged.into(),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Verdict::Failed { reason: format!("panicked: {text}") }
            }
        }
    }
}

/// Every case, those first that can share a cluster.
#[must_use]
pub fn cases() -> &'static [Case] {
    const CASES: &[Case] = &[
        Case::new("pods_reach_each_other", &[TwoNodes], reach::pods).everywhere(),
        Case::new("nodes_and_pods_reach_each_other", &[TwoNodes], reach::nodes).everywhere(),
        Case::new("every_size_arrives", &[TwoNodes], sizes::every_size).everywhere(),
        Case::new("fragments_arrive_whole", &[TwoNodes], sizes::fragments).everywhere(),
        Case::new("hop_limit_counts_down", &[TwoNodes], hop_limit::counts_down).everywhere(),
        Case::new("many_pods_start_at_once", &[TwoNodes], many::start_at_once),
        Case::new("address_is_used_again", &[TwoNodes, SmallPodRanges], restart::address_is_used_again)
            .on(Spread::Each("ipam")),
        Case::new("operator_gives_blocks", &[TwoNodes, GivenPodCidrs], cluster_pool::operator_gives_blocks)
            .on(Spread::With("ipam", "cluster_pool")),
        Case::new(
            "node_cidrs_are_all_there_is",
            &[TwoNodes, NodePodCidrs, SmallPodRanges],
            host_scope::node_cidrs_are_all,
        )
        .on(Spread::With("ipam", "host_scope"))
        .alone(),
        Case::new("range_is_full_until_nodes_grow", &[TwoNodes, Own], cluster_pool::full_until_nodes_grow)
            .on(Spread::Own(&cluster_pool::LAB))
            .alone(),
        Case::new("annotation_chooses_the_pool", &[TwoNodes, Own], multi_pool::annotation_chooses)
            .on(Spread::Own(&multi_pool::LAB)),
        Case::new("pool_grows_with_its_pods", &[TwoNodes, Own], multi_pool::pool_grows)
            .on(Spread::Own(&multi_pool::LAB))
            .alone(),
        Case::new("addresses_of_a_burst_come_back", &[TwoNodes, Own], burst::comes_back)
            .on(Spread::Own(&multi_pool::LAB))
            .alone(),
        Case::new("ipam_mode_changes_under_traffic", &[TwoNodes, RestartAgent, Own], migration::under_traffic)
            .on(Spread::Own(&migration::LAB))
            .alone(),
        Case::new("carrier_changes_under_traffic", &[TwoNodes, RestartAgent, Own], carrier::changes_under_traffic)
            .on(Spread::Own(&carrier::LAB))
            .alone(),
        Case::new("router_between_nodes", &[TwoNodes, RestartAgent, Own], segments::reached_through_a_router)
            .on(Spread::Own(&segments::LAB))
            .alone(),
        Case::new("narrow_way_to_one_node", &[TwoNodes, ChangeMtu, Own], segments::narrow_way_to_one_node)
            .on(Spread::Own(&segments::LAB))
            .alone(),
        Case::new(
            "narrow_way_between_nodes",
            &[TwoNodes, RestartAgent, ChangeMtu, Own],
            segments::narrow_way_between_nodes,
        )
        .on(Spread::Own(&segments::NARROW_LAB))
        .alone(),
        Case::new("path_mtu_is_discovered", &[TwoNodes, ChangeMtu], mtu::is_discovered).alone().everywhere(),
        Case::new("one_narrower_node_is_reached", &[TwoNodes, ChangeMtu], mtu::of_one_node)
            .on(Spread::Each("routing"))
            .alone(),
        Case::new("black_hole_is_named", &[TwoNodes, ChangeMtu, RestartAgent], black_hole::is_named)
            .on(Spread::Each("routing"))
            .alone(),
        Case::new("restarted_agents_lose_nothing", &[TwoNodes, RestartAgent], agents::restarted)
            .on(Spread::Each("routing"))
            .alone(),
        Case::new("killed_agents_lose_nothing", &[TwoNodes, KillAgent], agents::killed).alone(),
        Case::new("storms_leak_nothing", &[TwoNodes, KillAgent, ReachInside], storms::leak_nothing).alone(),
        Case::new("uplink_changes_are_followed", &[TwoNodes, ReachInside], uplink::changes)
            .on(Spread::Each("routing"))
            .alone(),
        Case::new("restarted_node_comes_back", &[TwoNodes, RestartNode], nodes::restarted).alone(),
        Case::new("node_comes_back_as_another", &[TwoNodes, RestartNode], nodes::moved)
            .on(Spread::Each("routing"))
            .alone(),
    ];
    CASES
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_names_of_objects() {
        let names: BTreeSet<&str> = cases().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().len());
        assert!(names.iter().all(|name| name.len() < 40 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn what_disturbs_others_is_alone() {
        let disturbs = |need: &TargetCapability| matches!(need, KillAgent | RestartAgent | RestartNode | ChangeMtu);
        for case in cases().iter().filter(|case| case.needs.iter().any(disturbs)) {
            assert!(case.alone, "{case:?}");
        }
    }
}
