//! The agents as the API knows them.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, DeleteParams, ListParams},
};
use tokio::{io::AsyncReadExt, runtime::Handle};

use crate::cluster::Stop;

/// Label of the agents' pods.
pub(super) const AGENTS: &str = "k8s-app=cilium";
/// Their container.
const CONTAINER: &str = "cilium-agent";
/// How long a command in an agent's pod may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long agents may take to come back.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn api(client: &Client, namespace: &str) -> Api<Pod> {
    Api::namespaced(client.clone(), namespace)
}

pub(super) fn list(runtime: &Handle, client: &Client, namespace: &str) -> Result<Vec<Pod>, Stop> {
    let listed = runtime.block_on(api(client, namespace).list(&ListParams::default().labels(AGENTS)));
    listed.map(|list| list.items).map_err(|error| Stop::target(&error))
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none() && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// What a command in the container of the agent on a node writes to stdout.
pub(super) fn ask(
    runtime: &Handle,
    client: &Client,
    namespace: &str,
    node: &str,
    words: &[&str],
) -> Result<String, Stop> {
    let is_there = |pod: &Pod| is_ready(pod) && pod.spec.as_ref().is_some_and(|s| s.node_name.as_deref() == Some(node));
    // A node under load may miss a probe or two.
    let until = Instant::now() + PATIENCE;
    let pod = loop {
        let found = list(runtime, client, namespace)?.into_iter().find(is_there).and_then(|pod| pod.metadata.name);
        match found {
            Some(name) => break name,
            None if Instant::now() > until => {
                let within = PATIENCE.as_secs();
                return Err(Stop::broken(format!("no agent on {node} is ready within {within} s")));
            }
            None => thread::sleep(LOOK),
        }
    };
    let failed = |what: &str| Stop::broken(format!("`{}` in {pod} on {node}: {what}", words.join(" ")));
    let pods = api(client, namespace);
    let asked = async {
        let params = AttachParams::default().container(CONTAINER).stdout(true).stderr(true);
        let mut process =
            pods.exec(&pod, words.iter().copied(), &params).await.map_err(|error| Stop::target(&error))?;
        let (mut text, mut errors) = (String::new(), String::new());
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        if let Some(mut stdout) = stdout {
            stdout.read_to_string(&mut text).await.map_err(|error| Stop::target(&error))?;
        }
        if let Some(mut stderr) = stderr {
            stderr.read_to_string(&mut errors).await.map_err(|error| Stop::target(&error))?;
        }
        let status = match status {
            Some(status) => status.await.and_then(|status| status.status),
            None => None,
        };
        if status.as_deref() == Some("Success") { Ok(text) } else { Err(failed(errors.trim())) }
    };
    let limited = async { tokio::time::timeout(ANSWER, asked).await };
    runtime.block_on(limited).unwrap_or_else(|_| Err(failed("no answer")))
}

/// Deletes every agent's pod, and waits until as many others are ready.
pub(super) fn restart(runtime: &Handle, client: &Client, namespace: &str) -> Result<(), Stop> {
    let before = list(runtime, client, namespace)?;
    if before.is_empty() {
        return Err(Stop::broken(format!("there are no pods with label {AGENTS} in namespace {namespace}")));
    }
    for name in before.iter().filter_map(|pod| pod.metadata.name.as_deref()) {
        let deleted = runtime.block_on(api(client, namespace).delete(name, &DeleteParams::default()));
        deleted.map_err(|error| Stop::target(&error))?;
    }
    let old: BTreeSet<_> = before.iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let now = list(runtime, client, namespace)?;
        let is_old = |pod: &Pod| pod.metadata.uid.as_ref().is_some_and(|uid| old.contains(uid));
        let (gone, ready) = (!now.iter().any(is_old), now.iter().filter(|pod| is_ready(pod)).count());
        if gone && ready == before.len() {
            return Ok(());
        }
        if Instant::now() > until {
            let within = PATIENCE.as_secs();
            return Err(Stop::broken(format!(
                "of {} restarted agents {ready} are ready after {within} s",
                before.len()
            )));
        }
        thread::sleep(LOOK);
    }
}
