//! The cases: their names, what they need, and how one is judged.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::{Deserialize, Serialize};

use super::{
    cases::{agents, hop_limit, many, mtu, nodes, reach, restart, sizes},
    context::Context,
    verdict::{Judged, Verdict},
};
use crate::target::{Target, TargetCapability};

use TargetCapability::{ChangeMtu, KillAgent, RestartAgent, RestartNode, SmallPodRanges, TwoNodes};

/// How large the cases are that have a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// How often every agent is killed or restarted under traffic.
    pub kills: usize,
    /// Connections that stay open meanwhile.
    pub connections: usize,
    /// Pods that start at once.
    pub pods: usize,
}

impl Scale {
    /// For every day.
    pub const DAILY: Self = Self { kills: 3, connections: 100, pods: 20 };
    /// What Kinesin claims.
    pub const FULL: Self = Self { kills: 100, connections: 1_000, pods: 100 };
}

/// One case.
pub struct Case {
    /// The fact that it proves, as a name of a test.
    pub name: &'static str,
    /// What a target must be able to do.
    pub needs: &'static [TargetCapability],
    /// Whether it must be alone on its cluster: it kills, restarts or changes what others stand on.
    pub alone: bool,
    /// Whether it is judged on every combination each day, not on the default one only: it is about what packets meet.
    pub everywhere: bool,
    judge: fn(&Context<'_>) -> Judged,
}

impl Case {
    const fn new(name: &'static str, needs: &'static [TargetCapability], judge: fn(&Context<'_>) -> Judged) -> Self {
        Self { name, needs, alone: false, everywhere: false, judge }
    }

    const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    const fn everywhere(self) -> Self {
        Self { everywhere: true, ..self }
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
        Case::new("address_is_used_again", &[TwoNodes, SmallPodRanges], restart::address_is_used_again),
        Case::new("path_mtu_is_discovered", &[TwoNodes, ChangeMtu, RestartAgent], mtu::is_discovered)
            .alone()
            .everywhere(),
        Case::new("restarted_agents_lose_nothing", &[TwoNodes, RestartAgent], agents::restarted).alone(),
        Case::new("killed_agents_lose_nothing", &[TwoNodes, KillAgent], agents::killed).alone(),
        Case::new("restarted_node_comes_back", &[TwoNodes, RestartNode], nodes::restarted).alone(),
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
