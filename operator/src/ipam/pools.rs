//! The pools that are served, and what a CiliumPodIPPool is told about itself.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use kinesin_cluster::{CiliumPodIPPool, OPERATOR_MANAGER, crd::StatusCondition};
use kinesin_core::values::Family;
use kinesin_ipam_blocks::{Engine, Name, PoolSpec, Pools, Source};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    config::IpamSettings,
    read::PoolView,
    write::{Requests, code},
};

/// Type of the condition.
const ACCEPTED: &str = "Accepted";
/// Of what lies in a range, this many are named.
const NAMED: usize = 3;

/// Pools by age, since of two that overlap the older is served; the ranges of cluster-pool before all.
pub(crate) fn served(settings: &IpamSettings, pools: &BTreeMap<String, PoolView>) -> Pools {
    let mut by_age: Vec<&PoolView> = pools.values().filter(|pool| !pool.deleted).collect();
    by_age.sort_by_key(|pool| (pool.created, pool.spec.source.pool.clone()));
    let specs: Vec<PoolSpec> =
        settings.cluster_pool.iter().chain(by_age.into_iter().map(|pool| &pool.spec)).cloned().collect();
    Pools::check(&specs)
}

/// What a pool's condition says: whether all is well, a reason, a message.
pub(super) fn verdict(
    source: &Source,
    pools: &Pools,
    reserved: &BTreeSet<(IpNet, Name)>,
    engine: &Engine,
) -> (bool, &'static str, String) {
    let refused = pools.refused(source);
    if !refused.is_empty() {
        return (false, "Refused", refused.join("; "));
    }
    let ranges: Vec<IpNet> =
        Family::ALL.iter().flat_map(|family| pools.ranges(source, *family)).map(|range| range.cidr()).collect();
    let inside = reserved
        .iter()
        .filter(|(network, _)| ranges.iter().any(|range| range.contains(network) || network.contains(range)));
    let inside: Vec<String> = inside.map(|(network, what)| format!("{network} ({what})")).collect();
    if !inside.is_empty() {
        let more = inside.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = inside[..inside.len().min(NAMED)].join(", ");
        return (
            false,
            "Overlap",
            format!("the ranges overlap {named}{more}; blocks that do are not given out: take other ranges"),
        );
    }
    let draining = engine.claimed_outside(source);
    if draining > 0 {
        let text = format!(
            "{draining} blocks lie outside the ranges, which were there when nodes took them; they stay until the nodes \
             give them back"
        );
        return (true, "Draining", text);
    }
    (true, "Served", "all ranges are served".to_owned())
}

/// Writes the conditions that changed; a failure is logged and tried again with the next change.
pub(super) async fn report(requests: &Requests, verdicts: Vec<(String, PoolView, (bool, &'static str, String))>) {
    for (name, pool, (ok, reason, message)) in verdicts {
        let status = if ok { "True" } else { "False" };
        let known = pool.conditions.iter().find(|condition| condition.r#type == ACCEPTED);
        let same =
            |known: &StatusCondition| known.status == status && known.reason == reason && known.message == message;
        if known.is_some_and(same) {
            continue;
        }
        let mut conditions = pool.conditions.clone();
        conditions.retain(|condition| condition.r#type != ACCEPTED);
        let since = known.filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
        conditions.push(StatusCondition {
            r#type: ACCEPTED.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.clone(),
            last_transition_time: since.unwrap_or_else(|| Timestamp::now().to_string()),
        });
        let api: Api<CiliumPodIPPool> = Api::all(requests.client());
        let params = PatchParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PatchParams::default() };
        let patch = json!({"metadata": {"resourceVersion": pool.version}, "status": {"conditions": conditions}});
        let patch = Patch::Merge(patch);
        match requests
            .write(&format!("report on CiliumPodIPPool {name}"), api.patch_status(&name, &params, &patch))
            .await
        {
            Ok(_) if ok => tracing::info!(pool = name, reason, message, "pool"),
            Ok(_) => tracing::warn!(pool = name, reason, message, "pool"),
            // Gone, or another wrote: the next look sees it.
            Err(error) if matches!(code(&error), Some(404 | 409)) => {}
            Err(error) => tracing::warn!(pool = name, error = error.line(), "the pool's status was not written"),
        }
    }
}
