//! Carries out what the engine asks for. No write begins, or is waited for, after this replica's term may have ended.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use kinesin_cluster::{ApiFailure, CiliumNode, ClusterError, OPERATOR_MANAGER, PodCIDRClaims, crd::StatusCondition};
use kinesin_ipam_blocks::{Claims, Effect, Failure, Name, NodeView, Outcome, Report, Version, parse_object_name};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::read::{self, CONDITION};
use crate::state::State;

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Annotation by which the operator gives a CiliumNode another version: nobody can publish by an old one any more.
const FENCE: &str = "ipam.kinesin.io/fence";

/// Requests of a replica that leads.
#[derive(Clone)]
pub(crate) struct Requests {
    client: Client,
    state: Arc<State>,
}

/// Writes by kind, for metrics and for the simulation.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) claims: AtomicU64,
    pub(crate) nodes: AtomicU64,
    pub(crate) reports: AtomicU64,
    pub(crate) fences: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) failures: AtomicU64,
}

impl Requests {
    pub(crate) fn new(client: Client, state: Arc<State>) -> Self {
        Self { client, state }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Awaits a read.
    pub(crate) async fn read<T>(
        &self,
        action: &str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        self.state.ipam.written.reads.fetch_add(1, Relaxed);
        until(Instant::now() + LIMIT, action, answer).await
    }

    /// Awaits a write, unless the term may have ended.
    pub(crate) async fn write<T>(
        &self,
        action: &str,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        until(self.state.term_end().min(Instant::now() + LIMIT), action, answer).await
    }

    fn nodes(&self) -> Api<DynamicObject> {
        Api::all_with(self.client(), &ApiResource::erase::<CiliumNode>(&()))
    }

    fn claims(&self) -> Api<PodCIDRClaims> {
        Api::all(self.client())
    }

    /// Does it, and says what came of it.
    pub(crate) async fn perform(&self, effect: &Effect) -> Outcome {
        match effect {
            Effect::WriteClaims { object, version, claims } => {
                self.state.ipam.written.claims.fetch_add(1, Relaxed);
                let result = self.write_claims(object, version.as_ref(), claims).await;
                Outcome::ClaimsWritten(result.map_err(|error| self.failure(error)))
            }
            Effect::ReadClaims { object } => {
                Outcome::ClaimsRead(self.read_claims(object).await.map_err(|error| self.failure(error)))
            }
            Effect::ListOverlaps { object, network } => {
                Outcome::Overlaps(self.overlaps(object, network).await.map_err(|error| self.failure(error)))
            }
            Effect::PatchNode { node, version, pod_cidrs, allocated } => {
                self.state.ipam.written.nodes.fetch_add(1, Relaxed);
                let mut ipam = serde_json::Map::new();
                if let Some(list) = pod_cidrs {
                    ipam.insert("podCIDRs".to_owned(), json!(list));
                }
                if let Some(pools) = allocated {
                    let list: Vec<Value> =
                        pools.iter().map(|pool| json!({"pool": pool.pool, "cidrs": pool.cidrs})).collect();
                    ipam.insert("pools".to_owned(), json!({"allocated": list}));
                }
                let patch = json!({"metadata": {"resourceVersion": version.0}, "spec": {"ipam": ipam}});
                self.node(node, self.patch_node(node, patch).await)
            }
            Effect::ReportNode { node, version, report } => {
                self.state.ipam.written.reports.fetch_add(1, Relaxed);
                self.node(node, self.report(node, version, report).await)
            }
            Effect::ReadNode { node } => self.node(node, self.get_node(node).await.map(Some)),
            Effect::FenceNode { node } => {
                self.state.ipam.written.fences.fetch_add(1, Relaxed);
                self.node(node, self.fence(node).await)
            }
        }
    }

    fn failure(&self, error: Error) -> Failure {
        match error {
            Error::Cluster(error) if matches!(code(&error), Some(409)) => {
                self.state.ipam.written.conflicts.fetch_add(1, Relaxed);
                Failure::Conflict
            }
            Error::Cluster(error) => {
                self.state.ipam.written.failures.fetch_add(1, Relaxed);
                tracing::warn!(error = error.line(), "a request of IPAM failed and is tried again");
                Failure::Unknown
            }
            Error::Unusable(reason) => {
                self.state.ipam.written.failures.fetch_add(1, Relaxed);
                tracing::error!(reason, "claims cannot be used; restore the object, or delete it if no operator runs");
                Failure::Unknown
            }
            Error::Outdated => {
                self.state.ipam.written.conflicts.fetch_add(1, Relaxed);
                Failure::Conflict
            }
        }
    }

    /// An answer about a CiliumNode; that there is none is one too.
    fn node(&self, name: &Name, result: Result<Option<DynamicObject>, Error>) -> Outcome {
        Outcome::Node(match result {
            Ok(object) => Ok(object.as_ref().map(read::node)),
            Err(Error::Cluster(error)) if code(&error) == Some(404) => Ok(None::<NodeView>),
            Err(error) => {
                tracing::debug!(%name, "no answer about a CiliumNode");
                Err(self.failure(error))
            }
        })
    }

    async fn write_claims(&self, name: &str, version: Option<&Version>, claims: &Claims) -> Result<Version, Error> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: version.map(|version| version.0.clone()),
            ..ObjectMeta::default()
        };
        let object = PodCIDRClaims { metadata, spec: read::spec(claims) };
        let params = PostParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PostParams::default() };
        let action = format!("write PodCIDRClaims {name}");
        let written = match version {
            None => self.write(&action, self.claims().create(&params, &object)).await,
            Some(_) => self.write(&action, self.claims().replace(name, &params, &object)).await,
        };
        match written {
            Ok(object) => Ok(Version(object.resource_version().unwrap_or_default())),
            // It was deleted: as good as written by another.
            Err(error) if version.is_some() && code(&error) == Some(404) => Err(Error::Outdated),
            Err(error) => Err(error.into()),
        }
    }

    async fn read_claims(&self, name: &str) -> Result<Option<(Version, Claims)>, Error> {
        let found = self.read(&format!("read PodCIDRClaims {name}"), self.claims().get_opt(name)).await?;
        let Some(object) = found else { return Ok(None) };
        let claims = read::claims(&object.spec).map_err(|reason| Error::Unusable(format!("{name}: {reason}")))?;
        Ok(Some((Version(object.resource_version().unwrap_or_default()), claims)))
    }

    /// The names first: they say which objects overlap, and the others may be large.
    async fn overlaps(&self, name: &Name, network: &IpNet) -> Result<Vec<(Name, Version, Claims)>, Error> {
        let list = self.claims();
        let listed = self.read("list PodCIDRClaims", list.list_metadata(&ListParams::default())).await?;
        let mut found = Vec::new();
        for other in listed.items.iter().map(ResourceExt::name_any).filter(|other| **other != **name) {
            let Some(range) = parse_object_name(&other) else { continue };
            if (range.contains(network) || network.contains(&range))
                && let Some((version, claims)) = self.read_claims(&other).await?
            {
                found.push((other.into(), version, claims));
            }
        }
        Ok(found)
    }

    async fn get_node(&self, name: &str) -> Result<DynamicObject, Error> {
        Ok(self.read(&format!("read CiliumNode {name}"), self.nodes().get(name)).await?)
    }

    async fn patch_node(&self, name: &str, patch: Value) -> Result<Option<DynamicObject>, Error> {
        let nodes = self.nodes();
        let (params, patch) = (params(), Patch::Merge(patch));
        let answer = nodes.patch(name, &params, &patch);
        Ok(Some(self.write(&format!("give CiliumNode {name} its blocks"), answer).await?))
    }

    async fn fence(&self, name: &str) -> Result<Option<DynamicObject>, Error> {
        let object = self.get_node(name).await?;
        let version = object.resource_version().unwrap_or_default();
        let before = object.annotations().get(FENCE).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        let number = before.wrapping_add(1).to_string();
        let patch = json!({"metadata": {"resourceVersion": version, "annotations": {FENCE: number}}});
        self.patch_node(name, patch).await
    }

    /// All conditions are one list, so those of others are written along, under the guard of the version.
    async fn report(&self, name: &str, version: &Version, report: &Report) -> Result<Option<DynamicObject>, Error> {
        let object = self.get_node(name).await?;
        if read::version(&object) != *version {
            return Err(Error::Outdated);
        }
        let mut status = json!({"ipam": {"operator-status": {"error": report.error}}});
        if let Some(condition) = &report.condition {
            let written = &object.data["status"]["conditions"];
            status["conditions"] = with_condition(written, condition, &Timestamp::now().to_string());
        }
        let (params, nodes) = (params(), self.nodes());
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version.0}, "status": status}));
        let answer = nodes.patch_status(name, &params, &patch);
        Ok(Some(self.write(&format!("report on CiliumNode {name}"), answer).await?))
    }
}

/// The conditions with ours among them; its time is that of the last change of its status.
fn with_condition(written: &Value, (ok, reason, message): &(bool, String, String), now: &str) -> Value {
    let mut list: Vec<Value> = written.as_array().cloned().unwrap_or_default();
    let status = if *ok { "True" } else { "False" };
    let before = list.iter().position(|condition| condition["type"] == CONDITION);
    let since = before
        .and_then(|index| StatusCondition::deserialize(&list[index]).ok())
        .filter(|condition| condition.status == status && !condition.last_transition_time.is_empty())
        .map_or_else(|| now.to_owned(), |condition| condition.last_transition_time);
    let condition = json!({
        "type": CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    });
    match before {
        Some(index) => list[index] = condition,
        None => list.push(condition),
    }
    Value::Array(list)
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_MANAGER.to_owned()), ..PatchParams::default() }
}

enum Error {
    Cluster(ClusterError),
    /// The content of an object of claims is not the operator's.
    Unusable(String),
    /// Another wrote in between.
    Outdated,
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

async fn until<T>(
    deadline: Instant,
    action: &str,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    let limit = deadline.saturating_duration_since(Instant::now());
    let timed_out = || ClusterError::TimedOut { action: action.to_owned(), limit };
    if limit.is_zero() {
        return Err(timed_out());
    }
    match tokio::time::timeout_at(deadline, answer).await {
        Ok(answered) => answered
            .map_err(|error| ClusterError::Request { action: action.to_owned(), source: ApiFailure::from(error) }),
        Err(_) => Err(timed_out()),
    }
}

/// HTTP status of a refusal.
pub(crate) fn code(error: &ClusterError) -> Option<u16> {
    match error {
        ClusterError::Request { source, .. } => source.code(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_stay_and_the_time_is_that_of_the_change() {
        let full = (false, "RangeFull".to_owned(), "full".to_owned());
        let other = json!({"type": "AddressesAvailable", "status": "True"});
        let first = with_condition(&json!([other]), &full, "t1");
        assert_eq!(first[0], other);
        assert_eq!(first[1]["lastTransitionTime"], "t1");
        let again = with_condition(&first, &(false, "NoPool".to_owned(), "none".to_owned()), "t2");
        assert_eq!((&again[1]["reason"], &again[1]["lastTransitionTime"]), (&json!("NoPool"), &json!("t1")));
        let well = with_condition(&again, &(true, "Available".to_owned(), String::new()), "t3");
        assert_eq!((&well[1]["status"], &well[1]["lastTransitionTime"]), (&json!("True"), &json!("t3")));
    }
}
