//! Deployments: one replica set per pod template, and the rollout from one to the next.
//!
//! Source: `pkg/controller/deployment` of Kubernetes 1.32 (rolling.go, recreate.go, sync.go).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::events::emit;
use super::{Controller, pods};
use crate::object;
use crate::ops::pods::share;
use crate::ops::{Api, DeleteOptions, Write};

const COMPONENT: &str = "deployment-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";
const HASH: &str = "pod-template-hash";

#[derive(Debug)]
pub(super) struct Deployments;

impl Controller for Deployments {
    const WATCHES: &'static [&'static str] = &["deployments.apps", "replicasets.apps", "pods"];

    fn pass(&mut self, api: &Api) -> Option<Duration> {
        let mut again = None;
        for deployment in api.all("deployments.apps") {
            if !object::is_deleting(&deployment) {
                let next = Rollout::read(api, &deployment).step();
                again = [again, next].into_iter().flatten().min();
            }
        }
        again
    }
}

/// One deployment with its replica sets.
struct Rollout<'a> {
    api: &'a Api,
    deployment: &'a Value,
    /// The set of the present template.
    new: Option<Arc<Value>>,
    /// The others, oldest first.
    old: Vec<Arc<Value>>,
}

fn replicas(set: &Value) -> i64 {
    object::int(set, &["spec", "replicas"]).unwrap_or_default()
}

fn status(set: &Value, field: &str) -> i64 {
    object::int(set, &["status", field]).unwrap_or_default()
}

fn revision_of(object: &Value) -> i64 {
    object::text(object, &["metadata", "annotations", REVISION]).parse().unwrap_or_default()
}

/// A template without the label that tells the sets apart.
fn bare_template(object: &Value) -> Value {
    let mut template = object["spec"]["template"].clone();
    object::unset(&mut template, &["metadata", "labels", HASH]);
    object::unset(&mut template, &["metadata", "creationTimestamp"]);
    template
}

impl<'a> Rollout<'a> {
    fn read(api: &'a Api, deployment: &'a Value) -> Self {
        let sets = api.store.list("replicasets.apps", Some(object::namespace(deployment))).0;
        let mut own: Vec<Arc<Value>> =
            sets.into_iter().filter(|s| object::is_controlled_by(s, object::uid(deployment))).collect();
        own.sort_by_key(|s| (revision_of(s), object::text(s, &["metadata", "creationTimestamp"]).to_owned()));
        let template = bare_template(deployment);
        let new =
            own.iter().position(|s| !object::is_deleting(s) && bare_template(s) == template).map(|i| own.remove(i));
        Self { api, deployment, new, old: own }
    }

    fn wanted(&self) -> i64 {
        replicas(self.deployment)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.old.iter().chain(&self.new)
    }

    /// Replicas that may come on top of, and be missing from, those wanted.
    fn slack(&self) -> (i64, i64) {
        let rolling = &self.deployment["spec"]["strategy"]["rollingUpdate"];
        let surge = share(&rolling["maxSurge"], self.wanted());
        let unavailable = match &rolling["maxUnavailable"] {
            // Here a percentage is rounded down.
            Value::String(text) => self.wanted() * text.trim_end_matches('%').parse::<i64>().unwrap_or_default() / 100,
            number => number.as_i64().unwrap_or_default(),
        };
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(self.wanted())) }
    }

    fn step(mut self) -> Option<Duration> {
        let is_paused = object::flag(self.deployment, &["spec", "paused"]);
        if !is_paused && self.new.is_none() && !self.make_set() {
            return Some(Duration::from_millis(200));
        }
        if is_paused {
            // A paused deployment is scaled, not rolled out.
            if let Some(set) = self.all().filter(|s| replicas(s) > 0).last().or(self.new.as_ref()).cloned() {
                let others: i64 = self.all().filter(|s| object::uid(s) != object::uid(&set)).map(|s| replicas(s)).sum();
                self.scale(&set, (self.wanted() - others).max(0));
            }
        } else if object::text(self.deployment, &["spec", "strategy", "type"]) == "Recreate" {
            self.recreate();
        } else {
            self.roll();
        }
        self.annotate();
        self.forget_old();
        self.report()
    }

    /// Makes the set of the present template; false when its name is still taken.
    fn make_set(&mut self) -> bool {
        let template = bare_template(self.deployment);
        let hash = object::short_hash(&template);
        let name = format!("{}-{hash}", object::name(self.deployment));
        let revision = self.old.iter().map(|s| revision_of(s)).max().unwrap_or_default() + 1;
        let mut set = json!({
            "metadata": {"name": name, "labels": template["metadata"]["labels"],
                "annotations": {REVISION: revision.to_string()},
                "ownerReferences": [pods::owner_reference(self.deployment)]},
            "spec": {"replicas": 0, "selector": self.deployment["spec"]["selector"], "template": template},
        });
        object::carry(self.deployment, &mut set, &["spec", "minReadySeconds"]);
        if let Some(cause) = object::at(self.deployment, &["metadata", "annotations", CAUSE]) {
            object::set(&mut set, &["metadata", "annotations", CAUSE], cause.clone());
        }
        for path in [
            ["metadata", "labels"].as_slice(),
            &["spec", "selector", "matchLabels"],
            &["spec", "template", "metadata", "labels"],
        ] {
            let mut path = path.to_vec();
            path.push(HASH);
            object::set(&mut set, &path, hash.as_str());
        }
        let kind = self.api.builtin("apps", "replicasets");
        let write = &mut Write::by("kube-controller-manager");
        match self.api.create(&kind, object::namespace(self.deployment), set, write) {
            Ok(set) => {
                self.new = Some(set);
                true
            }
            Err(error) => {
                tracing::debug!(message = error.message, "a replica set was not made");
                false
            }
        }
    }

    fn recreate(&mut self) {
        let old = self.old.clone();
        for set in &old {
            self.scale(set, 0);
        }
        let pods = self.api.store.list("pods", Some(object::namespace(self.deployment))).0;
        let is_clear = old.iter().all(|set| {
            pods::of_owner(&pods, set).all(|p| matches!(object::text(p, &["status", "phase"]), "Succeeded" | "Failed"))
        });
        if is_clear && let Some(new) = self.new.clone() {
            self.scale(&new, self.wanted());
        }
    }

    fn roll(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let (surge, unavailable) = self.slack();
        let total: i64 = self.all().map(|s| replicas(s)).sum();
        let has = replicas(&new);
        if has > self.wanted() {
            self.scale(&new, self.wanted());
        } else if has < self.wanted() {
            let room = (self.wanted() + surge - total).max(0);
            self.scale(&new, has + room.min(self.wanted() - has));
        }
        // The scaling above does not change what is available, so the old sets may follow at once.
        let Some(new) = self.new.clone() else { return };
        let total: i64 = self.all().map(|s| replicas(s)).sum();
        let least = self.wanted() - unavailable;
        let new_unavailable = replicas(&new) - status(&new, "availableReplicas");
        let mut room = total - least - new_unavailable;
        for set in self.old.clone() {
            let broken = (replicas(&set) - status(&set, "availableReplicas")).clamp(0, room.max(0));
            if broken > 0 {
                self.scale(&set, replicas(&set) - broken);
                room -= broken;
            }
        }
        let available: i64 = self.all().map(|s| status(s, "availableReplicas").min(replicas(s))).sum();
        let mut spare = (available - least).min(room.max(0));
        for set in self.old.clone() {
            let gone = replicas(&set).min(spare.max(0));
            if gone > 0 {
                self.scale(&set, replicas(&set) - gone);
                spare -= gone;
            }
        }
    }

    /// Sets the replicas of a set and keeps the new state in hand.
    fn scale(&mut self, set: &Arc<Value>, to: i64) {
        let from = replicas(set);
        if from == to {
            return;
        }
        let kind = self.api.builtin("apps", "replicasets");
        let (surge, _) = self.slack();
        let (wanted, most) = (self.wanted().to_string(), (self.wanted() + surge).to_string());
        let write = &mut Write::by("kube-controller-manager");
        let outcome = self.api.change(&kind, object::namespace(set), object::name(set), write, |next| {
            object::set(next, &["spec", "replicas"], to);
            object::set(
                next,
                &["metadata", "annotations", "deployment.kubernetes.io/desired-replicas"],
                wanted.as_str(),
            );
            object::set(next, &["metadata", "annotations", "deployment.kubernetes.io/max-replicas"], most.as_str());
        });
        let stored = match outcome {
            Ok(stored) => stored,
            Err(error) => return tracing::debug!(message = error.message, "a replica set was not scaled"),
        };
        let way = if to > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {from} to {to}", object::name(set));
        emit(self.api, self.deployment, "Normal", "ScalingReplicaSet", &message, COMPONENT);
        for slot in self.old.iter_mut().chain(&mut self.new) {
            if object::uid(slot) == object::uid(&stored) {
                *slot = stored.clone();
            }
        }
    }

    /// Numbers the present revision; going back to an old template makes it the newest.
    fn annotate(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let newest = self.old.iter().map(|s| revision_of(s)).max().unwrap_or_default();
        let revision = if revision_of(&new) > newest { revision_of(&new) } else { newest + 1 };
        let text = revision.to_string();
        for (plural, object) in [("replicasets", new.as_ref()), ("deployments", self.deployment)] {
            if object::text(object, &["metadata", "annotations", REVISION]) == text {
                continue;
            }
            let kind = self.api.builtin("apps", plural);
            let write = &mut Write::by("kube-controller-manager");
            let outcome = self.api.change(&kind, object::namespace(object), object::name(object), write, |next| {
                object::set(next, &["metadata", "annotations", REVISION], text.as_str());
            });
            if let Err(error) = outcome {
                tracing::debug!(message = error.message, "a revision was not written");
            }
        }
    }

    /// Deletes empty sets beyond the history that is kept.
    fn forget_old(&self) {
        let keep = object::int(self.deployment, &["spec", "revisionHistoryLimit"]).unwrap_or(10);
        let empty: Vec<_> = self
            .old
            .iter()
            .filter(|s| replicas(s) == 0 && status(s, "replicas") == 0 && !object::is_deleting(s))
            .collect();
        let surplus = empty.len().saturating_sub(usize::try_from(keep).unwrap_or_default());
        let kind = self.api.builtin("apps", "replicasets");
        for set in &empty[..surplus] {
            let (namespace, name) = (object::namespace(set), object::name(set));
            if let Err(error) = self.api.delete(&kind, namespace, name, &DeleteOptions::default()) {
                tracing::debug!(message = error.message, "an old replica set was not deleted");
            }
        }
    }

    fn report(&self) -> Option<Duration> {
        let sum = |field: &str| self.all().map(|s| status(s, field)).sum::<i64>();
        let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let updated = self.new.as_ref().map_or(0, |s| status(s, "replicas"));
        let (_, unavailable) = self.slack();
        let is_enough = available >= self.wanted() - unavailable;
        let is_complete = updated == self.wanted() && total == self.wanted() && available >= self.wanted();

        let set_name = self.new.as_ref().map(|s| object::name(s).to_owned()).unwrap_or_default();
        let before = object::condition(self.deployment, "Progressing");
        let is_stuck = !is_complete && self.deadline_left().is_some_and(|left| left.is_zero());
        let (status, reason, text) = if is_complete {
            ("True", "NewReplicaSetAvailable", format!("ReplicaSet \"{set_name}\" has successfully progressed."))
        } else if is_stuck {
            ("False", "ProgressDeadlineExceeded", format!("ReplicaSet \"{set_name}\" has timed out progressing."))
        } else {
            ("True", "ReplicaSetUpdated", format!("ReplicaSet \"{set_name}\" is progressing."))
        };
        let moved = ["updatedReplicas", "readyReplicas", "availableReplicas"]
            .into_iter()
            .zip([updated, ready, available])
            .any(|(field, now)| status_of(self.deployment, field) != now)
            || before.is_none_or(|c| object::text(c, &["reason"]) != reason);
        let mut next = self.deployment.clone();
        if is_enough {
            let text = "Deployment has minimum availability.";
            object::set_condition(&mut next, "Available", "True", "MinimumReplicasAvailable", text);
        } else {
            let text = "Deployment does not have minimum availability.";
            object::set_condition(&mut next, "Available", "False", "MinimumReplicasUnavailable", text);
        }
        object::set_condition(&mut next, "Progressing", status, reason, &text);
        let mut conditions = object::list(&next, &["status", "conditions"]).to_vec();
        for condition in &mut conditions {
            let old = object::condition(self.deployment, object::text(condition, &["type"]));
            let is_progress = condition["type"] == "Progressing";
            condition["lastUpdateTime"] = match old.and_then(|o| o.get("lastUpdateTime")) {
                // The deadline counts from the last progress, so only progress moves this time.
                Some(time) if old.is_some_and(|o| o["status"] == condition["status"]) && !(is_progress && moved) => {
                    time.clone()
                }
                _ => object::now().into(),
            };
        }
        let count = |n: i64| pods::count(usize::try_from(n).unwrap_or_default());
        pods::write_status(
            self.api,
            ("apps", "deployments"),
            self.deployment,
            &[
                ("observedGeneration", self.deployment["metadata"]["generation"].clone()),
                ("replicas", count(total)),
                ("updatedReplicas", count(updated)),
                ("readyReplicas", count(ready)),
                ("availableReplicas", count(available)),
                ("unavailableReplicas", count((self.wanted() - available).max(0))),
                ("conditions", conditions.into()),
            ],
        );
        if is_complete || is_stuck { None } else { self.deadline_left() }
    }

    /// What is left of the time in which a rollout must make progress.
    fn deadline_left(&self) -> Option<Duration> {
        let progress = object::condition(self.deployment, "Progressing")?;
        let seconds = object::int(self.deployment, &["spec", "progressDeadlineSeconds"])?;
        let since = object::parse_time(object::text(progress, &["lastUpdateTime"]))?;
        let passed = SystemTime::now().duration_since(since).unwrap_or_default();
        Some(Duration::from_secs(u64::try_from(seconds).ok()?).saturating_sub(passed))
    }
}

const CAUSE: &str = "kubernetes.io/change-cause";

fn status_of(object: &Value, field: &str) -> i64 {
    object::int(object, &["status", field]).unwrap_or_default()
}
