//! The kubelet of one node: its pods from the API server, one worker for each.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::Api;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Client, ResourceExt as _};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::events::Recorder;
use crate::record::{self, PodRecord};
use crate::worker::{Message, Worker};
use crate::{KubeletError, files, node, sandbox, server, volumes};

/// What everything on the node shares.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) events: Recorder,
    /// The program with `lab-launch` and `lab-workload`.
    pub(crate) program: PathBuf,
    /// Images that have been pulled; a real node has a disk for them.
    pub(crate) pulled: Mutex<HashSet<String>>,
    pods: Mutex<BTreeMap<String, Handle>>,
    /// Pods that are done with, until the watch says so, too: its events are late, and must not start them again.
    ended: Mutex<HashSet<String>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Handle {
    to: UnboundedSender<Message>,
    view: Arc<Mutex<PodRecord>>,
}

impl Node {
    /// The pod of a name, as its worker last left it.
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<PodRecord> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let views = pods.values().map(|handle| handle.view.lock().unwrap_or_else(PoisonError::into_inner));
        // A pod of the same name may still be going while its successor comes.
        views
            .filter(|record| record.namespace() == namespace && record.name() == name)
            .max_by_key(|record| record.started)
            .map(|record| record.clone())
    }

    /// Forgets a pod whose worker has ended.
    pub(crate) fn forget(&self, uid: &str) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn tell(
        self: &Arc<Self>,
        workers: &mut JoinSet<()>,
        uid: &str,
        message: Message,
        record: impl FnOnce() -> Option<PodRecord>,
    ) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let message = match pods.get(uid) {
            None => message,
            Some(handle) => match handle.to.send(message) {
                Ok(()) => return,
                // Its worker is just ending; the pod gets another.
                Err(unsent) => unsent.0,
            },
        };
        if self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(uid) {
            return;
        }
        let Some(record) = record() else { return };
        let (to, inbox) = tokio::sync::mpsc::unbounded_channel();
        let view = Arc::new(Mutex::new(record.clone()));
        let worker = Worker::new(self.clone(), record, to.clone(), inbox, view.clone());
        // The receiver lives in the worker.
        let _ = to.send(message);
        pods.insert(uid.to_owned(), Handle { to, view });
        workers.spawn(worker.run());
    }

    /// Tells the pods of a namespace whose volumes come from an object that it changed.
    fn source_changed(&self, namespace: &str, uses: impl Fn(&Pod) -> bool) {
        for handle in self.pods.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let view = handle.view.lock().unwrap_or_else(PoisonError::into_inner);
            if view.namespace() == namespace && uses(&view.pod) {
                // A worker that has ended needs no volumes.
                let _ = handle.to.send(Message::SourceChanged);
            }
        }
    }
}

/// Runs the kubelet until it is told to stop. What runs on the node goes on without it, and the next one takes it over.
///
/// Must run inside the node: its mount, network, pid and uts namespaces, and its cgroup.
///
/// # Errors
/// `Config` and `File` at the start, when it cannot begin; later troubles are retried.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), KubeletError> {
    config.validate()?;
    let program = match &config.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().map_err(KubeletError::file("find", std::path::Path::new("/proc/self/exe")))?,
    };
    for dir in [&config.pods_dir, &config.log_dir, &config.netns_dir] {
        files::make_dir(dir)?;
    }
    let url = config.api_server_url.parse().map_err(|error| KubeletError::Config {
        field: "api_server_url",
        reason: format!("{:?} is not a URL: {error}", config.api_server_url),
    })?;
    let client = Client::try_from(kube::Config::new(url)).map_err(KubeletError::api("make a client"))?;
    let events = Recorder::new(client.clone(), &config.node_name);
    let node = Arc::new(Node {
        config,
        client,
        events,
        program,
        pulled: Mutex::default(),
        pods: Mutex::default(),
        ended: Mutex::default(),
    });
    let listener = server::listen(&node.config.socket)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, node.clone()));
    tasks.spawn(node::keep(node.client.clone(), node.config.clone()));
    tasks.spawn(watch_pods(node.clone()));
    tasks.spawn(watch_config_maps(node.clone()));
    tasks.spawn(watch_secrets(node));
    shutdown.cancelled().await;
    tasks.shutdown().await;
    Ok(())
}

async fn watch_pods(node: Arc<Node>) {
    let mut left = record::load_all(&node.config.pods_dir);
    sandbox::remove_unknown(&node.config.netns_dir, left.values());
    let pods: Api<Pod> = Api::all(node.client.clone());
    let only_ours = watcher::Config::default().fields(&format!("spec.nodeName={}", node.config.node_name));
    let mut stream = std::pin::pin!(watcher(pods, only_ours).boxed());
    let mut workers = JoinSet::new();
    let mut listed = HashSet::new();
    loop {
        let event = tokio::select! {
            event = stream.next() => event,
            Some(_) = workers.join_next() => continue,
        };
        match event {
            Some(Ok(Event::Init)) => listed.clear(),
            Some(Ok(Event::InitApply(pod) | Event::Apply(pod))) => {
                let uid = pod.uid().unwrap_or_default();
                listed.insert(uid.clone());
                let known = left.remove(&uid);
                let fresh = pod.clone();
                node.tell(&mut workers, &uid, Message::Pod(Box::new(pod)), || {
                    Some(known.unwrap_or_else(|| PodRecord::new(fresh)))
                });
            }
            Some(Ok(Event::Delete(pod))) => {
                let uid = pod.uid().unwrap_or_default();
                node.tell(&mut workers, &uid, Message::Gone, || None);
                node.ended.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
            }
            Some(Ok(Event::InitDone)) => {
                // Deleted while nobody looked: by an earlier kubelet's death, or a break of the watch.
                for (uid, record) in std::mem::take(&mut left) {
                    node.tell(&mut workers, &uid, Message::Gone, || Some(record));
                }
                node.ended.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid| listed.contains(uid));
                let gone: Vec<String> = {
                    let pods = node.pods.lock().unwrap_or_else(PoisonError::into_inner);
                    pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect()
                };
                for uid in gone {
                    node.tell(&mut workers, &uid, Message::Gone, || None);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the watch of the pods broke off");
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            }
            None => return,
        }
    }
}

async fn watch_config_maps(node: Arc<Node>) {
    let all: Api<ConfigMap> = Api::all(node.client.clone());
    let mut stream = std::pin::pin!(watcher(all, watcher::Config::default()));
    loop {
        match stream.try_next().await {
            Ok(Some(Event::Apply(map) | Event::InitApply(map) | Event::Delete(map))) => {
                let name = map.name_any();
                node.source_changed(&map.namespace().unwrap_or_default(), |pod| {
                    volumes::sources(pod).0.contains(&name)
                });
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
        }
    }
}

async fn watch_secrets(node: Arc<Node>) {
    let all: Api<Secret> = Api::all(node.client.clone());
    let mut stream = std::pin::pin!(watcher(all, watcher::Config::default()));
    loop {
        match stream.try_next().await {
            Ok(Some(Event::Apply(secret) | Event::InitApply(secret) | Event::Delete(secret))) => {
                let name = secret.name_any();
                node.source_changed(&secret.namespace().unwrap_or_default(), |pod| {
                    volumes::sources(pod).1.contains(&name)
                });
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(_) => tokio::time::sleep(std::time::Duration::from_secs(1)).await,
        }
    }
}
