//! Manifests that a case applies as a user does, and what becomes of their pods.

use std::{
    fmt,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

use super::{context::Context, place::Place, verdict::Stop};
use crate::target::PodInfo;

/// How long a thing may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// Requests at the same time.
const AT_ONCE: usize = 32;
/// Kinds of the cases' manifests that are in no namespace.
const OF_THE_CLUSTER: [&str; 2] = ["CiliumPodIPPool", "Namespace"];

/// A pod of an applied object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Started {
    pub(crate) name: String,
    /// Empty until it is scheduled.
    pub(crate) node: String,
    /// None until it is attached.
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) is_ready: bool,
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} with {:?}", self.name, self.node, self.ips)
    }
}

impl Context<'_> {
    /// Applies manifests; what has a namespace goes into the case's own. All of it is gone when the case ends.
    ///
    /// # Errors
    /// With the first object that is refused.
    pub(crate) fn apply(&self, manifests: &str) -> Result<(), Stop> {
        let mut objects = kinesin_lab::parse_manifest("the case", manifests).map_err(|error| Stop::target(&error))?;
        for object in &mut objects {
            if !OF_THE_CLUSTER.iter().any(|kind| object["kind"] == *kind) {
                object["metadata"]["namespace"] = json!(self.namespace);
            }
        }
        self.applied.borrow_mut().extend(objects.iter().cloned());
        let applied = kinesin_lab::apply(self.target.client(), "the case", objects);
        self.target.runtime().block_on(applied).map(drop).map_err(|error| Stop::target(&error))
    }

    /// Pods that only wait, spread over nodes evenly, with the label `app`; asked for all at once.
    ///
    /// # Errors
    /// With the first that is refused.
    pub(crate) fn burst(&self, app: &str, nodes: &[String], count: usize) -> Result<(), Stop> {
        let pod = |number: usize| {
            serde_json::from_value::<Pod>(json!({
                "metadata": {"name": format!("{app}-{number}"), "labels": {"app": app}},
                "spec": {
                    "nodeName": nodes[number % nodes.len()],
                    "terminationGracePeriodSeconds": 0,
                    "automountServiceAccountToken": false,
                    "containers": [{"name": "pause", "image": "registry.k8s.io/pause"}],
                },
            }))
        };
        let pods: Vec<Pod> = (0..count).map(pod).collect::<Result<_, _>>().map_err(|error| Stop::target(&error))?;
        let (api, params) = (self.pods(), PostParams::default());
        let create = |pod: Pod| {
            let (api, params) = (api.clone(), params.clone());
            async move { api.create(&params, &pod).await }
        };
        let all = stream::iter(pods).map(create).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) });
        self.target.runtime().block_on(all).map_err(|error| Stop::target(&error))
    }

    /// Deletes all pods with the label `app` at once, and returns when the API knows them no more.
    ///
    /// # Errors
    /// When they stay.
    pub(crate) fn delete_all(&self, app: &str) -> Result<(), Stop> {
        let (now, of_app) =
            (DeleteParams::default().grace_period(0), ListParams::default().labels(&format!("app={app}")));
        let deleted = self.target.runtime().block_on(self.pods().delete_collection(&now, &of_app));
        deleted.map_err(|error| Stop::target(&error))?;
        self.wait_until_gone(|pod| pod.metadata.labels.iter().flatten().any(|(key, name)| key == "app" && name == app))
    }

    /// As `kubectl annotate namespace`, of the case's own.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn annotate_namespace(&self, key: &str, value: &str) -> Result<(), Stop> {
        let api: Api<Namespace> = Api::all(self.target.client().clone());
        let (params, patch) =
            (PatchParams::default(), Patch::Merge(json!({"metadata": {"annotations": {key: value}}})));
        let annotated = self.target.runtime().block_on(api.patch(&self.namespace, &params, &patch));
        annotated.map(drop).map_err(|error| Stop::target(&error))
    }

    /// As `kubectl scale deployment`.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn scale_to(&self, deployment: &str, replicas: usize) -> Result<(), Stop> {
        let api: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(self.target.client().clone(), &self.namespace);
        let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"spec": {"replicas": replicas}})));
        let scaled = self.target.runtime().block_on(api.patch(deployment, &params, &patch));
        scaled.map(drop).map_err(|error| Stop::target(&error))
    }

    /// The pods with the label `app` that nobody has deleted, by name.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn pods_of(&self, app: &str) -> Result<Vec<Started>, Stop> {
        let is_of = |pod: &&Pod| {
            let labels = pod.metadata.labels.iter().flatten();
            pod.metadata.deletion_timestamp.is_none()
                && labels.into_iter().any(|(key, name)| key == "app" && name == app)
        };
        let mut pods: Vec<Started> = self.list()?.iter().filter(is_of).map(started).collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pods)
    }

    /// The pods with the label `app` once `count` of them are ready.
    ///
    /// # Errors
    /// When they are not in time; with what keeps the first one.
    pub(crate) fn ready(&self, app: &str, count: usize) -> Result<Vec<Started>, Stop> {
        let last = self.until(&format!("{count} ready pods of {app}"), || {
            let pods = self.pods_of(app)?;
            let ready: Vec<Started> = pods.into_iter().filter(|pod| pod.is_ready).collect();
            Ok(if ready.len() == count { Ok(ready) } else { Err(format!("there are {}", ready.len())) })
        });
        last.or_else(|stop| {
            let waiting = self.pods_of(app)?.into_iter().find(|pod| !pod.is_ready);
            let told = waiting.map(|pod| {
                let events = self.events(&pod.name).unwrap_or_default();
                format!("; {pod}: {}", events.last().map(String::as_str).unwrap_or("no event"))
            });
            Err(Stop::broken(format!("{stop}{}", told.unwrap_or_default())))
        })
    }

    /// Running pods as places that ask and answer.
    ///
    /// # Errors
    /// When one cannot be entered.
    pub(crate) fn places_of(&self, pods: &[Started]) -> Result<Vec<Place>, Stop> {
        let place = |pod: &Started| {
            let info = PodInfo {
                namespace: self.namespace.clone(),
                name: pod.name.clone(),
                node: pod.node.clone(),
                ips: pod.ips.clone(),
            };
            let hands = self.target.pod_hands(&info).map_err(Stop::broken)?;
            Place::new(format!("{} on {}", pod.name, pod.node), pod.node.clone(), pod.ips.clone(), hands, self.key())
        };
        pods.iter().map(place).collect()
    }

    /// Messages of a pod's events, such as `Failed to create pod sandbox: ...`.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn events(&self, pod: &str) -> Result<Vec<String>, Stop> {
        let events: Api<Event> = Api::namespaced(self.target.client().clone(), &self.namespace);
        let listed = self.target.runtime().block_on(events.list(&ListParams::default()));
        let listed = listed.map_err(|error| Stop::target(&error))?;
        let of_pod = listed.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(pod));
        Ok(of_pod.map(|event| event.message.unwrap_or_default()).collect())
    }

    /// An object of the cluster's own kinds, as it is.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn read(&self, version: &str, kind: &str, plural: &str, name: &str) -> Result<Value, Stop> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(self.target.client().clone(), &resource);
        let found = self.target.runtime().block_on(api.get(name)).map_err(|error| Stop::target(&error))?;
        serde_json::to_value(found).map_err(|error| Stop::target(&error))
    }

    /// Deletes an object of the cluster's own kinds.
    ///
    /// # Errors
    /// The API's.
    pub(crate) fn remove(&self, version: &str, kind: &str, plural: &str, name: &str) -> Result<(), Stop> {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        let api: Api<DynamicObject> = Api::all_with(self.target.client().clone(), &resource);
        let removed = self.target.runtime().block_on(api.delete(name, &DeleteParams::background()));
        removed.map(drop).map_err(|error| Stop::target(&error))
    }

    /// What `look` finds, which says in the meantime what it sees instead.
    ///
    /// # Errors
    /// When it does not come about in time.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Result<T, String>, Stop>,
    ) -> Result<T, Stop> {
        let until = Instant::now() + PATIENCE;
        loop {
            match look()? {
                Ok(found) => return Ok(found),
                Err(seen) if Instant::now() > until => {
                    return Err(Stop::broken(format!("waited {} s for {what}: {seen}", PATIENCE.as_secs())));
                }
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    /// Removes what was applied, the last first. What cannot be removed is told by whoever trips over it.
    pub(super) fn remove_applied(&self) {
        let runtime = self.target.runtime();
        for object in self.applied.take().into_iter().rev() {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
            let client = self.target.client().clone();
            let api: Api<DynamicObject> = if OF_THE_CLUSTER.contains(&kind.as_str()) {
                // Its pods first: a pool goes when nobody has an address of it.
                let now = DeleteParams::default().grace_period(0);
                let _ = runtime.block_on(self.pods().delete_collection(&now, &ListParams::default()));
                Api::all_with(client, &resource)
            } else {
                Api::namespaced_with(client, &self.namespace, &resource)
            };
            let _ = runtime.block_on(api.delete(&name, &DeleteParams::background()));
        }
    }
}

fn started(pod: &Pod) -> Started {
    let status = pod.status.as_ref();
    let ips = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten());
    let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    Started {
        name: pod.metadata.name.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        ips: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        is_ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
    }
}
