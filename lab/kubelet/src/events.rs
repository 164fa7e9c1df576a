//! Events about pods, as a kubelet writes them; the same said again counts up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::node::stamp;

/// Said about a pod: kind, reason, message.
type Said = (String, String, String, String);

/// Writes events without making anybody wait for them.
#[derive(Clone)]
pub(crate) struct Recorder {
    client: Client,
    node: String,
    said: Arc<Mutex<HashMap<Said, (String, u32)>>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("node", &self.node).finish_non_exhaustive()
    }
}

/// So many different things are remembered for counting before all are forgotten.
const REMEMBERED: usize = 4096;

impl Recorder {
    pub(crate) fn new(client: Client, node: &str) -> Self {
        Self { client, node: node.to_owned(), said: Arc::default() }
    }

    pub(crate) fn normal(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.say(pod, container, "Normal", reason, message.into());
    }

    pub(crate) fn warning(&self, pod: &Pod, container: Option<&str>, reason: &str, message: impl Into<String>) {
        self.say(pod, container, "Warning", reason, message.into());
    }

    fn say(&self, pod: &Pod, container: Option<&str>, kind: &str, reason: &str, message: String) {
        let meta = &pod.metadata;
        let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
        let uid = meta.uid.clone().unwrap_or_default();
        let (event, count) = {
            let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.len() > REMEMBERED {
                said.clear();
            }
            let key = (
                format!("{uid}/{}", container.unwrap_or_default()),
                kind.to_owned(),
                reason.to_owned(),
                message.clone(),
            );
            let entry = said.entry(key).or_insert_with(|| (format!("{name}.{:016x}", rand::random::<u64>()), 0));
            entry.1 += 1;
            entry.clone()
        };
        let now = stamp(Timestamp::now());
        let mut involved = json!({"kind": "Pod", "apiVersion": "v1", "name": name, "namespace": namespace, "uid": uid,
            "resourceVersion": meta.resource_version});
        if let Some(container) = container {
            let is_init = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == container);
            let list = if is_init { "initContainers" } else { "containers" };
            involved["fieldPath"] = format!("spec.{list}{{{container}}}").into();
        }
        let body = json!({
            "metadata": {"name": event, "namespace": namespace}, "involvedObject": involved, "type": kind, "reason": reason,
            "message": message, "source": {"component": "kubelet", "host": self.node}, "reportingComponent": "kubelet",
            "reportingInstance": self.node, "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        });
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        tokio::spawn(async move {
            let outcome = if count > 1 {
                let patch = Patch::Merge(json!({"count": count, "lastTimestamp": now}));
                events.patch(&event, &PatchParams::default(), &patch).await.map(drop)
            } else {
                match serde_json::from_value(body) {
                    Ok(body) => events.create(&PostParams::default(), &body).await.map(drop),
                    Err(error) => Err(kube::Error::SerdeError(error)),
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "an event was not written");
            }
        });
    }
}
